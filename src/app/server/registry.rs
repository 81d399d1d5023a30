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
const UNIT: usize = 1 << 10;
/// How long a client may take for large responses, however many others need the memory.
const FAIR: Duration = Duration::from_secs(1);
/// The minimum interval between two log lines about a reached limit.
const OFTEN: Duration = Duration::from_secs(60);

/// The registry of a server's connections.
#[derive(Debug)]
pub(super) struct Registry {
    most: usize,
    beyond: usize,
    answers: Arc<Semaphore>,
    /// Permits to encode a large response, which occupies a processor.
    pub(super) encoders: Semaphore,
    /// Permits to read and check a large body, which occupies a processor and many times its bytes of memory.
    pub(super) readers: Arc<Semaphore>,
    all: Mutex<HashMap<u64, Weak<Connection>>>,
    next: AtomicU64,
    /// Notified when a connection has ended.
    left: Notify,
    said: Mutex<Option<Instant>>,
}

impl Registry {
    pub(super) fn new(limits: &ConnectionLimits) -> Self {
        let (most, beyond) = limits.capacity();
        let units = (limits.max_answer_bytes / UNIT).min(Semaphore::MAX_PERMITS);
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            most,
            beyond,
            answers: Arc::new(Semaphore::new(units)),
            encoders: Semaphore::new(processors),
            readers: Arc::new(Semaphore::new(processors)),
            all: Mutex::default(),
            next: AtomicU64::new(0),
            left: Notify::new(),
            said: Mutex::new(None),
        }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<u64, Weak<Connection>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Admits a connection from this address. At the limit, it replaces a connection that waits for a request; where all
    /// are busy, it is admitted for health checks; `None` where there are enough of those.
    pub(super) async fn admit(self: &Arc<Self>, peer: IpAddr) -> Option<Arc<Connection>> {
        let count = self.all().len();
        let is_beyond = if count < self.most { false } else { !self.make_room(Duration::ZERO) };
        if count >= self.most + self.beyond {
            // The connections that make room are about to end.
            let _ = tokio::time::timeout(Duration::from_millis(100), self.left.notified()).await;
            if self.all().len() >= self.most + self.beyond {
                self.say(
                    "a connection was refused: there are as many as there may be, and all of them are busy",
                );
                return None;
            }
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let connection = Arc::new(Connection::new(self.clone(), peer, number, is_beyond));
        self.all().insert(number, Arc::downgrade(&connection));
        Some(connection)
    }

    /// Closes the connections that have waited for a request for the longest, and for this long at least; several at
    /// once, so that the search is worth it. Returns whether there was one.
    pub(super) fn make_room(&self, least: Duration) -> bool {
        let waiting = self.living().filter_map(|one| Some((one.leaves_before()?, one)));
        let mut waiting: Vec<_> = waiting.filter(|((_, since), _)| since.elapsed() >= least).collect();
        let some = (self.most / 64).max(1);
        if waiting.len() > some {
            waiting.select_nth_unstable_by_key(some - 1, |(order, _)| *order);
            waiting.truncate(some);
        }
        for (_, connection) in &waiting {
            connection.close();
        }
        self.say("connections make room for others: there are as many as there may be");
        !waiting.is_empty()
    }

    /// The number of units that bytes are counted as.
    pub(super) const fn units(bytes: usize) -> usize {
        bytes.div_ceil(UNIT)
    }

    /// Reserves memory for a large response, until the permit is dropped; `None` where there is not enough. Then the
    /// connection that has held responses for the longest is closed, unless all of them are too recent.
    pub(super) fn room_for(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let units = u32::try_from(Self::units(bytes)).unwrap_or(u32::MAX);
        if let Ok(room) = self.answers.clone().try_acquire_many_owned(units) {
            return Some(room);
        }
        let now = Instant::now();
        let holding = self.living().filter_map(|one| Some((one.holds_since()?, one)));
        let oldest = holding.min_by_key(|(since, _)| *since);
        if let Some((since, connection)) = oldest
            && now - since >= FAIR
        {
            connection.close();
        }
        self.say("an answer was not sent: clients do not take those that they have asked for");
        None
    }

    fn living(&self) -> impl Iterator<Item = Arc<Connection>> {
        let all: Vec<_> = self.all().values().filter_map(Weak::upgrade).collect();
        all.into_iter()
    }

    pub(super) fn left(&self, number: u64) {
        self.all().remove(&number);
        self.left.notify_one();
    }

    /// Logs that a limit is reached, at a limited rate.
    pub(super) fn say(&self, what: &str) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.is_none_or(|said| said.elapsed() >= OFTEN) {
            *said = Some(Instant::now());
            let connections = self.all().len();
            tracing::warn!(connections, most = self.most, "{what}");
        }
    }
}
