//! Operations on resources: the only path to the data. Every interface calls them, and each begins with authorization.

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
mod decision;
mod deduplication;
mod delete;
mod dry_run;
mod enlist;
#[cfg(any(feature = "testing", feature = "webhooks"))]
mod event_visibility;
mod explain;
mod guarded_storage;
mod history;
mod hook_reads;
mod hooks;
mod idempotency;
mod include;
mod item;
mod lease;
mod link;
mod list;
mod load;
mod mask;
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
mod row_filter;
mod rules;
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

use crate::access::Actor;
use crate::error::{Error, ErrorKind};
use crate::query::{CursorKey, Reader};
use crate::resource::{Definition, Operation, PlacedHook, Right};
use crate::tables::Tables;

pub(crate) use action::Answer;
pub(crate) use batch::{BatchOperation, Became};
pub(crate) use bulk::{Patch, empty_filter};
pub(crate) use catalog::{Catalog, Entry, LinkedRelation};
pub(crate) use chain::AuditTrails;
pub use chain::AuditVerdict;
pub(crate) use contention::Contention;
pub use explain::{ExplainedStep, Explanation, Outcome, RuleOutcome};
pub(crate) use guarded_storage::GuardedStorage;
pub(crate) use idempotency::{IdempotencyClaim, InFlightKeys, Replayed};
pub(crate) use lease::Lease;
pub(crate) use list::{ListQuery, Page};
pub use load::Loader;
pub(crate) use mask::Mask;
pub(crate) use outbox::{LONGEST_RETRY_DELAY, Marked, Marks, Outbox};
pub(crate) use permitted::PermittedOperations;
pub(crate) use published_events::CommittedEvents;
pub(crate) use read::ItemQuery;
pub(crate) use row_filter::RowFilter;
pub(crate) use rules::compile_all;
pub(crate) use subscriber_view::{RowChange, RowState, SubscriberView, ViewChange};
#[cfg(feature = "webhooks")]
pub(crate) use system_rows::SystemRow;
pub(crate) use visibility::{Visibilities, Visibility};
pub(crate) use write_context::WriteContext;

/// The resources of an application, and the state that their operations share.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) catalog: Arc<Catalog>,
    /// A weak reference to itself, for hooks that keep it longer than a call.
    pub(crate) me: Weak<Engine>,
    pub(crate) cursors: CursorKey,
    /// The key of the digests of rows that clients see.
    pub(crate) names: DigestKey,
    /// Whether any resource has hooks or actions, which may read the state that a commit will leave.
    pub(crate) is_hooked: bool,
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

/// An authorized call of an operation. It is created only from an authorization decision.
pub(crate) struct Call<'a> {
    engine: &'a Engine,
    entry: &'a Arc<Entry>,
    actor: &'a Actor,
    /// The rows that the operation is allowed on.
    allowed: RowFilter,
    /// The subset of these rows that the request addresses: each must still match when it is changed.
    meant: RowFilter,
    sights: Visibilities,
    /// The write context of its changes.
    terms: &'a WriteContext,
}

/// An item in the response of an operation.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) json: Vec<u8>,
    pub(crate) version: Version,
    /// Identifies the part of the item, where it is not complete.
    pub(crate) part: Option<Part>,
}

/// Identifies a part of an item, for its ETag: the fields shown, and the content where it includes other items.
#[derive(Debug)]
pub(crate) struct Part(pub(crate) [u8; 16]);

/// The result of a request to put an item at an id.
#[derive(Debug)]
pub(crate) enum Put {
    Created(Item, Value),
    Changed(Item),
}

/// The versions that a caller expects an item to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// Any version, as long as the item exists.
    Any,
    /// One of these; empty where none of the caller's tags was issued by this application.
    OneOf {
        versions: Vec<Version>,
        /// Whether the caller also sent weak tags, which match nothing.
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

    /// The error for a change to an item in another version.
    fn mismatch(&self) -> Error {
        match self {
            Self::OneOf { versions, with_weak: true } if versions.is_empty() => Error::weak_tag(),
            Self::OneOf { versions, .. } if versions.is_empty() => Error::foreign_tag(),
            _ => Error::precondition_failed("if-match"),
        }
    }
}

impl Engine {
    /// Authorizes a call of an operation, before anything is read. Of the request it uses only whether relations may be
    /// followed.
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
            decision::enter(&self.catalog, entry, actor, right, related || refers).await?;
        let meant = RowFilter::unrestricted();
        Ok(Call { engine: self, entry, actor, allowed, meant, sights, terms: &write_context::NONE })
    }
}

impl<'a> Call<'a> {
    /// The same call with another write context for its changes.
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

    /// The same call, restricted to rows that match a filter at the time of their change.
    fn of_matching(&self, filter: Filter) -> Call<'_> {
        Call { meant: RowFilter::unrestricted().and_filter(filter), ..self.with(self.terms) }
    }

    /// The write context of one of many items that are written one by one.
    pub(crate) fn terms_of(&self, item: &str) -> WriteContext {
        self.terms.of_item(item)
    }

    /// Takes over the dry-run events of one of many items.
    pub(crate) fn take_tried(&self, terms: &WriteContext) {
        self.terms.note(terms.tried());
    }

    /// The same call, with this write context for its changes.
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

    /// The caller's visibility of this resource.
    const fn sight(&self) -> &Visibility {
        self.sights.own()
    }

    /// The rows that the caller may see.
    ///
    /// # Errors
    /// Where the caller may see none.
    fn seen(&self) -> Result<&RowFilter, Error> {
        let refused = || decision::refused(self.entry, self.actor, Operation::Read);
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

    /// Parses an id from a path; a malformed id is not found, like an absent one.
    fn id(&self, text: &str) -> Result<Value, Error> {
        let field_type = self.entry.schema.id_field().field_type;
        field_type.parse(text).map_err(|_| Error::not_found())
    }

    /// Checks the item's version against the expected ones.
    ///
    /// # Errors
    /// Where the item is in a version that the caller does not expect.
    fn expect(&self, expected: Option<&Expected>, version: Version) -> Result<(), Error> {
        match expected {
            Some(expected) if !expected.admits(self.engine.names.name(version)) => Err(expected.mismatch()),
            _ => Ok(()),
        }
    }

    /// Refuses a change without an expected version, where the resource requires one.
    fn require_expected(&self, expected: Option<&Expected>) -> Result<(), Error> {
        if self.definition().require_if_match && expected.is_none() {
            let detail = "Changes of this resource need If-Match with the item's ETag.";
            return Err(Error::new(ErrorKind::PreconditionRequired, "precondition-required", detail)
                .with_faults(vec![crate::error::Fault::header("If-Match", "required", detail)]));
        }
        Ok(())
    }
}
