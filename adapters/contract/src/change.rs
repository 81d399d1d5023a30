//! A write, as a value.

use std::fmt;
use std::sync::Arc;

use crate::{Filter, Schema, Value, Version};

/// What follows from the changes of a set, told what became of their rows.
pub type Then = Arc<dyn Fn(&[RowOutcome]) -> Vec<Change> + Send + Sync>;

/// Changes that become so together or not at all.
#[derive(Default)]
pub struct ChangeSet {
    /// The changes, applied in this order; each sees the ones before it.
    pub changes: Vec<Change>,
    /// The changes that follow from those, such as the events that tell of them: applied after them, in the same
    /// transaction. It is called inside of that, perhaps again where a storage starts over, so it only computes.
    pub then: Option<Then>,
    /// Whether the whole set is tried and then taken back: it fails as it would, answers what it would, and leaves
    /// nothing but gaps in ids that the storage mints.
    pub dry_run: bool,
    /// Called with the number of changes applied so far, now and then, for a progress bar.
    pub progress: Option<Arc<dyn Fn(usize) + Send + Sync>>,
}

impl ChangeSet {
    /// A change set of one change.
    #[must_use]
    pub fn one(change: Change) -> Self {
        Self::of(vec![change])
    }

    /// A change set of these changes.
    #[must_use]
    pub fn of(changes: Vec<Change>) -> Self {
        Self { changes, ..Self::default() }
    }
}

impl fmt::Debug for ChangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChangeSet").field("changes", &self.changes).finish_non_exhaustive()
    }
}

/// One change to one row.
#[derive(Clone, Debug)]
pub struct Change {
    /// The resource.
    pub schema: Arc<Schema>,
    /// What to do.
    pub write: Write,
    /// The fields of the row, as it is after the change, to answer as JSON; `None` answers no JSON.
    pub answer: Option<Vec<usize>>,
}

/// What to do to a row.
#[derive(Clone, Debug)]
pub enum Write {
    /// A new row.
    Insert {
        /// One value for each field of the schema. The version counter begins at what stands there, or at
        /// 1 where that is null ([`Schema::first_version`]). The storage mints the id where the schema says so and the value is null.
        values: Vec<Value>,
    },
    /// New values for some fields of a row.
    Update {
        /// The row.
        id: Value,
        /// The fields and their new values; never the id or the version counter, which the storage
        /// increments.
        set: Vec<(usize, Value)>,
        /// What must hold of the row as it is before.
        guard: Guard,
    },
    /// No such row any more.
    Delete {
        /// The row.
        id: Value,
        /// What must hold of the row as it is before.
        guard: Guard,
    },
    /// New values for some fields of every row that matches, however many.
    UpdateAll {
        /// Which rows.
        filter: Filter,
        /// As in [`Update`](Self::Update).
        set: Vec<(usize, Value)>,
    },
    /// None of the rows that match any more, however many there were.
    DeleteAll {
        /// Which rows.
        filter: Filter,
    },
}

/// What must hold of a row for a change to happen, checked atomically with the change.
///
/// A row that is absent or that the filter hides fails as
/// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound); one that is there in another version as
/// [`ErrorKind::VersionMismatch`](crate::ErrorKind::VersionMismatch).
#[derive(Clone, Debug)]
pub struct Guard {
    /// The rows that may be touched at all.
    pub filter: Filter,
    /// The version the row must have, where that matters.
    pub version: Option<Version>,
}

impl Guard {
    /// No condition but that the row exists.
    #[must_use]
    pub const fn none() -> Self {
        Self { filter: Filter::everything(), version: None }
    }

    /// The row must have this version.
    #[must_use]
    pub const fn version(version: Version) -> Self {
        Self { filter: Filter::everything(), version: Some(version) }
    }
}

/// What a commit made so.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Committed {
    /// For each change, in order, what became of its row; those that followed come last.
    pub rows: Vec<RowOutcome>,
}

impl Committed {
    /// What a commit made so, one entry for each change.
    #[must_use]
    pub const fn new(rows: Vec<RowOutcome>) -> Self {
        Self { rows }
    }
}

/// A row after a change.
#[derive(Clone, Debug, PartialEq)]
pub struct RowOutcome {
    /// The row's id; null after a change of however many rows.
    pub id: Value,
    /// The row's version after the change; `None` after a delete, and for rows without a counter where no
    /// JSON was asked for.
    pub version: Option<Version>,
    /// The JSON object that was asked for; empty where none was, or after a delete.
    pub json: Vec<u8>,
    /// How many rows were changed: 1, unless the change is of however many match.
    pub rows: u64,
}

impl RowOutcome {
    /// What became of a change of however many rows.
    #[must_use]
    pub const fn all(rows: u64) -> Self {
        Self { id: Value::Null, version: None, json: Vec::new(), rows }
    }
}
