//! The tail: what reads published events as they come, on every node, and gives them to whoever follows.
//!
//! It reads by position, so it misses nothing and needs no word from the node that publishes: whoever wakes it only makes
//! it look sooner. It remembers nothing either: where a node starts, or nobody was listening, it begins at the present.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::engine::{Engine, Position};
use crate::error::Error;
use crate::tables::events::EventRow;

/// How many events are read at once.
const STEP: u32 = 500;
/// How often to look, where nothing else is said, whether the place from which it goes on is still one of this database: where
/// nobody looked for long events may have been cleared, and a database that was put back begins before it.
pub(crate) const LOOK: Duration = Duration::from_secs(60);

/// Who is told of every event that is published, on this node.
pub(crate) trait Follower: fmt::Debug + Send + Sync + 'static {
    /// Whether it wants to be told at present of the events of a database, which is named by its place among those that
    /// keep records. Where it says no it is told where it begins anew before it is told of anything else.
    fn listens(&self, database: usize) -> bool;

    /// From this position on it is told of everything, and of what was before it knows nothing: at the beginning, or
    /// because events went before they were read.
    fn begins(&self, database: usize, at: Position);

    /// The next events, in the order of their positions. The tail goes on when this is done.
    fn published<'a>(&'a self, database: usize, rows: &'a [Arc<EventRow>]) -> BoxFuture<'a, ()>;
}

/// Reads published events for one follower.
#[derive(Debug)]
pub(crate) struct Tail {
    engine: Arc<Engine>,
    follower: Arc<dyn Follower>,
    look: Duration,
    /// For each database that keeps records; locked while it is read.
    places: Vec<Mutex<Place>>,
}

#[derive(Debug, Default)]
struct Place {
    /// Where there is none it is not followed.
    after: Option<Position>,
    /// When its place was last found to be one of the database.
    looked: Option<Instant>,
}

impl Tail {
    pub(crate) fn new(engine: Arc<Engine>, follower: Arc<dyn Follower>, look: Duration) -> Self {
        let databases = engine.recorded().len();
        Self { engine, follower, look, places: (0..databases).map(|_| Mutex::default()).collect() }
    }

    /// Tells the follower of the next events; answers whether there may be more.
    ///
    /// # Errors
    /// Where the storage fails.
    pub(crate) async fn step(&self, database: usize) -> Result<bool, Error> {
        let recorded = self.engine.recorded();
        let (Some(vault), Some(place)) = (recorded.get(database), self.places.get(database)) else {
            return Ok(false);
        };
        let mut place = place.lock().await;
        if !self.follower.listens(database) {
            *place = Place::default();
            return Ok(false);
        }
        let now = Instant::now();
        let mut last = None;
        if let Some(after) = place.after
            && place.looked.is_none_or(|looked| now - looked > self.look)
        {
            let bounds = self.engine.bounds(vault).await?;
            if bounds.reach_back_to(after) {
                last = Some(bounds.last);
            } else {
                place.after = None;
            }
            place.looked = Some(now);
        }
        let after = match place.after {
            Some(after) => after,
            None => {
                let last = self.engine.bounds(vault).await?.last;
                self.follower.begins(database, last);
                place.looked = Some(now);
                last
            }
        };
        // Where it fails from here on, it goes on where it was.
        place.after = Some(after);
        let rows = self.engine.published_after(vault, after, STEP, None).await?;
        let rows: Vec<_> = rows.into_iter().map(Arc::new).collect();
        let more = rows.len() == STEP as usize;
        let reached = rows.last().map_or(after, |row| Position::of(row));
        if !rows.is_empty() {
            self.follower.published(database, &rows).await;
        }
        // Everything up to there was read: on a quiet database the place moves on with what is cleared.
        place.after = Some(last.filter(|_| !more).map_or(reached, |last| last.max(reached)));
        Ok(more)
    }
}
