//! The audit trail preset.

use crate::resource::AuditTrail;
use crate::{Preset, ResourceBuilder};

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
pub const fn audit() -> AuditTrail {
    AuditTrail::new()
}

impl Preset for AuditTrail {
    fn name(&self) -> &'static str {
        "audit"
    }

    fn apply(&self, resource: ResourceBuilder) -> ResourceBuilder {
        resource.audit_trail(self.clone())
    }
}
