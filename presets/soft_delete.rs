//! Items that are deleted and still there.

use std::time::Duration;

use crate::{Permission, Preset, ResourceBuilder, SoftDelete};

/// Keeps what is deleted: DELETE answers the item (200) and takes it out of every list, relation and answer, until
/// `POST /{id}/restore` brings it back. The model has a field `deleted_at` for it, which no body sets.
///
/// Whoever may delete sees deleted items by `?deleted=include` or `?deleted=only`, and may restore them, unless said
/// otherwise. What deleted items hold stays taken where it must be unique.
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
#[must_use]
pub fn soft_delete() -> SoftDeleted {
    SoftDeleted(SoftDelete::of("deleted_at"))
}

/// The preset of [`soft_delete`].
#[derive(Clone, Debug)]
pub struct SoftDeleted(SoftDelete);

impl SoftDeleted {
    /// The field of the model that says since when an item is deleted, where it is not `deleted_at`.
    #[must_use]
    pub fn field(self, field: impl Into<String>) -> Self {
        Self(self.0.field(field))
    }

    /// Who sees deleted items where they ask for them; by default whoever may delete.
    #[must_use]
    pub fn read_deleted(self, permission: Permission) -> Self {
        Self(self.0.read_deleted(permission))
    }

    /// Who may restore items; by default whoever may delete.
    #[must_use]
    pub fn restore(self, permission: Permission) -> Self {
        Self(self.0.restore(permission))
    }

    /// How long after its deletion an item goes for good; never by default.
    #[must_use]
    pub fn purge_after(self, time: Duration) -> Self {
        Self(self.0.purge_after(time))
    }
}

impl Preset for SoftDeleted {
    fn name(&self) -> &'static str {
        "soft_delete"
    }

    fn apply(&self, resource: ResourceBuilder) -> ResourceBuilder {
        resource.soft_delete(self.0.clone())
    }
}
