//! From changes that were decided on to a commit, with everything that is told of them in the same transaction.

use std::sync::{Arc, Mutex, PoisonError};

use resourceful_contract::{
    Change, ErrorKind as StorageKind, RowOutcome, StorageError, Then, Value, Version, Write,
};
use serde_json::Value as Json;
use uuid::Uuid;

use super::item::Fields;
use super::record::{Record, Records};
use super::visibility::{GuardedChange, RowFilter};
use super::{Call, Item, redact};
use crate::error::{Error, ErrorKind, Fault, FaultLocation, escape_pointer};
use crate::query::Selection;
use crate::resource::Operation;

/// A change that was permitted and checked, and what is told of it.
#[derive(Debug)]
pub(super) struct PendingChange {
    pub(super) change: GuardedChange,
    pub(super) record: Record,
}

/// What one request does to one item: its change, and those that hooks enlisted beside it.
#[derive(Debug)]
pub(super) struct PreparedWrite {
    pub(super) main: PendingChange,
    pub(super) beside: Vec<PendingChange>,
}

/// What a request is answered, for it to be kept under its key.
#[derive(Debug)]
pub(super) enum Output<'a> {
    /// The item, as it is then.
    Item,
    /// All items in order; those that are given stay as they are, and stand between those that are changed.
    Items(Vec<Option<Item>>),
    /// Something else.
    Json(&'a Json),
}

/// What became of a commit.
#[derive(Debug)]
pub(super) struct CommittedWrite {
    /// For each item, in order, what became of its row.
    pub(super) written: Vec<RowOutcome>,
    pub(super) records: Arc<Vec<Record>>,
    /// Where the record of each item stands among the records.
    pub(super) mains: Vec<usize>,
}

/// Why a commit did not happen.
#[derive(Debug)]
pub(super) struct Failure {
    /// Which item it is of, where it is of one.
    pub(super) item: Option<usize>,
    /// Whether it is of what was enlisted beside it.
    pub(super) beside: bool,
    pub(super) error: StorageError,
}

impl Failure {
    /// Whether another change came between, so that this one is to be made again. Where a version is expected of the
    /// item itself, only a change of what hooks enlisted is such a one.
    pub(super) fn is_contended(&self, is_expected: bool) -> bool {
        self.error.kind() == StorageKind::VersionMismatch && (self.beside || !is_expected)
    }
}

impl Call<'_> {
    /// Whether anything is told of an operation: to hooks, in the outbox, or in the audit trail.
    pub(super) fn is_told(&self, operation: Operation) -> bool {
        let definition = self.definition();
        definition.events || definition.audit.is_some() || self.is_hooked(operation)
    }

    /// A change of admitted rows, of which this is told.
    pub(super) fn made(
        &self,
        admitted: &RowFilter,
        operation: Operation,
        write: Write,
        before: Option<Fields>,
        after: Option<Fields>,
    ) -> PendingChange {
        let definition = self.definition();
        if self.engine.is_hooked {
            self.terms.plan().note(self.entry.position, self.entry.schema.id, &write);
        }
        let answer = match &write {
            Write::Insert { .. } | Write::Update { .. } if definition.events => {
                Some(definition.visible.clone())
            }
            Write::Insert { .. } | Write::Update { .. } => Some(self.shown()),
            _ => None,
        };
        let (event, done) = match operation {
            Operation::Create => ("created", "create"),
            Operation::Delete => ("deleted", "delete"),
            _ => ("updated", operation.name()),
        };
        let record = Record {
            entry: self.entry.clone(),
            operation,
            event: event.into(),
            done: done.into(),
            before,
            after,
            blind: Vec::new(),
        };
        let change = Change { schema: self.entry.schema.clone(), write, answer };
        PendingChange { change: admitted.change(change), record }
    }

    /// Commits what this request does to items, all of it or nothing. Everything is of one storage.
    /// `output` is what will be answered, where that is no item.
    pub(super) async fn commit(
        &self,
        prepared: Vec<PreparedWrite>,
        output: &Output<'_>,
    ) -> Result<CommittedWrite, Failure> {
        let (changes, records, mains, items) = flattened(prepared);
        // Locks come first, so that nothing else waits for whoever has one.
        let mut all: Vec<_> =
            self.terms.plan().take().into_iter().map(|lock| lock.change(self.engine)).collect();
        let locks = all.len();
        let records = Arc::new(records);
        let told = Records::new(self, records.clone(), mains.clone(), output);
        let count = changes.len();
        all.extend(changes);
        let dry_run = self.terms.dry_run;
        let events = Arc::new(Mutex::new(Vec::new()));
        let then: Option<Then> = (!told.is_empty()).then(|| {
            let events = events.clone();
            let then: Then = Arc::new(move |written: &[RowOutcome]| {
                let rows = told.rows(&written[locks..]);
                *events.lock().unwrap_or_else(PoisonError::into_inner) = rows.events;
                rows.changes
            });
            then
        });
        let committed = self.entry.storage.commit(all, then, dry_run).await;
        let mut rows = committed.map_err(|error| failure(error, locks, count, &items))?.rows;
        rows.drain(..locks);
        let events = std::mem::take(&mut *events.lock().unwrap_or_else(PoisonError::into_inner));
        if dry_run {
            self.terms.note(events);
        } else if !events.is_empty() {
            if let Some(watch) = &self.engine.catalog.watch {
                watch.own.note(events.iter().map(|event| event.id));
            }
            self.engine.told.send_modify(|count| *count += 1);
        }
        rows.truncate(count);
        let mut rows: Vec<_> = rows.into_iter().map(Some).collect();
        let written = mains.iter().filter_map(|main| rows.get_mut(*main)?.take()).collect();
        Ok(CommittedWrite { written, records, mains })
    }

    /// Commits what this request does to one item, and tells the hooks.
    pub(super) async fn commit_one(&self, prepared: PreparedWrite) -> Result<RowOutcome, Failure> {
        self.commit_with(prepared, &Output::Item).await
    }

    /// The same for what is answered by something else than the item.
    pub(super) async fn commit_with(
        &self,
        prepared: PreparedWrite,
        output: &Output<'_>,
    ) -> Result<RowOutcome, Failure> {
        let done = self.commit(vec![prepared], output).await?;
        let answered = || StorageError::new(StorageKind::Internal).with_context("commit", "answered no row");
        let written = done.written.into_iter().next();
        let written = written.ok_or_else(|| Failure { item: None, beside: false, error: answered() })?;
        if let Some(main) = done.mains.first() {
            self.after(&done.records[*main], &written).await;
        }
        Ok(written)
    }

    /// An item as it is answered after a change of it.
    pub(super) fn answered(&self, written: RowOutcome) -> Result<(Item, Value), Error> {
        let mut version =
            written.version.ok_or_else(|| Error::internal("the storage answered no version for a row"))?;
        if self.terms.dry_run && matches!(version, Version::Digest(_)) && !self.reads_every_field() {
            // A state that was only tried needs a tag of its own alone. A digest of the row would say whether a field
            // that the caller sets without seeing it was set to what it holds.
            version = Version::Digest(Uuid::new_v4().into_bytes());
        }
        let mut json = written.json;
        let shown = self.shown();
        redact::only(self, &shown, &mut json)?;
        redact::rows(self, &Selection::default(), &mut json)?;
        let part = self.part(&Selection::default(), &shown, &json);
        Ok((Item { json, version: self.engine.names.name(version), part }, written.id))
    }

    /// Why a commit failed, as this caller may know it.
    pub(super) fn explained(&self, failure: Failure) -> Error {
        if failure.item.is_none() || failure.beside {
            return match failure.error.kind() {
                StorageKind::Unavailable
                | StorageKind::Contended
                | StorageKind::TimedOut
                | StorageKind::Internal
                | StorageKind::Corrupt => failure.error.into(),
                _ => refused(failure.error),
            };
        }
        // A clash may be one of a field that the caller must not learn of.
        let error = Error::from(failure.error);
        let mut faults = error.faults().to_vec();
        if let Some(within) = self.definition().unique_within {
            // That a clash is within the tenant goes without saying.
            let pointer = format!("/{}", escape_pointer(&self.entry.schema.fields[within].name));
            let is_within =
                |fault: &Fault| fault.code == "unique" && fault.at == FaultLocation::Pointer(pointer.clone());
            if !faults.iter().all(is_within) {
                faults.retain(|fault| !is_within(fault));
            }
        }
        error.with_faults(self.told(faults))
    }
}

/// The changes in the order in which they are to be made, what is told of each, where those of the items stand among
/// them, and which item each belongs to.
fn flattened(prepared: Vec<PreparedWrite>) -> (Vec<GuardedChange>, Vec<Record>, Vec<usize>, Vec<usize>) {
    let (mut changes, mut records) = (Vec::new(), Vec::new());
    let (mut mains, mut items) = (Vec::new(), Vec::new());
    for (item, one) in prepared.into_iter().enumerate() {
        // What is enlisted may refer to the item, so it comes after it; and before it where it goes.
        let goes = matches!(one.main.change.write(), Write::Delete { .. });
        let beside = one.beside.into_iter();
        let (before, after) = if goes { (Some(beside), None) } else { (None, Some(beside)) };
        let all = before.into_iter().flatten().map(|made| (made, false));
        let all = all.chain([(one.main, true)]).chain(after.into_iter().flatten().map(|made| (made, false)));
        for (made, is_main) in all {
            if is_main {
                mains.push(changes.len());
            }
            items.push(if is_main { item } else { item + BESIDE });
            changes.push(made.change);
            records.push(made.record);
        }
    }
    (changes, records, mains, items)
}

/// What is added to an item's number for what is beside it.
const BESIDE: usize = usize::MAX / 2;

fn failure(error: StorageError, locks: usize, count: usize, items: &[usize]) -> Failure {
    if error.change().is_some_and(|position| position < locks) && is_lost(error.kind()) {
        // Somebody else had the lock, and everything is to be made again.
        let error = StorageError::new(StorageKind::VersionMismatch).with_source(error);
        return Failure { item: None, beside: true, error };
    }
    let position = error.change().and_then(|position| position.checked_sub(locks));
    let item = position.filter(|position| *position < count).map(|position| items[position]);
    let beside = item.is_some_and(|item| item >= BESIDE);
    Failure { item: item.map(|item| if item >= BESIDE { item - BESIDE } else { item }), beside, error }
}

/// Whether a lock was taken, or went, meanwhile.
fn is_lost(kind: StorageKind) -> bool {
    matches!(kind, StorageKind::VersionMismatch | StorageKind::UniqueViolation | StorageKind::NotFound)
}

/// Why what belongs to a change could not be made so.
pub(super) fn refused(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    let detail = "Something that belongs to this change clashes with what is there.";
    Error::new(ErrorKind::Conflict, "conflict", detail).with_source(error)
}
