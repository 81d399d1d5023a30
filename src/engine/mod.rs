//! Operations on resources: the only path to the data. Every interface calls them, and each begins with authorization.

mod call;
mod item;
mod precondition;
mod read;
mod write;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};

use resourceful_contract::Version;

use crate::audit::AuditTrails;
use crate::catalog::Catalog;
use crate::outbox::Outbox;
use crate::query::CursorKey;
use crate::resource::PlacedHook;
use crate::tables::Tables;

pub(crate) use call::Call;
pub(crate) use item::{Item, PartDigest, PutResult};
pub(crate) use precondition::Expected;
pub(crate) use read::cache_key;
pub use read::explain::{ExplainedStep, Explanation, Outcome, RuleOutcome};
pub(crate) use read::list::{ListQuery, Page};
pub(crate) use read::past_states::can_evaluate;
pub(crate) use read::prepared_read::{PreparedRead, ReadResult};
pub(crate) use write::action::ActionResult;
pub(crate) use write::batch::{BatchOperation, BatchResult};
pub(crate) use write::bulk::{Patch, empty_filter};
pub(crate) use write::contention::Contention;
pub(crate) use write::context::WriteContext;
pub(crate) use write::idempotency::{IdempotencyClaim, InFlightKeys, ReplayedResponse};
pub(crate) use write::input::Fields;
pub use write::load::Loader;
pub(crate) use write::row_check::evaluate_partial;
#[cfg(feature = "webhooks")]
pub(crate) use write::system_rows::SystemRow;

/// The resources of an application, and the state that their operations share.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) catalog: Arc<Catalog>,
    /// A weak reference to itself, for hooks that keep it longer than a call.
    pub(crate) weak_self: Weak<Engine>,
    pub(crate) cursor_key: CursorKey,
    /// The key of the digests of rows that clients see.
    pub(crate) digest_key: DigestKey,
    /// Whether any resource has hooks or actions, which may read the state that a commit will leave.
    pub(crate) has_hooks: bool,
    /// Hooks around the changes of every resource.
    pub(crate) hooks: Vec<PlacedHook>,
    /// The library's own tables.
    pub(crate) tables: Arc<Tables>,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) audit: AuditTrails,
    /// Number of hook failures after a change that stays committed.
    pub(crate) hook_failures: Arc<AtomicU64>,
    /// The idempotency keys of requests that are in flight on this node.
    pub(crate) in_flight: InFlightKeys,
    /// The queues of writes that met a conflict.
    pub(crate) contention: Contention,
}

/// The key of the digests of rows that clients see. A digest covers fields that its reader may not see, and a reader who
/// knows the rest of a row could guess values until the digest matches; the key, which only the application has, prevents
/// that.
pub(crate) struct DigestKey([u8; 32]);

impl DigestKey {
    pub(crate) fn derive(secret: &[u8]) -> Self {
        Self(blake3::derive_key("resourceful 2026-11 names of row digests", secret))
    }

    /// A row's version as it is sent to clients.
    fn public_version(&self, version: Version) -> Version {
        let Version::Digest(digest) = version else {
            return version;
        };
        let mut keyed = [0; 16];
        keyed.copy_from_slice(&blake3::keyed_hash(&self.0, &digest).as_bytes()[..16]);
        Version::Digest(keyed)
    }
}

impl std::fmt::Debug for DigestKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DigestKey")
    }
}
