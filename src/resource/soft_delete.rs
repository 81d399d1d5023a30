//! Items that are deleted and still there.

use std::time::Duration;

use futures::future::BoxFuture;
use serde_json::Value as Json;

use super::Change;
use super::action::{Action, ActionHandler, NoInput};
use crate::access::Permission;
use crate::error::{Error, ErrorKind};

/// How deleted items are kept: a nullable `date-time` field of the model says since when an item is deleted.
#[derive(Clone, Debug)]
#[must_use]
pub struct SoftDelete {
    pub(crate) field: String,
    pub(crate) read_deleted: Option<Permission>,
    pub(crate) restore: Option<Permission>,
    pub(crate) purge_after: Option<Duration>,
}

impl SoftDelete {
    /// Deleted items hold in this field when they were deleted, and all others null.
    pub fn of(field: impl Into<String>) -> Self {
        Self { field: field.into(), read_deleted: None, restore: None, purge_after: None }
    }

    /// The same over another field.
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = field.into();
        self
    }

    /// Who sees deleted items where they ask for them (`?deleted=include`); by default whoever may delete.
    pub fn read_deleted(mut self, permission: Permission) -> Self {
        self.read_deleted = Some(permission);
        self
    }

    /// Who may restore items; by default whoever may delete.
    pub fn restore(mut self, permission: Permission) -> Self {
        self.restore = Some(permission);
        self
    }

    /// How long after its deletion an item goes for good; never by default.
    pub const fn purge_after(mut self, time: Duration) -> Self {
        self.purge_after = Some(time);
        self
    }

    /// The action that restores an item.
    pub(super) fn action(&self, delete: &Permission) -> Action {
        let permission = self.restore.clone().unwrap_or_else(|| delete.clone());
        let mut action = Action::handled(permission, Restore { field: self.field.clone() })
            .event("restored")
            .description("Brings a deleted item back.");
        action.reaches_deleted = true;
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
