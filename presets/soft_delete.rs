//! The soft delete preset: deleted items are kept and can be restored.

use crate::adapter::FieldType;
use crate::resource::SoftDelete;
use crate::resource::{Model, ModelField, PresetFaults};
use crate::{Preset, ResourceBuilder};

/// Keeps deleted items: DELETE returns the item (200) and removes it from every list, relation and response, until
/// `POST /{id}/restore` restores it. The model needs a field `deleted_at` for the time of deletion, which no body sets.
///
/// Callers who may delete see deleted items by `?deleted=include` or `?deleted=only`, and may restore them, unless
/// declared otherwise. Unique values of deleted items stay taken.
///
/// ```
/// use resourceful::prelude::*;
///
/// #[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
/// struct Note {
///     id: Uuid,
///     text: String,
///     deleted_at: Option<DateTime<Utc>>,
/// }
///
/// let notes = define_resource::<Note>("notes")
///     .adapter(Memory::new().table("notes"))
///     .permissions(Permissions::read(anyone()).write(signed_in()))
///     .preset(soft_delete().purge_after(Duration::from_secs(30 * 24 * 3600)))
///     .build()?;
/// # let _ = notes;
/// # Ok::<(), DefinitionErrors>(())
/// ```
pub fn soft_delete() -> SoftDelete {
    SoftDelete::new()
}

impl Preset for SoftDelete {
    fn name(&self) -> &'static str {
        "soft_delete"
    }

    fn apply(&self, resource: ResourceBuilder) -> ResourceBuilder {
        resource.soft_delete(self.clone())
    }

    fn verify(&self, model: &Model<'_>, faults: &mut PresetFaults<'_>) {
        let name = self.deleted_at_field();
        let fits = |field: ModelField<'_>| field.is_nullable() && field.field_type() == FieldType::DateTime;
        if !model.field(name).is_some_and(fits) {
            faults.push(
                name,
                "deleted items are kept, and the model has no nullable time of deletion",
                format!("{name}: Option<DateTime<Utc>>"),
            );
        }
    }
}
