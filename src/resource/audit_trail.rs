//! What is kept of the changes of a resource.

use std::time::Duration;

use crate::access::Permission;

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
}
