//! Commit of prepared changes, with their events, audit entries and stored responses in the same transaction.

use std::sync::{Arc, Mutex, PoisonError};

use resourceful_contract::{
    Change, ErrorKind as StorageKind, RowOutcome, StorageError, Then, Value, Version, Write,
};
use serde_json::Value as Json;
use uuid::Uuid;

use super::input::Fields;
use super::records::{ChangeRecord, CommitRecords};
use crate::access::Operation;
use crate::authz::redact;
use crate::catalog::{GuardedChange, RowFilter};
use crate::engine::{Call, Item};
use crate::error::{Error, ErrorKind, Fault, FaultLocation, escape_pointer};
use crate::query::Selection;

/// An authorized and validated change, with its record.
#[derive(Debug)]
pub(in crate::engine) struct PendingChange {
    pub(in crate::engine) change: GuardedChange,
    pub(in crate::engine) record: ChangeRecord,
}

/// The writes of one request to one item: its change, and the changes that hooks enlisted beside it.
#[derive(Debug)]
pub(in crate::engine) struct PreparedWrite {
    pub(in crate::engine) main: PendingChange,
    pub(in crate::engine) enlisted: Vec<PendingChange>,
}

/// The response of a request, in the form in which it is stored under its idempotency key.
#[derive(Debug)]
pub(in crate::engine) enum Output<'a> {
    /// The resulting item.
    Item,
    /// All items in order; those that are given stay unchanged, between those that are changed.
    Items(Vec<Option<Item>>),
    /// Another response.
    Json(&'a Json),
}

/// The result of a commit.
#[derive(Debug)]
pub(in crate::engine) struct CommittedWrite {
    /// The outcome of each item's row, in order.
    pub(in crate::engine) written: Vec<RowOutcome>,
    pub(in crate::engine) records: Arc<Vec<ChangeRecord>>,
    /// Index of each item's record among the records.
    pub(in crate::engine) mains: Vec<usize>,
}

/// The reason why a commit failed.
#[derive(Debug)]
pub(in crate::engine) struct Failure {
    /// Index of the item that it concerns, if any.
    pub(in crate::engine) item: Option<usize>,
    /// Whether it concerns a change that was enlisted beside the item.
    pub(in crate::engine) enlisted: bool,
    pub(in crate::engine) error: StorageError,
}

impl Failure {
    /// Whether a concurrent change caused the failure, so that this one is to be retried. Where the request expects a
    /// version of the item itself, only conflicts of enlisted changes are retried.
    pub(in crate::engine) fn is_retryable(&self, is_expected: bool) -> bool {
        self.error.kind() == StorageKind::VersionMismatch && (self.enlisted || !is_expected)
    }
}

impl Call<'_> {
    /// Whether an operation is reported: to hooks, in the outbox, or in the audit trail.
    pub(in crate::engine) fn should_record(&self, operation: Operation) -> bool {
        let definition = self.definition();
        definition.events || definition.audit.is_some() || self.has_hooks(operation)
    }

    /// A change of admitted rows, with its record.
    pub(in crate::engine) fn pending_change(
        &self,
        admitted: &RowFilter,
        operation: Operation,
        write: Write,
        before: Option<Fields>,
        after: Option<Fields>,
    ) -> PendingChange {
        let definition = self.definition();
        if self.engine.has_hooks {
            self.context.plan().add_change(self.entry.position, self.entry.schema.id, &write);
        }
        let answer = match &write {
            Write::Insert { .. } | Write::Update { .. } if definition.events => {
                Some(definition.visible.clone())
            }
            Write::Insert { .. } | Write::Update { .. } => Some(self.visible_fields()),
            _ => None,
        };
        let (event, done) = match operation {
            Operation::Create => ("created", "create"),
            Operation::Delete => ("deleted", "delete"),
            _ => ("updated", operation.name()),
        };
        let record = ChangeRecord {
            entry: self.entry.clone(),
            operation,
            event: event.into(),
            audit_operation: done.into(),
            before,
            after,
            blind: Vec::new(),
        };
        let change = Change { schema: self.entry.schema.clone(), write, answer };
        PendingChange { change: admitted.guard_change(change), record }
    }

    /// Commits the writes of this request to its items, all or nothing. All of them are of one storage. `output` is the
    /// response, where it is not an item.
    pub(in crate::engine) async fn commit(
        &self,
        prepared: Vec<PreparedWrite>,
        output: &Output<'_>,
    ) -> Result<CommittedWrite, Failure> {
        let (changes, records, mains, items) = flatten(prepared);
        // Locks come first, so that nothing else waits for the holder of one.
        let mut all: Vec<_> =
            self.context.plan().take_locks().into_iter().map(|lock| lock.change(self.engine)).collect();
        let locks = all.len();
        let records = Arc::new(records);
        let commit_records = CommitRecords::new(self, records.clone(), mains.clone(), output);
        let count = changes.len();
        all.extend(changes);
        let dry_run = self.context.dry_run;
        let events = Arc::new(Mutex::new(Vec::new()));
        let then: Option<Then> = (!commit_records.is_empty()).then(|| {
            let events = events.clone();
            let then: Then = Arc::new(move |written: &[RowOutcome]| {
                let rows = commit_records.rows(&written[locks..]);
                *events.lock().unwrap_or_else(PoisonError::into_inner) = rows.events;
                rows.changes
            });
            then
        });
        let committed = self.entry.storage.commit(all, then, dry_run).await;
        let mut rows = committed.map_err(|error| commit_failure(error, locks, count, &items))?.rows;
        rows.drain(..locks);
        let events = std::mem::take(&mut *events.lock().unwrap_or_else(PoisonError::into_inner));
        if dry_run {
            self.context.add_events(events);
        } else if !events.is_empty() {
            if let Some(watch) = &self.engine.catalog.write_observer {
                watch.own_events.record(events.iter().map(|event| event.id));
            }
            self.engine.outbox.appended.send_modify(|count| *count += 1);
        }
        rows.truncate(count);
        let mut rows: Vec<_> = rows.into_iter().map(Some).collect();
        let written = mains.iter().filter_map(|main| rows.get_mut(*main)?.take()).collect();
        Ok(CommittedWrite { written, records, mains })
    }

    /// Commits the writes of this request to one item, and runs the hooks after it.
    pub(in crate::engine) async fn commit_one(&self, prepared: PreparedWrite) -> Result<RowOutcome, Failure> {
        self.commit_with(prepared, &Output::Item).await
    }

    /// The same for a response other than the item.
    pub(in crate::engine) async fn commit_with(
        &self,
        prepared: PreparedWrite,
        output: &Output<'_>,
    ) -> Result<RowOutcome, Failure> {
        let done = self.commit(vec![prepared], output).await?;
        let no_row = || StorageError::new(StorageKind::Internal).with_context("commit", "answered no row");
        let written = done.written.into_iter().next();
        let written = written.ok_or_else(|| Failure { item: None, enlisted: false, error: no_row() })?;
        if let Some(main) = done.mains.first() {
            self.run_after_hooks(&done.records[*main], &written).await;
        }
        Ok(written)
    }

    /// The item in the response to a change of it.
    pub(in crate::engine) fn response_item(&self, written: RowOutcome) -> Result<(Item, Value), Error> {
        let mut version =
            written.version.ok_or_else(|| Error::internal("the storage answered no version for a row"))?;
        if self.context.dry_run && matches!(version, Version::Digest(_)) && !self.reads_every_field() {
            // The state of a dry run needs an entity tag of its own. A digest of the row would reveal whether a field
            // that the caller sets without seeing it already had the new value.
            version = Version::Digest(Uuid::new_v4().into_bytes());
        }
        let mut json = written.json;
        let visible_fields = self.visible_fields();
        redact::retain_fields(&self.reader(), &visible_fields, &mut json)?;
        redact::redact_row(&self.reader(), &Selection::default(), &mut json)?;
        let part = self.part(&Selection::default(), &visible_fields, &json);
        Ok((Item { json, version: self.engine.digest_key.public_version(version), part }, written.id))
    }

    /// The error of a failed commit, as far as this caller may know it.
    pub(in crate::engine) fn commit_error(&self, failure: Failure) -> Error {
        if failure.item.is_none() || failure.enlisted {
            return match failure.error.kind() {
                StorageKind::Unavailable
                | StorageKind::Contended
                | StorageKind::TimedOut
                | StorageKind::Internal
                | StorageKind::Corrupt => failure.error.into(),
                _ => enlisted_conflict(failure.error),
            };
        }
        // A conflict may concern a field that the caller must not learn of.
        let error = Error::from(failure.error);
        let mut faults = error.faults().to_vec();
        if let Some(within) = self.definition().unique_within {
            // That a conflict is within one tenant is implied, so the tenant field is not reported.
            let pointer = format!("/{}", escape_pointer(&self.entry.schema.fields[within].name));
            let is_within =
                |fault: &Fault| fault.code == "unique" && fault.at == FaultLocation::Pointer(pointer.clone());
            if !faults.iter().all(is_within) {
                faults.retain(|fault| !is_within(fault));
            }
        }
        error.with_faults(self.redact_faults(faults))
    }
}

/// The changes in the order of execution, the record of each, the index of each item's own change among them, and the
/// item that each belongs to.
fn flatten(prepared: Vec<PreparedWrite>) -> (Vec<GuardedChange>, Vec<ChangeRecord>, Vec<usize>, Vec<usize>) {
    let (mut changes, mut records) = (Vec::new(), Vec::new());
    let (mut mains, mut items) = (Vec::new(), Vec::new());
    for (item, one) in prepared.into_iter().enumerate() {
        // Enlisted changes may reference the item, so they come after it, but before a delete.
        let is_delete = matches!(one.main.change.write(), Write::Delete { .. });
        let beside = one.enlisted.into_iter();
        let (before, after) = if is_delete { (Some(beside), None) } else { (None, Some(beside)) };
        let all = before.into_iter().flatten().map(|pending| (pending, false));
        let all =
            all.chain([(one.main, true)]).chain(after.into_iter().flatten().map(|pending| (pending, false)));
        for (pending, is_main) in all {
            if is_main {
                mains.push(changes.len());
            }
            items.push(if is_main { item } else { item + ENLISTED_OFFSET });
            changes.push(pending.change);
            records.push(pending.record);
        }
    }
    (changes, records, mains, items)
}

/// Offset of an item's index that marks changes beside it.
const ENLISTED_OFFSET: usize = usize::MAX / 2;

fn commit_failure(error: StorageError, locks: usize, count: usize, items: &[usize]) -> Failure {
    if error.change().is_some_and(|position| position < locks) && is_lock_conflict(error.kind()) {
        // A concurrent request took the lock, and everything is to be retried.
        let error = StorageError::new(StorageKind::VersionMismatch).with_source(error);
        return Failure { item: None, enlisted: true, error };
    }
    let position = error.change().and_then(|position| position.checked_sub(locks));
    let item = position.filter(|position| *position < count).map(|position| items[position]);
    let beside = item.is_some_and(|item| item >= ENLISTED_OFFSET);
    Failure {
        item: item.map(|item| if item >= ENLISTED_OFFSET { item - ENLISTED_OFFSET } else { item }),
        enlisted: beside,
        error,
    }
}

/// Whether a lock was taken or removed meanwhile.
fn is_lock_conflict(kind: StorageKind) -> bool {
    matches!(kind, StorageKind::VersionMismatch | StorageKind::UniqueViolation | StorageKind::NotFound)
}

/// The error for changes beside the item that could not be committed.
pub(in crate::engine) fn enlisted_conflict(
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> Error {
    let detail = "A further change of this write conflicts with existing data.";
    Error::new(ErrorKind::Conflict, "conflict", detail).with_source(error)
}
