//! Invalidations read from the outbox, for changes that the bus did not announce: those of a node without a bus, of one
//! that was killed before it could publish, and of one that could not reach the bus.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use uuid::Uuid;

use super::write_observer::Watch;
use crate::tables::events::{EventRow, Position};

/// How many events of its own changes a node remembers: their tags were invalidated already when the changes were made.
const OWN: usize = 10_000;

/// The ids of the events of a node's own changes.
#[derive(Debug, Default)]
pub(crate) struct Own(Mutex<(HashSet<Uuid>, VecDeque<Uuid>)>);

impl Own {
    pub(crate) fn note(&self, ids: impl Iterator<Item = Uuid>) {
        let mut own = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, order) = &mut *own;
        for id in ids {
            known.insert(id);
            order.push_back(id);
            if order.len() > OWN
                && let Some(oldest) = order.pop_front()
            {
                known.remove(&oldest);
            }
        }
    }

    fn takes(&self, id: Uuid) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0.remove(&id)
    }
}

impl Watch {
    /// Sets the position from which on this node reads every published event.
    pub(crate) fn begin(&self, at: Position) {
        if let Some(horizon) = self.generations.course() {
            horizon.begins(at);
        }
        // Changes before this position are unknown.
        self.generations.forget_all_here();
    }

    /// Invalidates what published events concern, except for those of this node's own changes.
    pub(crate) fn apply(&self, rows: &[Arc<EventRow>]) {
        for row in rows {
            let (is_own, tags) = (self.own.takes(row.id), self.concerned_by(row));
            if let Some(horizon) = self.generations.course() {
                horizon.passed(row.id, Position::of(row), &tags);
            }
            if !is_own {
                self.generations.forget(&tags);
            }
        }
    }
}
