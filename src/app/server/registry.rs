//! The connections of a server, and the memory that they hold together.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::connection::Connection;
use super::limits::ConnectionLimits;

/// The unit in which the bytes of responses are counted.
const UNIT_BYTES: usize = 1 << 10;
/// How long a client may take for large responses, however many others need the memory.
const RESPONSE_GRACE: Duration = Duration::from_secs(1);
/// The minimum interval between two log lines about a reached limit.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The registry of a server's connections.
#[derive(Debug)]
pub(super) struct Registry {
    max_connections: usize,
    max_extra: usize,
    response_memory: Arc<Semaphore>,
    /// Permits to encode a large response, which occupies a processor.
    pub(super) encoders: Semaphore,
    /// Permits to read and check a large body, which occupies a processor and many times its bytes of memory.
    pub(super) readers: Arc<Semaphore>,
    connections: Mutex<HashMap<u64, Weak<Connection>>>,
    next_id: AtomicU64,
    /// Notified when a connection has ended.
    ended: Notify,
    last_logged: Mutex<Option<Instant>>,
}

impl Registry {
    pub(super) fn new(limits: &ConnectionLimits) -> Self {
        let (max_connections, max_extra) = limits.capacity();
        let units = (limits.max_response_bytes / UNIT_BYTES).min(Semaphore::MAX_PERMITS);
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            max_connections,
            max_extra,
            response_memory: Arc::new(Semaphore::new(units)),
            encoders: Semaphore::new(processors),
            readers: Arc::new(Semaphore::new(processors)),
            connections: Mutex::default(),
            next_id: AtomicU64::new(0),
            ended: Notify::new(),
            last_logged: Mutex::new(None),
        }
    }

    fn connections(&self) -> MutexGuard<'_, HashMap<u64, Weak<Connection>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Admits a connection from this address. At the limit, it replaces a connection that waits for a request; where all
    /// are busy, it is admitted for health checks; `None` where there are enough of those.
    pub(super) async fn admit(self: &Arc<Self>, peer: IpAddr) -> Option<Arc<Connection>> {
        let count = self.connections().len();
        let is_over_limit =
            if count < self.max_connections { false } else { !self.evict_idle(Duration::ZERO) };
        if count >= self.max_connections + self.max_extra {
            // The connections that make room are about to end.
            let _ = tokio::time::timeout(Duration::from_millis(100), self.ended.notified()).await;
            if self.connections().len() >= self.max_connections + self.max_extra {
                self.warn_limited(
                    "a connection was refused: the connection limit is reached, and all of them are busy",
                );
                return None;
            }
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let connection = Arc::new(Connection::new(self.clone(), peer, id, is_over_limit));
        self.connections().insert(id, Arc::downgrade(&connection));
        Some(connection)
    }

    /// Closes the connections that have waited for a request for the longest, and for this long at least; several at
    /// once, so that the search is worth it. Returns whether there was one.
    pub(super) fn evict_idle(&self, min_idle: Duration) -> bool {
        let idle = self.open_connections().filter_map(|one| Some((one.eviction_order()?, one)));
        let mut idle: Vec<_> = idle.filter(|((_, since), _)| since.elapsed() >= min_idle).collect();
        let batch = (self.max_connections / 64).max(1);
        if idle.len() > batch {
            idle.select_nth_unstable_by_key(batch - 1, |(order, _)| *order);
            idle.truncate(batch);
        }
        for (_, connection) in &idle {
            connection.close();
        }
        self.warn_limited("idle connections were closed for new ones: the connection limit is reached");
        !idle.is_empty()
    }

    /// The number of units that bytes are counted as.
    pub(super) const fn units(bytes: usize) -> usize {
        bytes.div_ceil(UNIT_BYTES)
    }

    /// Reserves memory for a large response, until the permit is dropped; `None` where there is not enough. Then the
    /// connection that has held responses for the longest is closed, unless all of them are too recent.
    pub(super) fn reserve(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let units = u32::try_from(Self::units(bytes)).unwrap_or(u32::MAX);
        if let Ok(reservation) = self.response_memory.clone().try_acquire_many_owned(units) {
            return Some(reservation);
        }
        let now = Instant::now();
        let holding = self.open_connections().filter_map(|one| Some((one.held_since()?, one)));
        let oldest = holding.min_by_key(|(since, _)| *since);
        if let Some((since, connection)) = oldest
            && now - since >= RESPONSE_GRACE
        {
            connection.close();
        }
        self.warn_limited("a response was not sent: clients do not read the ones that are pending");
        None
    }

    fn open_connections(&self) -> impl Iterator<Item = Arc<Connection>> {
        let all: Vec<_> = self.connections().values().filter_map(Weak::upgrade).collect();
        all.into_iter()
    }

    pub(super) fn remove(&self, id: u64) {
        self.connections().remove(&id);
        self.ended.notify_one();
    }

    /// Logs that a limit is reached, at a limited rate.
    pub(super) fn warn_limited(&self, message: &str) {
        let mut last_logged = self.last_logged.lock().unwrap_or_else(PoisonError::into_inner);
        if last_logged.is_none_or(|last_logged| last_logged.elapsed() >= LOG_INTERVAL) {
            *last_logged = Some(Instant::now());
            let connections = self.connections().len();
            tracing::warn!(connections, most = self.max_connections, "{message}");
        }
    }
}
