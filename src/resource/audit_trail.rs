//! What is kept of the changes of a resource.

use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use validator::Validate;

use super::Change;
use super::action::{Action, ActionHandler};
use crate::access::Permission;
use crate::error::Error;

/// An audit trail: who changed which fields of which item, from what to what, when and from where; written in the
/// transaction of the change, and chained so that a removed or altered entry is found.
#[derive(Clone, Debug)]
#[must_use]
pub struct AuditTrail {
    pub(crate) readable_by: Permission,
    pub(crate) kept: Option<Duration>,
    pub(crate) revert: Option<Permission>,
}

impl AuditTrail {
    /// A trail that these callers may read, of the items that they may see.
    pub const fn readable_by(permission: Permission) -> Self {
        Self { readable_by: permission, kept: None, revert: None }
    }

    /// The same trail, readable by others.
    pub fn read_by(mut self, permission: Permission) -> Self {
        self.readable_by = permission;
        self
    }

    /// How long entries are kept; for ever by default. At least a day: what is younger is kept in any case.
    pub const fn kept(mut self, time: Duration) -> Self {
        self.kept = Some(time);
        self
    }

    /// Lets these callers, where they may also update an item, put it back to what it was.
    pub fn revertible_by(mut self, permission: Permission) -> Self {
        self.revert = Some(permission);
        self
    }

    /// The action that puts an item back.
    pub(super) fn action(&self) -> Option<Action> {
        let mut action = Action::handled(self.revert.clone()?, Revert)
            .description("Puts the item back to what it was at a time.");
        action.reverts = true;
        Some(action)
    }
}

/// To when an item is put back.
#[derive(Debug, Serialize, Deserialize, JsonSchema, Validate)]
pub(crate) struct RevertTo {
    /// A time at which the item was there.
    pub(crate) as_of: DateTime<Utc>,
}

/// What the action is declared as; the engine does it, since it needs the trail.
struct Revert;

impl ActionHandler for Revert {
    type Input = RevertTo;
    type Output = ();

    fn act<'a>(&'a self, _: &'a mut Change, _: RevertTo) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(std::future::ready(Err(Error::internal("the engine reverts by itself"))))
    }
}
