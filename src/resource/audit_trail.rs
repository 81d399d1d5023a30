//! The audit trail of a resource's changes.

use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use validator::Validate;

use super::Change;
use super::action::{Action, ActionHandler};
use crate::access::{Permission, role};
use crate::error::Error;

/// An audit trail, the preset of [`audit`](crate::presets::audit). Its entries record the actor, the item, the changed fields with old and new values, the
/// time and the address; they are written in the transaction of the change, and chained so that a removed or altered
/// entry is detected.
#[derive(Clone, Debug)]
#[must_use]
pub struct AuditTrail {
    /// The role `auditor`, where `None`.
    pub(crate) readable_by: Option<Permission>,
    pub(crate) retention: Option<Duration>,
    pub(crate) revert: Option<Permission>,
}

impl Default for AuditTrail {
    fn default() -> Self {
        Self::new()
    }
}

impl AuditTrail {
    /// An audit trail that the role `auditor` may read.
    pub const fn new() -> Self {
        Self { readable_by: None, retention: None, revert: None }
    }

    /// The permission to read the history of the items that a caller may see; the role `auditor` by default.
    pub fn readable_by(mut self, permission: Permission) -> Self {
        self.readable_by = Some(permission);
        self
    }

    /// The retention of entries; unlimited by default. At least a day: younger entries are always kept.
    pub const fn retention(mut self, time: Duration) -> Self {
        self.retention = Some(time);
        self
    }

    /// Adds `POST /{id}/revert`, by which these callers revert an item to an earlier state (`{"as_of": "…"}`), as far
    /// as they may update it.
    pub fn revertible_by(mut self, permission: Permission) -> Self {
        self.revert = Some(permission);
        self
    }

    /// The permission to read the history.
    pub(crate) fn reader(&self) -> Permission {
        self.readable_by.clone().unwrap_or_else(|| role("auditor"))
    }

    /// The action that reverts an item.
    pub(super) fn action(&self) -> Option<Action> {
        let mut action = Action::handled(self.revert.clone()?, Revert)
            .description("Restores the item's state at a point in time.");
        action.is_revert = true;
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
