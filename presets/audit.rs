//! Who changed what.

use std::time::Duration;

use crate::{AuditTrail, Permission, Preset, ResourceBuilder, role};

/// Keeps an audit trail: for every change, on whatever path, who made it, when and from where, and each field from what
/// to what; written in the transaction of the change. Entries are chained, so that a removed or altered one is found by
/// [`App::verify_audit`](crate::App::verify_audit).
///
/// `GET /{id}/history` shows the trail of an item, and `GET /{id}?as_of=2026-01-31T00:00:00Z` the item as it was, to the
/// role `auditor` unless said otherwise, as far as they may see the item and its fields.
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
    /// Who may read the history of the items that they may see; the role `auditor` by default.
    #[must_use]
    pub fn readable_by(self, permission: Permission) -> Self {
        Self(self.0.read_by(permission))
    }

    /// Adds `POST /{id}/revert`, by which these callers put an item back to what it was (`{"as_of": "…"}`), as far as
    /// they may update it.
    #[must_use]
    pub fn revertible_by(self, permission: Permission) -> Self {
        Self(self.0.revertible_by(permission))
    }

    /// How long entries are kept; for ever by default. At least a day: what is younger is kept in any case.
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
