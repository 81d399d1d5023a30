//! Bounded retries of statements after transient failures.

use std::time::{Duration, Instant};

use resourceful_contract::StorageError;
use sqlx::Connection as _;

use crate::connections::Lease;
use crate::dialect::Dialect;
use crate::failure::{self, Transient};

/// The maximum number of retries of a transaction after conflicts.
const RETRIES: u32 = 12;
/// How long after its first failure a transaction may be retried. A deadlock costs the victim a second (`deadlock_timeout`),
/// and SQLite's lock its busy timeout.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest backoff between two attempts, in milliseconds.
const LONGEST: u64 = 100;

/// How often statements may be prepared again. Once is enough for statements that a connection caches. A statement that is
/// prepared for one use is lost each time that the driver meets a type for the first time, such as `citext`, and queries its
/// definition.
const CLEARED: u32 = 8;

/// The retry state of one read or one transaction.
#[derive(Debug, Default)]
pub(crate) struct Retry {
    /// How often the connection's prepared statements were cleared.
    cleared: u32,
    is_renewed: bool,
    backoff: Backoff,
}

impl Retry {
    /// The connection on which to retry everything after a failure; `None` if a retry is of no use or the limit is reached.
    /// A retry on another connection requires `may_move`: no statement that must not run twice has reached the database.
    pub(crate) async fn after<'a, D: Dialect>(
        &mut self,
        error: &StorageError,
        mut connection: Lease<'a, D::Db>,
        may_move: bool,
    ) -> Result<Option<Lease<'a, D::Db>>, StorageError> {
        match failure::transient::<D>(error) {
            Some(Transient::StaleStatement) if self.cleared < CLEARED => {
                self.cleared += 1;
                connection.clear_cached_statements().await.map_err(failure::connection)?;
                Ok(Some(connection))
            }
            Some(Transient::Disconnected) if !self.is_renewed && may_move => {
                self.is_renewed = true;
                connection.renewed().await.map(Some)
            }
            Some(Transient::Contended) => Ok(self.backoff.pause().await.then_some(connection)),
            _ => Ok(None),
        }
    }
}

/// Random backoff, so that transactions that conflicted once do not conflict again.
#[derive(Debug, Default)]
struct Backoff {
    retries: u32,
    since: Option<Instant>,
}

impl Backoff {
    /// Waits before the next retry; returns `false` if the limit is reached.
    async fn pause(&mut self) -> bool {
        let since = *self.since.get_or_insert_with(Instant::now);
        if self.retries == RETRIES || since.elapsed() >= PATIENCE {
            return false;
        }
        self.retries += 1;
        let most = LONGEST.min(1 << self.retries);
        let (random, _) = uuid::Uuid::new_v4().as_u64_pair();
        tokio::time::sleep(Duration::from_millis(random % (most + 1))).await;
        true
    }
}
