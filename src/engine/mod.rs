//! The one path to the data: every door calls these operations, and each begins with the permission.

mod action;
mod batch;
mod bulk;
mod cache_key;
mod catalog;
mod chain;
mod commit;
mod commit_plan;
mod contention;
mod create;
mod deduplication;
mod delete;
mod enlist;
#[cfg(any(feature = "testing", feature = "webhooks"))]
mod event_visibility;
mod explain;
mod history;
mod hook_reads;
mod hooks;
mod idempotency;
mod include;
mod item;
mod lease;
mod list;
mod load;
mod outbox;
mod past_states;
mod permitted;
mod published_events;
mod purge;
mod read;
mod record;
mod redact;
mod related;
mod replace;
mod rights;
mod subscriber_view;
#[cfg(feature = "webhooks")]
mod system_rows;
mod tree;
mod update;
mod visibility;
mod write_check;
mod write_context;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};

use resourceful_contract::{Filter, Value, Version};
use tokio::sync::watch;

use crate::access::Actor;
use crate::error::{Error, ErrorKind};
use crate::query::{CursorKey, Reader};
use crate::resource::{Definition, Operation, PlacedHook, Right};
use crate::tables::Tables;

pub(crate) use action::Answer;
pub(crate) use batch::{BatchOperation, Became};
pub(crate) use bulk::{Patch, empty_filter};
pub(crate) use catalog::{Catalog, Entry, LinkedRelation};
pub use chain::AuditVerdict;
pub(crate) use contention::Contention;
pub use explain::{ExplainedStep, Explanation, Outcome, RuleOutcome};
pub(crate) use idempotency::{IdempotencyClaim, InFlightKeys, Replayed};
#[cfg(feature = "webhooks")]
pub(crate) use item::now;
pub(crate) use lease::{Lease, SkewedLeases};
pub(crate) use list::{ListQuery, Page};
pub use load::Loader;
pub(crate) use outbox::{LONGEST_RETRY_DELAY, Marked, Marks};
pub(crate) use permitted::PermittedOperations;
pub(crate) use published_events::{CommittedEvents, Position};
pub(crate) use read::ItemQuery;
pub(crate) use record::spelled;
pub(crate) use rights::Mask;
pub(crate) use subscriber_view::{RowChange, RowState, SubscriberView, ViewChange};
#[cfg(feature = "webhooks")]
pub(crate) use system_rows::SystemRow;
pub(crate) use visibility::{GuardedStorage, RowFilter, Visibilities, Visibility};
pub(crate) use write_context::WriteContext;

/// Every resource of an application, and what their operations share.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) catalog: Catalog,
    /// Itself, for what hooks keep longer than a call.
    pub(crate) me: Weak<Engine>,
    pub(crate) cursors: CursorKey,
    /// What digests of rows are named with.
    pub(crate) names: DigestKey,
    /// Whether there are hooks or actions anywhere, which may read what a commit will leave.
    pub(crate) is_hooked: bool,
    /// What runs around the changes of every resource.
    pub(crate) hooks: Vec<PlacedHook>,
    /// The library's own tables.
    pub(crate) tables: Arc<Tables>,
    /// Goes up when there is something new in an outbox.
    pub(crate) told: watch::Sender<u64>,
    /// Goes up when there may be something new among the published events.
    pub(crate) published: watch::Sender<u64>,
    /// How often a hook failed after a change that stays.
    pub(crate) hook_failures: Arc<AtomicU64>,
    /// Leases of other nodes that a wrong clock wrote.
    pub(crate) far_leases: SkewedLeases,
    /// The idempotency keys under which something is being done on this node.
    pub(crate) in_flight: InFlightKeys,
    /// The queues of changes that met concurrent ones.
    pub(crate) contention: Contention,
    /// What every resource's path begins with.
    pub(crate) prefix: String,
    /// What the URL of a schema begins with, where clients can reach it by one (`CloudEvents` 1.0.2, `dataschema`).
    pub(crate) schemas: Option<String>,
}

/// The key that digests of rows are named with. A digest covers what its reader may not see, and whoever knows the
/// rest of a row could try values until the digest fits; under a key that only the application has nobody can.
pub(crate) struct DigestKey([u8; 32]);

impl DigestKey {
    pub(crate) fn derive(secret: &[u8]) -> Self {
        Self(blake3::derive_key("resourceful 2026-11 names of row digests", secret))
    }

    /// A row's version as clients know it.
    fn name(&self, version: Version) -> Version {
        let Version::Digest(digest) = version else {
            return version;
        };
        let mut named = [0; 16];
        named.copy_from_slice(&blake3::keyed_hash(&self.0, &digest).as_bytes()[..16]);
        Version::Digest(named)
    }
}

impl std::fmt::Debug for DigestKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DigestKey")
    }
}

/// One call of an operation that its caller may make. There is none without a decision.
pub(crate) struct Call<'a> {
    engine: &'a Engine,
    entry: &'a Arc<Entry>,
    actor: &'a Actor,
    /// The rows that the operation is allowed on.
    allowed: RowFilter,
    /// Of those, the rows that the request means: each must still be one of them when it is changed.
    meant: RowFilter,
    sights: Visibilities,
    /// On what terms its changes are made.
    terms: &'a WriteContext,
}

/// An item as an operation answers it.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) json: Vec<u8>,
    pub(crate) version: Version,
    /// Which part of the item this is, where it is not the whole.
    pub(crate) part: Option<Part>,
}

/// Names a part of an item, for its ETag: the fields shown, and the content where it holds other items too.
#[derive(Debug)]
pub(crate) struct Part(pub(crate) [u8; 16]);

/// What became of a request to put an item somewhere.
#[derive(Debug)]
pub(crate) enum Put {
    Created(Item, Value),
    Changed(Item),
}

/// The versions that a caller expects an item to be in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// Any, as long as there is an item.
    Any,
    /// One of these; none of them where the caller's tags were never ours.
    OneOf {
        versions: Vec<Version>,
        /// Whether the caller has sent weak tags beside them, which match nothing.
        with_weak: bool,
    },
}

impl Expected {
    /// Whether a request depends on the item's version: `If-Match: *` asks for any.
    fn is_of_version(expected: Option<&Self>) -> bool {
        matches!(expected, Some(Self::OneOf { .. }))
    }

    pub(crate) fn admits(&self, version: Version) -> bool {
        match self {
            Self::Any => true,
            Self::OneOf { versions, .. } => versions.contains(&version),
        }
    }

    /// The refusal of a change to an item in another version.
    fn mismatch(&self) -> Error {
        match self {
            Self::OneOf { versions, with_weak: true } if versions.is_empty() => Error::weak_tag(),
            Self::OneOf { versions, .. } if versions.is_empty() => Error::foreign_tag(),
            _ => Error::precondition_failed("if-match"),
        }
    }
}

impl Engine {
    /// Begins a call of an operation, before anything is read: of what the request asks, only whether it may follow
    /// relations.
    ///
    /// # Errors
    /// Where the caller may not make it.
    pub(crate) async fn call<'a>(
        &'a self,
        entry: &'a Arc<Entry>,
        actor: &'a Actor,
        right: impl Into<Right>,
        related: bool,
    ) -> Result<Call<'a>, Error> {
        let right = right.into();
        // A write may refer to rows of other resources, which its caller has to see.
        let refers = matches!(right.base(), Operation::Create | Operation::Update | Operation::Replace);
        let (allowed, sights) =
            visibility::enter(&self.catalog, entry, actor, right, related || refers).await?;
        let meant = RowFilter::by_the_application();
        Ok(Call { engine: self, entry, actor, allowed, meant, sights, terms: &write_context::NONE })
    }
}

impl<'a> Call<'a> {
    /// The same call once more, whose changes are made on other terms.
    pub(crate) fn with<'b>(&'b self, terms: &'b WriteContext) -> Call<'b> {
        Call {
            engine: self.engine,
            entry: self.entry,
            actor: self.actor,
            allowed: self.allowed.clone(),
            meant: self.meant.clone(),
            sights: self.sights.clone(),
            terms,
        }
    }

    /// The same call, which changes no other rows than those that match a filter when they are changed.
    fn of_matching(&self, filter: Filter) -> Call<'_> {
        Call { meant: RowFilter::by_the_application().and_filter(filter), ..self.with(self.terms) }
    }

    /// The terms of one of many items that are changed one by one.
    pub(crate) fn terms_of(&self, item: &str) -> WriteContext {
        self.terms.of_item(item)
    }

    /// Takes over what one of many would have sent.
    pub(crate) fn take_tried(&self, terms: &WriteContext) {
        self.terms.note(terms.tried());
    }

    /// The same call, whose changes are made on these terms.
    pub(crate) const fn on(mut self, terms: &'a WriteContext) -> Self {
        self.terms = terms;
        self
    }

    fn definition(&self) -> &'a Definition {
        &self.entry.definition
    }

    fn reader(&self) -> Reader<'_> {
        Reader { catalog: &self.engine.catalog, entry: self.entry, sights: &self.sights }
    }

    /// What the caller may see of this resource.
    const fn sight(&self) -> &Visibility {
        self.sights.own()
    }

    /// The rows that the caller may see.
    ///
    /// # Errors
    /// Where there are none for this caller, ever.
    fn seen(&self) -> Result<&RowFilter, Error> {
        let refused = || visibility::refused(self.entry, self.actor, Operation::Read);
        self.sight().rows.as_ref().ok_or_else(refused)
    }

    const fn mask(&self) -> &Mask {
        &self.sight().mask
    }

    /// The visible fields that this caller is shown.
    fn shown(&self) -> Vec<usize> {
        let mask = self.mask();
        let visible = &self.definition().visible;
        if mask.is_clear() {
            return visible.clone();
        }
        visible.iter().copied().filter(|field| mask.shows(*field)).collect()
    }

    /// Reads an id from a path; a malformed one names nothing, as an absent one does.
    fn id(&self, text: &str) -> Result<Value, Error> {
        let field_type = self.entry.schema.id_field().field_type;
        field_type.parse(text).map_err(|_| Error::not_found())
    }

    /// # Errors
    /// Where the item is in a version that the caller does not expect.
    fn expect(&self, expected: Option<&Expected>, version: Version) -> Result<(), Error> {
        match expected {
            Some(expected) if !expected.admits(self.engine.names.name(version)) => Err(expected.mismatch()),
            _ => Ok(()),
        }
    }

    /// Refuses a change that names no version, where the resource requires one.
    fn require_expected(&self, expected: Option<&Expected>) -> Result<(), Error> {
        if self.definition().require_if_match && expected.is_none() {
            let detail = "Changes of this resource need If-Match with the item's ETag.";
            return Err(Error::new(ErrorKind::PreconditionRequired, "precondition-required", detail)
                .with_faults(vec![crate::error::Fault::header("If-Match", "required", detail)]));
        }
        Ok(())
    }
}
