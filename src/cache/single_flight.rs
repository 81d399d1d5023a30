//! Answers that are being made: whoever asks for the same one meanwhile waits for it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OnceCell;

use super::cached_response::CachedResponse;
use super::responses::{CacheStatus, Failed, Key};
use super::tags::{Seen, Tag, TagVersions};

/// The answers that are being made on this node.
#[derive(Debug, Default)]
pub(super) struct Flights(Mutex<HashMap<Key, Arc<Flight>>>);

/// An answer that is being made.
#[derive(Debug)]
pub(super) struct Flight {
    /// The counts of its tags before anything was read.
    pub(super) seen: Seen,
    pub(super) cell: OnceCell<Result<(Arc<CachedResponse>, CacheStatus), Failed>>,
    /// How many wait for it; counted while the flights are locked.
    waiting: AtomicUsize,
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
    pub(super) fn join(&self, key: &Key, generations: &TagVersions, tags: &[Tag]) -> Waiting<'_> {
        let mut flights = self.held();
        let under_way = flights.get(key).filter(|flight| generations.is_current(&flight.seen)).cloned();
        let flight = under_way.unwrap_or_else(|| {
            let flight = Arc::new(Flight {
                seen: generations.now(tags),
                cell: OnceCell::new(),
                waiting: AtomicUsize::new(0),
            });
            flights.insert(key.clone(), flight.clone());
            flight
        });
        flight.waiting.fetch_add(1, Ordering::Relaxed);
        drop(flights);
        Waiting { flights: self, key: key.clone(), flight }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut flights = self.flights.held();
        let is_there = flights.get(&self.key).is_some_and(|flight| Arc::ptr_eq(flight, &self.flight));
        let is_last = self.flight.waiting.fetch_sub(1, Ordering::Relaxed) == 1;
        // Where it has come to an end whoever comes now begins another.
        if is_there && (is_last || self.flight.cell.initialized()) {
            flights.remove(&self.key);
        }
    }
}
