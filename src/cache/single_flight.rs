//! Single flight: concurrent requests for the same response wait for one computation.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OnceCell;

use super::cached_response::CachedResponse;
use super::responses::{CacheStatus, Failed, Key};
use super::tags::{Seen, Tag, TagVersions};

/// The computations that are in progress on this node.
#[derive(Debug, Default)]
pub(super) struct Flights(Mutex<HashMap<Key, Arc<Flight>>>);

/// A computation in progress.
#[derive(Debug)]
pub(super) struct Flight {
    /// The versions of its tags before anything was read.
    pub(super) seen: Seen,
    pub(super) cell: OnceCell<Result<(Arc<CachedResponse>, CacheStatus), Failed>>,
    /// How many requests wait for it; counted while the flights are locked.
    waiting: AtomicUsize,
}

/// A request that waits for a computation.
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

    /// Joins the computation of this response that is in progress. If something has changed since it began, a new one
    /// is started: a caller that made the change and reads now must not receive what was read before.
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
        // Once it has finished, the next request begins another.
        if is_there && (is_last || self.flight.cell.initialized()) {
            flights.remove(&self.key);
        }
    }
}
