//! The audit trail of a resource's changes.

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

/// Settings of an audit trail. Its entries record the actor, the item, the changed fields with old and new values, the
/// time and the address; they are written in the transaction of the change, and chained so that a removed or altered
/// entry is detected.
#[derive(Clone, Debug)]
#[must_use]
pub struct AuditTrail {
    pub(crate) readable_by: Permission,
    pub(crate) kept: Option<Duration>,
    pub(crate) revert: Option<Permission>,
}

impl AuditTrail {
    /// An audit trail that these callers may read, for the items that they may see.
    pub const fn readable_by(permission: Permission) -> Self {
        Self { readable_by: permission, kept: None, revert: None }
    }

    /// Replaces the permission to read the trail.
    pub fn read_by(mut self, permission: Permission) -> Self {
        self.readable_by = permission;
        self
    }

    /// The retention of entries; unlimited by default. At least a day: younger entries are always kept.
    pub const fn kept(mut self, time: Duration) -> Self {
        self.kept = Some(time);
        self
    }

    /// Lets these callers revert an item to an earlier state, if they may also update it.
    pub fn revertible_by(mut self, permission: Permission) -> Self {
        self.revert = Some(permission);
        self
    }

    /// The action that reverts an item.
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

/// The declared handler of the action; the engine runs the action itself, since it needs the trail.
struct Revert;

impl ActionHandler for Revert {
    type Input = RevertTo;
    type Output = ();

    fn act<'a>(&'a self, _: &'a mut Change, _: RevertTo) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(std::future::ready(Err(Error::internal("the engine reverts by itself"))))
    }
}
