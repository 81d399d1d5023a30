//! The connections of a server, and what they hold together.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::connection::Connection;
use super::limits::ConnectionLimits;

/// In which units the bytes of answers are counted.
const UNIT: usize = 1 << 10;
/// How long a client may take for large answers, however many others need the room.
const FAIR: Duration = Duration::from_secs(1);
/// How often the log says that a limit is reached.
const OFTEN: Duration = Duration::from_secs(60);

/// The connections of a server.
#[derive(Debug)]
pub(super) struct Registry {
    most: usize,
    beyond: usize,
    answers: Arc<Semaphore>,
    /// Turns to encode a large answer, which takes a processor.
    pub(super) encoders: Semaphore,
    /// Turns to read and check a large body, which takes a processor and many times its bytes of memory.
    pub(super) readers: Arc<Semaphore>,
    all: Mutex<HashMap<u64, Weak<Connection>>>,
    next: AtomicU64,
    /// A connection has gone.
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

    /// A place for a connection from this address. Where there is none, it takes that of one that waits for a request;
    /// where all are busy, it is for health checks; and none where there are enough of those.
    pub(super) async fn admit(self: &Arc<Self>, peer: IpAddr) -> Option<Arc<Connection>> {
        let count = self.all().len();
        let is_beyond = if count < self.most { false } else { !self.make_room(Duration::ZERO) };
        if count >= self.most + self.beyond {
            // Those that make room are about to go.
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

    /// Closes the connections that wait for a request for the longest, and for so long at least; some at once, so that the
    /// search is worth it. Answers whether there was one.
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

    /// As how many units bytes count.
    pub(super) const fn units(bytes: usize) -> usize {
        bytes.div_ceil(UNIT)
    }

    /// Room for a large answer, until it is dropped; none where there is none. Then the connection that holds answers for
    /// the longest is closed, unless all of them are as new.
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

    /// Says in the log that a limit is reached, now and then.
    pub(super) fn say(&self, what: &str) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.is_none_or(|said| said.elapsed() >= OFTEN) {
            *said = Some(Instant::now());
            let connections = self.all().len();
            tracing::warn!(connections, most = self.most, "{what}");
        }
    }
}
