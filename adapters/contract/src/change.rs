//! Writes as plain values.

use std::fmt;
use std::sync::Arc;

use crate::{Filter, Schema, Value, Version};

/// Computes follow-up changes from the outcomes of a set's changes.
pub type Then = Arc<dyn Fn(&[RowOutcome]) -> Vec<Change> + Send + Sync>;

/// Changes that are committed atomically: all or none.
#[derive(Default)]
pub struct ChangeSet {
    /// The changes, applied in this order; each sees the ones before it.
    pub changes: Vec<Change>,
    /// Computes follow-up changes, such as the events of these changes, which are applied after them in the same
    /// transaction. It is called inside that transaction, and again if the storage retries, so it must be free of side
    /// effects.
    pub then: Option<Then>,
    /// Whether the set is applied and then rolled back: it fails or succeeds as it would, returns what it would, and leaves
    /// nothing but gaps in ids that the storage generates.
    pub dry_run: bool,
    /// Called at intervals with the number of changes applied so far, for a progress bar.
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
    /// The schema of the row's resource.
    pub schema: Arc<Schema>,
    /// The kind of change and its data.
    pub write: Write,
    /// The fields of the row, as it is after the change, to return as JSON; `None` returns no JSON.
    pub answer: Option<Vec<usize>>,
}

/// The kind of change and its data.
#[derive(Clone, Debug)]
pub enum Write {
    /// Inserts a row.
    Insert {
        /// One value for each field of the schema. The version counter starts at its value here, or at 1 if that is null
        /// ([`Schema::first_version`]). The storage generates the id if the schema says so and the value is null.
        values: Vec<Value>,
    },
    /// Updates some fields of a row.
    Update {
        /// The id of the row.
        id: Value,
        /// The fields and their new values; never the id, nor the version counter, which the storage increments.
        set: Vec<(usize, Value)>,
        /// The precondition on the row before the change.
        guard: Guard,
    },
    /// Deletes a row.
    Delete {
        /// The id of the row.
        id: Value,
        /// The precondition on the row before the change.
        guard: Guard,
    },
    /// Updates some fields of all matching rows.
    UpdateAll {
        /// The filter that rows must match.
        filter: Filter,
        /// As in [`Update`](Self::Update).
        set: Vec<(usize, Value)>,
    },
    /// Deletes all matching rows.
    DeleteAll {
        /// The filter that rows must match.
        filter: Filter,
    },
}

/// The precondition of a change, checked atomically with it.
///
/// If the row does not exist or the filter does not match it, the change fails as
/// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound); if it exists in another version, as
/// [`ErrorKind::VersionMismatch`](crate::ErrorKind::VersionMismatch).
#[derive(Clone, Debug)]
pub struct Guard {
    /// The filter of the rows that may be changed at all.
    pub filter: Filter,
    /// The version that the row must have; `None` for any.
    pub version: Option<Version>,
}

impl Guard {
    /// A guard whose only condition is that the row exists.
    #[must_use]
    pub const fn none() -> Self {
        Self { filter: Filter::everything(), version: None }
    }

    /// A guard that requires this version.
    #[must_use]
    pub const fn version(version: Version) -> Self {
        Self { filter: Filter::everything(), version: Some(version) }
    }
}

/// The result of a commit.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Committed {
    /// The outcome of each change, in order; follow-up changes come last.
    pub rows: Vec<RowOutcome>,
}

impl Committed {
    /// A result with one outcome for each change.
    #[must_use]
    pub const fn new(rows: Vec<RowOutcome>) -> Self {
        Self { rows }
    }
}

/// The outcome of a change: the row after it.
#[derive(Clone, Debug, PartialEq)]
pub struct RowOutcome {
    /// The row's id; null after a change to all matching rows.
    pub id: Value,
    /// The row's version after the change; `None` after a delete, and for rows without a counter if no JSON was requested.
    pub version: Option<Version>,
    /// The requested JSON object; empty if none was requested, or after a delete.
    pub json: Vec<u8>,
    /// The number of changed rows: 1, unless the change applies to all matching rows.
    pub rows: u64,
}

impl RowOutcome {
    /// The outcome of a change to all matching rows.
    #[must_use]
    pub const fn all(rows: u64) -> Self {
        Self { id: Value::Null, version: None, json: Vec::new(), rows }
    }
}
