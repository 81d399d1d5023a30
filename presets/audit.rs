//! The audit trail preset.

use std::time::Duration;

use crate::{AuditTrail, Permission, Preset, ResourceBuilder, role};

/// Keeps an audit trail: every change, on whatever path, is recorded with its actor, time and address, and the old and
/// new value of each changed field; entries are written in the transaction of the change. They are chained, so that a
/// removed or altered one is detected by [`App::verify_audit`](crate::App::verify_audit).
///
/// `GET /{id}/history` returns the trail of an item, and `GET /{id}?as_of=2026-01-31T00:00:00Z` the item as it was at a
/// time. Both are for the role `auditor` by default, and limited to the items and fields that the caller may see.
///
/// ```
/// use resourceful::prelude::*;
///
/// # #[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
/// # struct Note { id: Uuid, text: String }
/// let notes = define_resource::<Note>("notes")
///     .adapter(Memory::new().table("notes"))
///     .permissions(Permissions::all(signed_in()))
///     .preset(audit().readable_by(signed_in()).revertible_by(role("editor")))
///     .build()?;
/// # let _ = notes;
/// # Ok::<(), DefinitionErrors>(())
/// ```
#[must_use]
pub fn audit() -> Audited {
    Audited(AuditTrail::readable_by(role("auditor")))
}

/// The preset of [`audit`].
#[derive(Clone, Debug)]
pub struct Audited(AuditTrail);

impl Audited {
    /// The permission to read the history of the items that a caller may see; the role `auditor` by default.
    #[must_use]
    pub fn readable_by(self, permission: Permission) -> Self {
        Self(self.0.read_by(permission))
    }

    /// Adds `POST /{id}/revert`, by which these callers revert an item to an earlier state (`{"as_of": "…"}`), as far
    /// as they may update it.
    #[must_use]
    pub fn revertible_by(self, permission: Permission) -> Self {
        Self(self.0.revertible_by(permission))
    }

    /// The retention of entries; unlimited by default. At least a day: younger entries are always kept.
    #[must_use]
    pub fn kept(self, time: Duration) -> Self {
        Self(self.0.kept(time))
    }
}

impl Preset for Audited {
    fn name(&self) -> &'static str {
        "audit"
    }

    fn apply(&self, resource: ResourceBuilder) -> ResourceBuilder {
        resource.audit_trail(self.0.clone())
    }
}
