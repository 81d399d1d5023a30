//! Idle connections that skip the pool's liveness test between uses.
//!
//! The driver's pool tests a connection each time that it is returned, which costs every statement another round trip. So
//! the pool opens, tests and closes connections, and between two tests they stay here. A connection that failed, or whose
//! future was dropped, is returned through the pool at once; so is one that was idle or in service for too long.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use resourceful_contract::{ErrorKind, StorageError};
use sqlx::pool::PoolConnection;
use sqlx::{ConnectOptions as _, Connection as _, Database, Pool, Transaction};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::failure;
use crate::sessions::{Scope, Sessions};

/// How long a connection may be idle and still be reused without a test.
const REST: Duration = Duration::from_secs(15);
/// How long a connection may be reused without a test.
const SERVICE: Duration = Duration::from_secs(300);

/// How long a database may take to report why it refuses a connection.
const REASON: Duration = Duration::from_secs(1);

/// The minimum interval between two times that all idle connections are closed.
const CLEARING: Duration = Duration::from_secs(1);

/// The connections of one pool.
#[derive(Debug)]
pub(crate) struct Connections<Db: Database> {
    pool: Pool<Db>,
    sessions: Sessions,
    /// One permit for each connection that the pool may have, so that a caller with a permit finds a connection here or in
    /// the pool.
    places: Semaphore,
    /// Permits for long work: fewer than connections, so that short work always finds one.
    long: Semaphore,
    resting: Mutex<Vec<Resting<Db>>>,
    /// When all idle connections were last closed.
    cleared: Mutex<Option<Instant>>,
}

#[derive(Debug)]
struct Resting<Db: Database> {
    connection: PoolConnection<Db>,
    /// When it was last acquired.
    taken: Instant,
    /// When it came out of the pool.
    since: Instant,
}

impl<Db: Database> Connections<Db> {
    pub(crate) fn new(pool: Pool<Db>, sessions: Sessions) -> Self {
        let most = pool.options().get_max_connections() as usize;
        let long = most.saturating_sub((most / 4).max(1)).max(1);
        let (places, long) = (Semaphore::new(most), Semaphore::new(long));
        Self { pool, sessions, places, long, resting: Mutex::default(), cleared: Mutex::default() }
    }

    /// The underlying pool.
    pub(crate) const fn pool(&self) -> &Pool<Db> {
        &self.pool
    }

    /// Acquires a connection; waits until one is available.
    pub(crate) async fn take(&self) -> Result<Lease<'_, Db>, StorageError> {
        self.at(self.permit(&self.places).await?, None).await
    }

    /// Acquires a connection for work that may take long; waits until one is available for that.
    pub(crate) async fn take_for_long(&self) -> Result<Lease<'_, Db>, StorageError> {
        let long = self.permit(&self.long).await?;
        self.at(self.permit(&self.places).await?, Some(long)).await
    }

    /// Acquires a connection, unless all of them are in use.
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
            None => (self.made().await?, taken),
        };
        let connection = Held { connection: Some(connection), is_closed_with: false };
        Ok(Lease { connections: self, connection, taken, since, _place: place, _long: long })
    }

    /// A connection that the pool has just tested or opened.
    async fn made(&self) -> Result<PoolConnection<Db>, StorageError> {
        match self.pool.acquire().await {
            Err(sqlx::Error::PoolTimedOut) => Err(self.refused().await),
            outcome => outcome.map_err(failure::connection),
        }
    }

    /// The reason why the pool could not open a connection in time. The pool does not report it: it has a permit for each
    /// caller, and the database's answer is lost. So one more connection is attempted here.
    async fn refused(&self) -> StorageError {
        let error = match tokio::time::timeout(REASON, self.pool.connect_options().connect()).await {
            Ok(Err(error)) => error,
            Ok(Ok(connection)) => {
                drop(connection);
                sqlx::Error::PoolTimedOut
            }
            Err(_) => sqlx::Error::PoolTimedOut,
        };
        let waited = self.pool.options().get_acquire_timeout();
        failure::connection(error).with_context("pool", format!("could not connect for {waited:?}"))
    }

    async fn permit<'a>(&self, of: &'a Semaphore) -> Result<SemaphorePermit<'a>, StorageError> {
        if let Ok(place) = of.try_acquire() {
            return Ok(place);
        }
        let timeout = self.pool.options().get_acquire_timeout();
        match tokio::time::timeout(timeout, of.acquire()).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(closed)) => Err(StorageError::new(ErrorKind::Unavailable).with_source(closed)),
            Err(_) => Err(StorageError::new(ErrorKind::Unavailable)
                .with_context("pool", format!("every connection was in use for {timeout:?}"))
                .with_help("faster statements, fewer requests at once, or a larger `max_connections`")),
        }
    }

    /// The connection that was used last. If it has been idle for too long, so have all the others.
    fn rested(&self, now: Instant) -> Option<(PoolConnection<Db>, Instant)> {
        let mut resting = self.resting.lock().unwrap_or_else(PoisonError::into_inner);
        let last = resting.pop()?;
        if now.duration_since(last.taken) < REST {
            return Some((last.connection, last.since));
        }
        resting.clear();
        None
    }

    /// Closes every connection; those in use are closed when they are returned.
    pub(crate) async fn close(&self) {
        let closed = self.pool.close();
        self.resting.lock().unwrap_or_else(PoisonError::into_inner).clear();
        closed.await;
    }
}

impl<Db: Database> Drop for Connections<Db> {
    fn drop(&mut self) {
        // A dropped pooled connection spawns a task to return itself, and here there may be no runtime any more.
        let resting = self.resting.get_mut().unwrap_or_else(PoisonError::into_inner);
        for rested in resting.drain(..) {
            drop(rested.connection.leak());
        }
    }
}

/// Why a lease always has a connection.
const HELD: &str = "a connection is taken out of a lease by what consumes the lease";

/// A connection in use. When dropped, it is returned through the pool's test.
#[derive(Debug)]
pub(crate) struct Lease<'a, Db: Database> {
    connections: &'a Connections<Db>,
    connection: Held<Db>,
    taken: Instant,
    since: Instant,
    // Declared last: the permit is released after the connection.
    _place: SemaphorePermit<'a>,
    _long: Option<SemaphorePermit<'a>>,
}

/// A connection that is returned through the pool's test when it is dropped, or is closed if that could not end a statement
/// that still runs on it.
#[derive(Debug)]
struct Held<Db: Database> {
    /// Present until it is taken out.
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
    /// Replaces a lost connection by one that the pool has just tested or opened. Idle connections were probably lost with
    /// it, and are returned through the pool's test.
    pub(crate) async fn renewed(self) -> Result<Self, StorageError> {
        let Self { connections, connection, _place, _long, .. } = self;
        connections.resting.lock().unwrap_or_else(PoisonError::into_inner).clear();
        drop(connection);
        let taken = Instant::now();
        let connection = Some(connections.made().await?);
        let connection = Held { connection, is_closed_with: false };
        Ok(Self { connections, connection, taken, since: taken, _place, _long })
    }

    /// Begins a transaction that may write. If the future is dropped before the answer, the connection is closed with the
    /// lease: the driver does not roll back a transaction that it does not know to have begun, and later statements on the
    /// connection would be part of it.
    pub(crate) async fn begin(&mut self) -> Result<Transaction<'_, Db>, sqlx::Error> {
        let sessions = &self.connections.sessions;
        let Held { connection, is_closed_with } = &mut self.connection;
        let is_closed_anyway = std::mem::replace(is_closed_with, *is_closed_with || sessions.outlive_futures);
        let begun = connection.as_mut().expect(HELD).begin_with(sessions.begin.clone()).await;
        // Of several statements, the first may have begun a transaction before another one failed.
        *is_closed_with = is_closed_anyway || (begun.is_err() && sessions.are_pooled);
        begun
    }

    /// Whether its statements need a [scope](Self::scope), since a pooler may give each transaction a different session.
    pub(crate) const fn is_pooled(&self) -> bool {
        self.connections.sessions.are_pooled
    }

    /// A scope for statements that need one session but no transaction of their own.
    pub(crate) async fn scope(&mut self) -> Result<Scope<'_, Db>, sqlx::Error> {
        if self.is_pooled() {
            return self.begin().await.map(Scope::Transaction);
        }
        Ok(Scope::Session(&mut **self))
    }

    /// Closes the connection and, at limited intervals, all idle ones: they lead to a server that does not accept writes any
    /// more, and new ones may lead to another server. While there is no other server, readers keep their connections when a
    /// write is attempted.
    pub(crate) fn discard(mut self) {
        if !self.connections.sessions.are_replaceable {
            return;
        }
        self.close_with(true);
        let mut cleared = self.connections.cleared.lock().unwrap_or_else(PoisonError::into_inner);
        if cleared.is_some_and(|at| at.elapsed() < CLEARING) {
            return;
        }
        *cleared = Some(Instant::now());
        let mut resting = self.connections.resting.lock().unwrap_or_else(PoisonError::into_inner);
        for rested in resting.drain(..) {
            drop(rested.connection.detach());
        }
    }

    /// Sets whether dropping the lease closes the connection, which also ends the statement that runs on it.
    pub(crate) fn close_with(&mut self, is_closed_with: bool) {
        self.connection.is_closed_with = is_closed_with;
    }

    /// Returns the connection without a test. Its statements and its transaction must have ended.
    pub(crate) fn hand_on(self) {
        let Self { connections, mut connection, taken, since, _place, _long } = self;
        if taken.duration_since(since) > SERVICE {
            return;
        }
        let mut resting = connections.resting.lock().unwrap_or_else(PoisonError::into_inner);
        // A pool that is being closed waits for all its connections.
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
