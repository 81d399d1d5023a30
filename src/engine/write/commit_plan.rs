//! The plan of a commit that is being assembled: the effect of its changes so far on rows, and the locks it needs.

use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, Utc};
use resourceful_contract::{Change, Guard, Value, Version, Write};

use crate::catalog::{GuardedChange, RowFilter};
use crate::engine::Engine;
use crate::tables::leases::{EXPIRES_AT, LeaseRow};

/// Prefix of lock names among the leases.
pub(in crate::engine) const LOCK_PREFIX: &str = "lock:";

/// The parts of one commit. Committing takes them out, so that another attempt starts empty.
#[derive(Debug, Default)]
pub(crate) struct CommitPlan(Mutex<Parts>);

#[derive(Debug, Default)]
struct Parts {
    rows: Vec<PlannedChange>,
    locks: Vec<Lock>,
}

/// The effect of a planned change on a row.
#[derive(Clone, Debug)]
pub(in crate::engine) struct PlannedChange {
    /// Catalog position of its resource.
    pub(in crate::engine) resource: usize,
    pub(in crate::engine) id: Value,
    pub(in crate::engine) state: PlannedState,
}

#[derive(Clone, Debug)]
pub(in crate::engine) enum PlannedState {
    /// A new row, with a value for each field.
    Created(Vec<Value>),
    /// The row with other values of some fields.
    Updated(Vec<(usize, Value)>),
    Deleted,
}

/// A lock in its state when it was taken.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Lock {
    pub(in crate::engine) name: String,
    /// `None` where the lock did not exist before.
    pub(in crate::engine) version: Option<i64>,
}

impl CommitPlan {
    fn with_parts<T>(&self, work: impl FnOnce(&mut Parts) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Records the effect of a change on a row, unless the row has no id before the commit.
    pub(in crate::engine) fn add_change(&self, resource: usize, id: usize, write: &Write) {
        let (id, state) = match write {
            Write::Insert { values } => (values[id].clone(), PlannedState::Created(values.clone())),
            Write::Update { id, set, .. } => (id.clone(), PlannedState::Updated(set.clone())),
            Write::Delete { id, .. } => (id.clone(), PlannedState::Deleted),
            Write::UpdateAll { .. } | Write::DeleteAll { .. } => return,
        };
        if !id.is_null() {
            self.with_parts(|parts| parts.rows.push(PlannedChange { resource, id, state }));
        }
    }

    /// The effects of the changes so far on the rows of a resource, in order.
    pub(in crate::engine) fn planned_rows(&self, resource: usize) -> Vec<PlannedChange> {
        self.with_parts(|parts| parts.rows.iter().filter(|row| row.resource == resource).cloned().collect())
    }

    pub(in crate::engine) fn has_lock(&self, name: &str) -> bool {
        self.with_parts(|parts| parts.locks.iter().any(|lock| lock.name == name))
    }

    pub(in crate::engine) fn add_lock(&self, lock: Lock) {
        self.with_parts(|parts| parts.locks.push(lock));
    }

    /// Empties the plan and returns the locks that are needed, in one order for all commits, so that no cycle of waits
    /// arises.
    pub(in crate::engine) fn take_locks(&self) -> Vec<Lock> {
        let mut locks = self.with_parts(|parts| std::mem::take(parts).locks);
        locks.sort_by(|one, other| one.name.cmp(&other.name));
        locks
    }
}

impl Lock {
    /// The change that makes a concurrent commit with the same lock fail.
    pub(in crate::engine) fn change(self, engine: &Engine) -> GuardedChange {
        let now = crate::clock::now();
        let name = Value::Text(self.name.clone());
        let write = match self.version {
            Some(version) => Write::Update {
                id: name,
                set: vec![(EXPIRES_AT, Value::DateTime(now))],
                guard: Guard::version(Version::Counter(version)),
            },
            None => Write::Insert { values: self.row(now).into_values() },
        };
        RowFilter::unrestricted().guard_change(Change {
            schema: engine.tables.leases.clone(),
            write,
            answer: None,
        })
    }

    fn row(self, now: DateTime<Utc>) -> LeaseRow {
        LeaseRow { name: self.name, version: 1, holder: String::new(), expires_at: now, state: None }
    }
}
