//! Invalidations read from the outbox, for changes that the bus did not announce: those of a node without a bus, of one
//! that was killed before it could publish, and of one that could not reach the bus.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use uuid::Uuid;

use super::write_observer::WriteObserver;
use crate::tables::events::{EventRow, Position};

/// How many events of its own changes a node remembers: their tags were invalidated already when the changes were made.
const MAX_OWN_EVENTS: usize = 10_000;

/// The ids of the events of a node's own changes.
#[derive(Debug, Default)]
pub(crate) struct OwnEvents(Mutex<(HashSet<Uuid>, VecDeque<Uuid>)>);

impl OwnEvents {
    pub(crate) fn record(&self, ids: impl Iterator<Item = Uuid>) {
        let mut guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, order) = &mut *guard;
        for id in ids {
            known.insert(id);
            order.push_back(id);
            if order.len() > MAX_OWN_EVENTS
                && let Some(oldest) = order.pop_front()
            {
                known.remove(&oldest);
            }
        }
    }

    fn remove(&self, id: Uuid) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0.remove(&id)
    }
}

impl WriteObserver {
    /// Sets the position from which on this node reads every published event.
    pub(crate) fn restart_from(&self, at: Position) {
        if let Some(horizon) = self.tag_versions.horizon() {
            horizon.start_from(at);
        }
        // Changes before this position are unknown.
        self.tag_versions.increment_all();
    }

    /// Invalidates what published events concern, except for those of this node's own changes.
    pub(crate) fn apply(&self, rows: &[Arc<EventRow>]) {
        for row in rows {
            let (is_own, tags) = (self.own_events.remove(row.id), self.event_tags(row));
            if let Some(horizon) = self.tag_versions.horizon() {
                horizon.record_event(row.id, Position::of(row), &tags);
            }
            if !is_own {
                self.tag_versions.increment(&tags);
            }
        }
    }
}
