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

use super::error_mapping;
use crate::session_mode::{Scope, SessionMode};

/// How long a connection may be idle and still be reused without a test.
const MAX_IDLE: Duration = Duration::from_secs(15);
/// How long a connection may be reused without a test.
const MAX_UNTESTED: Duration = Duration::from_secs(300);

/// How long a database may take to report why it refuses a connection.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// The minimum interval between two times that all idle connections are closed.
const CLEAR_INTERVAL: Duration = Duration::from_secs(1);

/// The connections of one pool.
#[derive(Debug)]
pub(crate) struct Connections<Db: Database> {
    pool: Pool<Db>,
    sessions: SessionMode,
    /// One permit for each connection that the pool may have, so that a caller with a permit finds a connection here or in
    /// the pool.
    permits: Semaphore,
    /// Permits for long work: fewer than connections, so that short work always finds one.
    long_permits: Semaphore,
    idle: Mutex<Vec<IdleConnection<Db>>>,
    /// When all idle connections were last closed.
    last_cleared: Mutex<Option<Instant>>,
}

#[derive(Debug)]
struct IdleConnection<Db: Database> {
    connection: PoolConnection<Db>,
    /// When it was last acquired.
    acquired_at: Instant,
    /// When it came out of the pool.
    tested_at: Instant,
}

impl<Db: Database> Connections<Db> {
    pub(crate) fn new(pool: Pool<Db>, sessions: SessionMode) -> Self {
        let max_connections = pool.options().get_max_connections() as usize;
        let long = max_connections.saturating_sub((max_connections / 4).max(1)).max(1);
        let (permits, long_permits) = (Semaphore::new(max_connections), Semaphore::new(long));
        Self { pool, sessions, permits, long_permits, idle: Mutex::default(), last_cleared: Mutex::default() }
    }

    /// The underlying pool.
    pub(crate) const fn pool(&self) -> &Pool<Db> {
        &self.pool
    }

    /// Acquires a connection; waits until one is available.
    pub(crate) async fn acquire(&self) -> Result<PooledConnection<'_, Db>, StorageError> {
        self.lease(self.acquire_permit(&self.permits).await?, None).await
    }

    /// Acquires a connection for work that may take long; waits until one is available for that.
    pub(crate) async fn acquire_long(&self) -> Result<PooledConnection<'_, Db>, StorageError> {
        let long = self.acquire_permit(&self.long_permits).await?;
        self.lease(self.acquire_permit(&self.permits).await?, Some(long)).await
    }

    /// Acquires a connection, unless all of them are in use.
    pub(crate) async fn try_acquire(&self) -> Result<Option<PooledConnection<'_, Db>>, StorageError> {
        match self.permits.try_acquire() {
            Ok(permit) => self.lease(permit, None).await.map(Some),
            Err(_) => Ok(None),
        }
    }

    async fn lease<'a>(
        &'a self,
        permit: SemaphorePermit<'a>,
        long_permit: Option<SemaphorePermit<'a>>,
    ) -> Result<PooledConnection<'a, Db>, StorageError> {
        let acquired_at = Instant::now();
        let (connection, tested_at) = match self.take_idle(acquired_at) {
            Some(idle_connection) => idle_connection,
            None => (self.open_connection().await?, acquired_at),
        };
        let connection = ConnectionGuard { connection: Some(connection), should_close: false };
        Ok(PooledConnection {
            connections: self,
            connection,
            acquired_at,
            tested_at,
            _permit: permit,
            _long_permit: long_permit,
        })
    }

    /// A connection that the pool has just tested or opened.
    async fn open_connection(&self) -> Result<PoolConnection<Db>, StorageError> {
        match self.pool.acquire().await {
            Err(sqlx::Error::PoolTimedOut) => Err(self.connect_error().await),
            outcome => outcome.map_err(error_mapping::connection_error),
        }
    }

    /// The reason why the pool could not open a connection in time. The pool does not report it: it has a permit for each
    /// caller, and the database's answer is lost. So one more connection is attempted here.
    async fn connect_error(&self) -> StorageError {
        let error = match tokio::time::timeout(PROBE_TIMEOUT, self.pool.connect_options().connect()).await {
            Ok(Err(error)) => error,
            Ok(Ok(connection)) => {
                drop(connection);
                sqlx::Error::PoolTimedOut
            }
            Err(_) => sqlx::Error::PoolTimedOut,
        };
        let waited = self.pool.options().get_acquire_timeout();
        error_mapping::connection_error(error)
            .with_context("pool", format!("could not connect for {waited:?}"))
    }

    async fn acquire_permit<'a>(&self, of: &'a Semaphore) -> Result<SemaphorePermit<'a>, StorageError> {
        if let Ok(permit) = of.try_acquire() {
            return Ok(permit);
        }
        let timeout = self.pool.options().get_acquire_timeout();
        match tokio::time::timeout(timeout, of.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(closed)) => Err(StorageError::new(ErrorKind::Unavailable).with_source(closed)),
            Err(_) => Err(StorageError::new(ErrorKind::Unavailable)
                .with_context("pool", format!("every connection was in use for {timeout:?}"))
                .with_help("faster statements, fewer requests at once, or a larger `max_connections`")),
        }
    }

    /// The connection that was used last. If it has been idle for too long, so have all the others.
    fn take_idle(&self, now: Instant) -> Option<(PoolConnection<Db>, Instant)> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let last = idle.pop()?;
        if now.duration_since(last.acquired_at) < MAX_IDLE {
            return Some((last.connection, last.tested_at));
        }
        idle.clear();
        None
    }

    /// Closes every connection; those in use are closed when they are returned.
    pub(crate) async fn close(&self) {
        let closed = self.pool.close();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
        closed.await;
    }
}

impl<Db: Database> Drop for Connections<Db> {
    fn drop(&mut self) {
        // A dropped pooled connection spawns a task to return itself, and here there may be no runtime any more.
        let idle = self.idle.get_mut().unwrap_or_else(PoisonError::into_inner);
        for idle_connection in idle.drain(..) {
            drop(idle_connection.connection.leak());
        }
    }
}

/// Why a lease always has a connection.
const HAS_CONNECTION: &str = "a connection is taken out of a lease by what consumes the lease";

/// A connection in use. When dropped, it is returned through the pool's test.
#[derive(Debug)]
pub(crate) struct PooledConnection<'a, Db: Database> {
    connections: &'a Connections<Db>,
    connection: ConnectionGuard<Db>,
    acquired_at: Instant,
    tested_at: Instant,
    // Declared last: the permit is released after the connection.
    _permit: SemaphorePermit<'a>,
    _long_permit: Option<SemaphorePermit<'a>>,
}

/// A connection that is returned through the pool's test when it is dropped, or is closed if that could not end a statement
/// that still runs on it.
#[derive(Debug)]
struct ConnectionGuard<Db: Database> {
    /// Present until it is taken out.
    connection: Option<PoolConnection<Db>>,
    should_close: bool,
}

impl<Db: Database> Drop for ConnectionGuard<Db> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take().filter(|_| self.should_close) {
            drop(connection.detach());
        }
    }
}

impl<Db: Database> PooledConnection<'_, Db> {
    /// Replaces a lost connection by one that the pool has just tested or opened. Idle connections were probably lost with
    /// it, and are returned through the pool's test.
    pub(crate) async fn reconnect(self) -> Result<Self, StorageError> {
        let Self { connections, connection, _permit, _long_permit, .. } = self;
        connections.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
        drop(connection);
        let acquired_at = Instant::now();
        let connection = Some(connections.open_connection().await?);
        let connection = ConnectionGuard { connection, should_close: false };
        Ok(Self { connections, connection, acquired_at, tested_at: acquired_at, _permit, _long_permit })
    }

    /// Begins a transaction that may write. If the future is dropped before the answer, the connection is closed with the
    /// lease: the driver does not roll back a transaction that it does not know to have begun, and later statements on the
    /// connection would be part of it.
    pub(crate) async fn begin(&mut self) -> Result<Transaction<'_, Db>, sqlx::Error> {
        let sessions = &self.connections.sessions;
        let ConnectionGuard { connection, should_close } = &mut self.connection;
        let should_close_before =
            std::mem::replace(should_close, *should_close || sessions.begin_outlives_drop);
        let begun = connection.as_mut().expect(HAS_CONNECTION).begin_with(sessions.begin.clone()).await;
        // Of several statements, the first may have begun a transaction before another one failed.
        *should_close = should_close_before || (begun.is_err() && sessions.is_transaction_pooled);
        begun
    }

    /// Whether its statements need a [scope](Self::scope), since a pooler may give each transaction a different session.
    pub(crate) const fn needs_scope(&self) -> bool {
        self.connections.sessions.is_transaction_pooled
    }

    /// A scope for statements that need one session but no transaction of their own.
    pub(crate) async fn scope(&mut self) -> Result<Scope<'_, Db>, sqlx::Error> {
        if self.needs_scope() {
            return self.begin().await.map(Scope::Transaction);
        }
        Ok(Scope::Session(&mut **self))
    }

    /// Closes the connection and, at limited intervals, all idle ones: they lead to a server that does not accept writes any
    /// more, and new ones may lead to another server. While there is no other server, readers keep their connections when a
    /// write is attempted.
    pub(crate) fn discard(mut self) {
        if !self.connections.sessions.is_replaceable {
            return;
        }
        self.set_should_close(true);
        let mut last_cleared = self.connections.last_cleared.lock().unwrap_or_else(PoisonError::into_inner);
        if last_cleared.is_some_and(|at| at.elapsed() < CLEAR_INTERVAL) {
            return;
        }
        *last_cleared = Some(Instant::now());
        let mut idle = self.connections.idle.lock().unwrap_or_else(PoisonError::into_inner);
        for idle_connection in idle.drain(..) {
            drop(idle_connection.connection.detach());
        }
    }

    /// Sets whether dropping the lease closes the connection, which also ends the statement that runs on it.
    pub(crate) fn set_should_close(&mut self, should_close: bool) {
        self.connection.should_close = should_close;
    }

    /// Returns the connection without a test. Its statements and its transaction must have ended.
    pub(crate) fn release(self) {
        let Self { connections, mut connection, acquired_at, tested_at, _permit, _long_permit } = self;
        if acquired_at.duration_since(tested_at) > MAX_UNTESTED {
            return;
        }
        let mut idle = connections.idle.lock().unwrap_or_else(PoisonError::into_inner);
        // A pool that is being closed waits for all its connections.
        if !connections.pool.is_closed()
            && let Some(connection) = connection.connection.take()
        {
            idle.push(IdleConnection { connection, acquired_at, tested_at });
        }
        drop(idle);
    }
}

impl<Db: Database> Deref for PooledConnection<'_, Db> {
    type Target = Db::Connection;

    fn deref(&self) -> &Db::Connection {
        self.connection.connection.as_ref().expect(HAS_CONNECTION)
    }
}

impl<Db: Database> DerefMut for PooledConnection<'_, Db> {
    fn deref_mut(&mut self) -> &mut Db::Connection {
        self.connection.connection.as_mut().expect(HAS_CONNECTION)
    }
}
