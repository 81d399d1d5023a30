//! Soft delete: deleted items are kept and can be restored.

use std::time::Duration;

use futures::future::BoxFuture;
use serde_json::Value as Json;

use super::Change;
use super::action::{Action, ActionHandler, NoInput};
use crate::access::Permission;
use crate::error::{Error, ErrorKind};

/// Soft delete, the preset of [`soft_delete`](crate::presets::soft_delete): a nullable `date-time` field of the model holds
/// the time of an item's deletion.
#[derive(Clone, Debug)]
#[must_use]
pub struct SoftDelete {
    pub(crate) field: String,
    pub(crate) read_deleted: Option<Permission>,
    pub(crate) restore: Option<Permission>,
    pub(crate) purge_after: Option<Duration>,
}

impl Default for SoftDelete {
    fn default() -> Self {
        Self::new()
    }
}

impl SoftDelete {
    /// Soft delete with the field `deleted_at`.
    pub fn new() -> Self {
        Self { field: "deleted_at".to_owned(), read_deleted: None, restore: None, purge_after: None }
    }

    /// The field of the model that holds the time of deletion, and null in items that are not deleted; `deleted_at` by
    /// default.
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = field.into();
        self
    }

    /// The permission to see deleted items on request (`?deleted=include`); by default the permission to delete.
    pub fn read_deleted(mut self, permission: Permission) -> Self {
        self.read_deleted = Some(permission);
        self
    }

    /// The permission to restore items; by default the permission to delete.
    pub fn restore(mut self, permission: Permission) -> Self {
        self.restore = Some(permission);
        self
    }

    /// The time between an item's deletion and its purge; items are never purged by default.
    pub const fn purge_after(mut self, time: Duration) -> Self {
        self.purge_after = Some(time);
        self
    }

    /// The name of the field that holds the time of deletion.
    #[must_use]
    pub fn deleted_at_field(&self) -> &str {
        &self.field
    }

    /// The action that restores an item.
    pub(super) fn action(&self, delete: &Permission) -> Action {
        let permission = self.restore.clone().unwrap_or_else(|| delete.clone());
        let mut action = Action::handled(permission, Restore { field: self.field.clone() })
            .event("restored")
            .description("Brings a deleted item back.");
        action.can_target_deleted = true;
        action
    }
}

struct Restore {
    field: String,
}

impl ActionHandler for Restore {
    type Input = NoInput;
    type Output = ();

    fn act<'a>(&'a self, change: &'a mut Change, _: NoInput) -> BoxFuture<'a, Result<(), Error>> {
        let restored = match change.item_mut().and_then(|item| item.get_mut(&self.field)) {
            Some(at) if !at.is_null() => {
                *at = Json::Null;
                Ok(())
            }
            _ => Err(Error::new(ErrorKind::Conflict, "not-deleted", "This item is not deleted.")),
        };
        Box::pin(std::future::ready(restored))
    }
}
