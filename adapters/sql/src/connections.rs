//! Connections at hand: those that did their work whole go to the next caller without a detour.
//!
//! The driver's pool tests a connection each time that it comes back: another round trip for every statement. So
//! the pool makes, tests and ends connections, and between two tests they stay here. One that failed, or whose
//! caller went away, goes back through the pool at once; one that rested or served for long does so too.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use resourceful_contract::{ErrorKind, StorageError};
use sqlx::pool::PoolConnection;
use sqlx::{Database, Pool};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::failure;

/// The longest that a connection may rest and be used again untested.
const REST: Duration = Duration::from_secs(15);
/// The longest that a connection may go from hand to hand untested.
const SERVICE: Duration = Duration::from_secs(300);

/// The connections of one pool.
#[derive(Debug)]
pub(crate) struct Connections<Db: Database> {
    pool: Pool<Db>,
    /// As many as the pool may have connections, so that a caller who is let in finds one here or in the pool.
    places: Semaphore,
    /// How many of them may be kept for long at once: fewer, so that short work always finds one.
    long: Semaphore,
    resting: Mutex<Vec<Resting<Db>>>,
}

#[derive(Debug)]
struct Resting<Db: Database> {
    connection: PoolConnection<Db>,
    /// When it was last taken.
    taken: Instant,
    /// When it came out of the pool.
    since: Instant,
}

impl<Db: Database> Connections<Db> {
    pub(crate) fn new(pool: Pool<Db>) -> Self {
        let most = pool.options().get_max_connections() as usize;
        let long = most.saturating_sub((most / 4).max(1)).max(1);
        Self { pool, places: Semaphore::new(most), long: Semaphore::new(long), resting: Mutex::default() }
    }

    /// The pool that makes them.
    pub(crate) const fn pool(&self) -> &Pool<Db> {
        &self.pool
    }

    /// A connection, as soon as there is one.
    pub(crate) async fn take(&self) -> Result<Lease<'_, Db>, StorageError> {
        self.at(self.permit(&self.places).await?, None).await
    }

    /// A connection for work that may take long, as soon as there is one for that.
    pub(crate) async fn take_for_long(&self) -> Result<Lease<'_, Db>, StorageError> {
        let long = self.permit(&self.long).await?;
        self.at(self.permit(&self.places).await?, Some(long)).await
    }

    /// A connection, unless all of them are in use.
    pub(crate) async fn take_free(&self) -> Result<Option<Lease<'_, Db>>, StorageError> {
        match self.places.try_acquire() {
            Ok(place) => self.at(place, None).await.map(Some),
            Err(_) => Ok(None),
        }
    }

    async fn at<'a>(
        &'a self,
        place: SemaphorePermit<'a>,
        long: Option<SemaphorePermit<'a>>,
    ) -> Result<Lease<'a, Db>, StorageError> {
        let taken = Instant::now();
        let (connection, since) = match self.rested(taken) {
            Some(rested) => rested,
            None => (self.pool.acquire().await.map_err(failure::connection)?, taken),
        };
        let connection = Held { connection: Some(connection), is_closed_with: false };
        Ok(Lease { connections: self, connection, taken, since, _place: place, _long: long })
    }

    async fn permit<'a>(&self, of: &'a Semaphore) -> Result<SemaphorePermit<'a>, StorageError> {
        if let Ok(place) = of.try_acquire() {
            return Ok(place);
        }
        let timeout = self.pool.options().get_acquire_timeout();
        match tokio::time::timeout(timeout, of.acquire()).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(closed)) => Err(StorageError::new(ErrorKind::Unavailable).with_source(closed)),
            Err(late) => Err(StorageError::new(ErrorKind::Unavailable).with_source(late)),
        }
    }

    /// The connection that rested last. Where that was too long ago it was so for all of them.
    fn rested(&self, now: Instant) -> Option<(PoolConnection<Db>, Instant)> {
        let mut resting = self.resting.lock().unwrap_or_else(PoisonError::into_inner);
        let last = resting.pop()?;
        if now.duration_since(last.taken) < REST {
            return Some((last.connection, last.since));
        }
        resting.clear();
        None
    }

    /// Ends every connection, those under way when they come back.
    pub(crate) async fn close(&self) {
        let closed = self.pool.close();
        self.resting.lock().unwrap_or_else(PoisonError::into_inner).clear();
        closed.await;
    }
}

impl<Db: Database> Drop for Connections<Db> {
    fn drop(&mut self) {
        // Left to itself a pooled connection starts a task to go back, and here there may be no runtime any more.
        let resting = self.resting.get_mut().unwrap_or_else(PoisonError::into_inner);
        for rested in resting.drain(..) {
            drop(rested.connection.leak());
        }
    }
}

/// Why a lease has a connection.
const HELD: &str = "a connection is taken out of a lease by what consumes the lease";

/// A connection in use. Dropped, it goes back through the pool's test.
#[derive(Debug)]
pub(crate) struct Lease<'a, Db: Database> {
    connections: &'a Connections<Db>,
    connection: Held<Db>,
    taken: Instant,
    since: Instant,
    // The last fields: a place is free once the connection is.
    _place: SemaphorePermit<'a>,
    _long: Option<SemaphorePermit<'a>>,
}

/// A connection that goes back to the pool's test when it is dropped, or is closed where that could not end a statement
/// that it still runs.
#[derive(Debug)]
struct Held<Db: Database> {
    /// There until it is taken out.
    connection: Option<PoolConnection<Db>>,
    is_closed_with: bool,
}

impl<Db: Database> Drop for Held<Db> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take().filter(|_| self.is_closed_with) {
            drop(connection.detach());
        }
    }
}

impl<Db: Database> Lease<'_, Db> {
    /// Another connection in place of one that was lost, which the pool has tested or just made. Those that rest
    /// were probably lost with it, and go back to the pool's test.
    pub(crate) async fn renewed(self) -> Result<Self, StorageError> {
        let Self { connections, connection, _place, _long, .. } = self;
        connections.resting.lock().unwrap_or_else(PoisonError::into_inner).clear();
        drop(connection);
        let taken = Instant::now();
        let connection = Some(connections.pool.acquire().await.map_err(failure::connection)?);
        let connection = Held { connection, is_closed_with: false };
        Ok(Self { connections, connection, taken, since: taken, _place, _long })
    }

    /// Whether dropping it closes the connection, and with that ends the statement that it runs.
    pub(crate) fn close_with(&mut self, is_closed_with: bool) {
        self.connection.is_closed_with = is_closed_with;
    }

    /// Hands the connection on. Its statements must have ended, and its transaction too.
    pub(crate) fn hand_on(self) {
        let Self { connections, mut connection, taken, since, _place, _long } = self;
        if taken.duration_since(since) > SERVICE {
            return;
        }
        let mut resting = connections.resting.lock().unwrap_or_else(PoisonError::into_inner);
        // A pool that is being closed waits for every connection.
        if !connections.pool.is_closed()
            && let Some(connection) = connection.connection.take()
        {
            resting.push(Resting { connection, taken, since });
        }
        drop(resting);
    }
}

impl<Db: Database> Deref for Lease<'_, Db> {
    type Target = Db::Connection;

    fn deref(&self) -> &Db::Connection {
        self.connection.connection.as_ref().expect(HELD)
    }
}

impl<Db: Database> DerefMut for Lease<'_, Db> {
    fn deref_mut(&mut self) -> &mut Db::Connection {
        self.connection.connection.as_mut().expect(HELD)
    }
}
