//! The soft delete preset: deleted items are kept and can be restored.

use std::time::Duration;

use crate::{Permission, Preset, ResourceBuilder, SoftDelete};

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
#[must_use]
pub fn soft_delete() -> SoftDeleted {
    SoftDeleted(SoftDelete::of("deleted_at"))
}

/// The preset of [`soft_delete`].
#[derive(Clone, Debug)]
pub struct SoftDeleted(SoftDelete);

impl SoftDeleted {
    /// The field of the model that holds the time of deletion; `deleted_at` by default.
    #[must_use]
    pub fn field(self, field: impl Into<String>) -> Self {
        Self(self.0.field(field))
    }

    /// The permission to see deleted items on request; by default the permission to delete.
    #[must_use]
    pub fn read_deleted(self, permission: Permission) -> Self {
        Self(self.0.read_deleted(permission))
    }

    /// The permission to restore items; by default the permission to delete.
    #[must_use]
    pub fn restore(self, permission: Permission) -> Self {
        Self(self.0.restore(permission))
    }

    /// The time between an item's deletion and its purge; items are never purged by default.
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
