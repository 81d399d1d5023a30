//! Single flight: concurrent requests for the same response wait for one computation.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OnceCell;

use super::cached_response::CachedResponse;
use super::responses::{CacheStatus, ComputeFailure, Key};
use super::tags::{Tag, TagSnapshot, TagVersions};

/// The computations that are in progress on this node.
#[derive(Debug, Default)]
pub(super) struct Flights(Mutex<HashMap<Key, Arc<Flight>>>);

/// A computation in progress.
#[derive(Debug)]
pub(super) struct Flight {
    /// The versions of its tags before anything was read.
    pub(super) snapshot: TagSnapshot,
    pub(super) cell: OnceCell<Result<(Arc<CachedResponse>, CacheStatus), ComputeFailure>>,
    /// How many requests wait for it; counted while the flights are locked.
    waiters: AtomicUsize,
}

/// A request that waits for a computation.
#[derive(Debug)]
pub(super) struct FlightWaiter<'a> {
    flights: &'a Flights,
    key: Key,
    pub(super) flight: Arc<Flight>,
}

impl Flights {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Arc<Flight>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins the computation of this response that is in progress. If something has changed since it began, a new one
    /// is started: a caller that made the change and reads now must not receive what was read before.
    pub(super) fn join(&self, key: &Key, tag_versions: &TagVersions, tags: &[Tag]) -> FlightWaiter<'_> {
        let mut flights = self.lock();
        let in_progress =
            flights.get(key).filter(|flight| tag_versions.is_current(&flight.snapshot)).cloned();
        let flight = in_progress.unwrap_or_else(|| {
            let flight = Arc::new(Flight {
                snapshot: tag_versions.snapshot(tags),
                cell: OnceCell::new(),
                waiters: AtomicUsize::new(0),
            });
            flights.insert(key.clone(), flight.clone());
            flight
        });
        flight.waiters.fetch_add(1, Ordering::Relaxed);
        drop(flights);
        FlightWaiter { flights: self, key: key.clone(), flight }
    }
}

impl Drop for FlightWaiter<'_> {
    fn drop(&mut self) {
        let mut flights = self.flights.lock();
        let is_registered = flights.get(&self.key).is_some_and(|flight| Arc::ptr_eq(flight, &self.flight));
        let is_last = self.flight.waiters.fetch_sub(1, Ordering::Relaxed) == 1;
        // Once it has finished, the next request begins another.
        if is_registered && (is_last || self.flight.cell.initialized()) {
            flights.remove(&self.key);
        }
    }
}
