//! Bounded retries of statements after transient failures.

use std::time::{Duration, Instant};

use resourceful_contract::StorageError;
use sqlx::Connection as _;

use super::error_mapping;
use crate::connections::PooledConnection;
use crate::dialect::Dialect;
use crate::error_mapping::Transient;

/// The maximum number of retries of a transaction after conflicts.
const MAX_RETRIES: u32 = 12;
/// How long after its first failure a transaction may be retried. A deadlock costs the victim a second (`deadlock_timeout`),
/// and SQLite's lock its busy timeout.
const MAX_RETRY_TIME: Duration = Duration::from_secs(5);
/// The longest backoff between two attempts, in milliseconds.
const MAX_BACKOFF_MILLIS: u64 = 100;

/// How often statements may be prepared again. Once is enough for statements that a connection caches. A statement that is
/// prepared for one use is lost each time that the driver meets a type for the first time, such as `citext`, and queries its
/// definition.
const MAX_CLEARS: u32 = 8;

/// The retry state of one read or one transaction.
#[derive(Debug, Default)]
pub(crate) struct Retry {
    /// How often the connection's prepared statements were cleared.
    clear_count: u32,
    has_reconnected: bool,
    backoff: Backoff,
}

impl Retry {
    /// The connection on which to retry everything after a failure; `None` if a retry is of no use or the limit is reached.
    /// A retry on another connection requires `can_reconnect`: no statement that must not run twice has reached the database.
    pub(crate) async fn next_connection<'a, D: Dialect>(
        &mut self,
        error: &StorageError,
        mut connection: PooledConnection<'a, D::Db>,
        can_reconnect: bool,
    ) -> Result<Option<PooledConnection<'a, D::Db>>, StorageError> {
        match error_mapping::transient_reason::<D>(error) {
            Some(Transient::StaleStatement) if self.clear_count < MAX_CLEARS => {
                self.clear_count += 1;
                connection.clear_cached_statements().await.map_err(error_mapping::connection_error)?;
                Ok(Some(connection))
            }
            Some(Transient::Disconnected) if !self.has_reconnected && can_reconnect => {
                self.has_reconnected = true;
                connection.reconnect().await.map(Some)
            }
            Some(Transient::Contended) => Ok(self.backoff.wait().await.then_some(connection)),
            _ => Ok(None),
        }
    }
}

/// Random backoff, so that transactions that conflicted once do not conflict again.
#[derive(Debug, Default)]
struct Backoff {
    retries: u32,
    first_failure: Option<Instant>,
}

impl Backoff {
    /// Waits before the next retry; returns `false` if the limit is reached.
    async fn wait(&mut self) -> bool {
        let first_failure = *self.first_failure.get_or_insert_with(Instant::now);
        if self.retries == MAX_RETRIES || first_failure.elapsed() >= MAX_RETRY_TIME {
            return false;
        }
        self.retries += 1;
        let max_millis = MAX_BACKOFF_MILLIS.min(1 << self.retries);
        let (random, _) = uuid::Uuid::new_v4().as_u64_pair();
        tokio::time::sleep(Duration::from_millis(random % (max_millis + 1))).await;
        true
    }
}
