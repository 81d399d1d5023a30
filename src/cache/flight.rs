//! Answers that are being made: whoever asks for the same one meanwhile waits for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OnceCell;

use super::answers::{Kept, Key};
use super::tags::{Generations, Seen, Tag};

/// The answers that are being made on this node.
#[derive(Debug, Default)]
pub(super) struct Flights(Mutex<HashMap<Key, Arc<Flight>>>);

/// An answer that is being made.
#[derive(Debug)]
pub(super) struct Flight {
    /// The counts of its tags before anything was read.
    pub(super) seen: Seen,
    /// Nothing where it could not be made.
    pub(super) cell: OnceCell<Option<Arc<Kept>>>,
}

/// Somebody who waits for an answer.
#[derive(Debug)]
pub(super) struct Waiting<'a> {
    flights: &'a Flights,
    key: Key,
    pub(super) flight: Arc<Flight>,
}

impl Flights {
    fn held(&self) -> MutexGuard<'_, HashMap<Key, Arc<Flight>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits with those who wait for this answer already. Where something has changed since it was begun a new one is:
    /// whoever made the change and asks now must not be answered by what was read before.
    pub(super) fn join(&self, key: Key, generations: &Generations, tags: &[Tag]) -> Waiting<'_> {
        let mut flights = self.held();
        let under_way = flights.get(&key).filter(|flight| generations.is_current(&flight.seen)).cloned();
        let flight = under_way.unwrap_or_else(|| {
            let flight = Arc::new(Flight { seen: generations.now(tags), cell: OnceCell::new() });
            flights.insert(key, flight.clone());
            flight
        });
        drop(flights);
        Waiting { flights: self, key, flight }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut flights = self.flights.held();
        let is_there = flights.get(&self.key).is_some_and(|flight| Arc::ptr_eq(flight, &self.flight));
        // The one that is there, and this one; or it has come to an end, and whoever comes now begins another.
        if is_there && (self.flight.cell.initialized() || Arc::strong_count(&self.flight) == 2) {
            flights.remove(&self.key);
        }
    }
}
