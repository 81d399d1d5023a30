//! The tail: reads published events as they appear, on every node, and passes them to a follower.
//!
//! It reads by position, so it misses no event and needs no notification from the publishing node: a wake-up only makes it
//! read sooner. It stores no position either: when a node starts, or after a time without listeners, it begins at the
//! present.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::queue::Outbox;
use crate::error::Error;
use crate::tables::events::EventRow;
use crate::tables::events::Position;

/// How many events are read at once.
const BATCH_SIZE: u32 = 500;
/// How often, by default, to check that the position from which it continues is still valid in this database: after a time
/// without reads events may have been cleared, and a restored database may end before that position.
pub(crate) const CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// A consumer of every event that is published, on this node.
pub(crate) trait Follower: fmt::Debug + Send + Sync + 'static {
    /// Whether it wants the events of a database at present; `database` is an index among those that keep records. After
    /// returning `false`, [`begins`](Self::begins) is called before the next [`published`](Self::published).
    fn is_active(&self, database: usize) -> bool;

    /// Sets the position after which the follower receives every event; it knows of none before. Called at the beginning,
    /// and where events were cleared before they were read.
    fn start_from(&self, database: usize, at: Position);

    /// Receives the next events, in the order of their positions. The tail continues when this is done.
    fn handle_events<'a>(&'a self, database: usize, rows: &'a [Arc<EventRow>]) -> BoxFuture<'a, ()>;
}

/// Reads published events for one follower.
#[derive(Debug)]
pub(crate) struct Tail {
    outbox: Arc<Outbox>,
    follower: Arc<dyn Follower>,
    check_interval: Duration,
    /// One for each database that keeps records; locked while that is read.
    positions: Vec<Mutex<ReadPosition>>,
}

#[derive(Debug, Default)]
struct ReadPosition {
    /// The last position that was read; `None` where the database is not followed.
    after: Option<Position>,
    /// When the position was last found to be valid in the database.
    checked_at: Option<Instant>,
}

impl Tail {
    pub(crate) fn new(outbox: Arc<Outbox>, follower: Arc<dyn Follower>, check_interval: Duration) -> Self {
        let databases = outbox.storages().len();
        Self {
            outbox,
            follower,
            check_interval,
            positions: (0..databases).map(|_| Mutex::default()).collect(),
        }
    }

    /// Passes the next events to the follower; returns whether there may be more.
    ///
    /// # Errors
    /// Where the storage fails.
    pub(crate) async fn step(&self, database: usize) -> Result<bool, Error> {
        let storages = self.outbox.storages();
        let (Some(storage), Some(read_position)) = (storages.get(database), self.positions.get(database))
        else {
            return Ok(false);
        };
        let mut read_position = read_position.lock().await;
        if !self.follower.is_active(database) {
            *read_position = ReadPosition::default();
            return Ok(false);
        }
        let now = Instant::now();
        let mut last = None;
        if let Some(after) = read_position.after
            && read_position.checked_at.is_none_or(|checked_at| now - checked_at > self.check_interval)
        {
            let bounds = self.outbox.bounds(storage).await?;
            if bounds.covers(after) {
                last = Some(bounds.last);
            } else {
                read_position.after = None;
            }
            read_position.checked_at = Some(now);
        }
        let after = match read_position.after {
            Some(after) => after,
            None => {
                let last = self.outbox.bounds(storage).await?.last;
                self.follower.start_from(database, last);
                read_position.checked_at = Some(now);
                last
            }
        };
        // After a failure from here on, the next step continues from this position.
        read_position.after = Some(after);
        let rows = self.outbox.published_after(storage, after, BATCH_SIZE, None).await?;
        let rows: Vec<_> = rows.into_iter().map(Arc::new).collect();
        let more = rows.len() == BATCH_SIZE as usize;
        let reached = rows.last().map_or(after, |row| Position::of(row));
        if !rows.is_empty() {
            self.follower.handle_events(database, &rows).await;
        }
        // Everything up to here was read: on a quiet database the position keeps up with the clearing of events.
        read_position.after = Some(last.filter(|_| !more).map_or(reached, |last| last.max(reached)));
        Ok(more)
    }
}
