//! Retries of statements that failed for a reason that passes, within bounds.

use std::time::{Duration, Instant};

use resourceful_contract::StorageError;
use sqlx::Connection as _;

use crate::connections::Lease;
use crate::dialect::Dialect;
use crate::failure::{self, Transient};

/// How often a transaction runs again because of others.
const RETRIES: u32 = 12;
/// How long after its first failure a transaction may still run again. A deadlock costs the victim a second
/// (`deadlock_timeout`), and SQLite's lock its busy timeout.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest pause between two runs, in milliseconds.
const LONGEST: u64 = 100;

/// How often statements are prepared again. Once is enough for those that a connection keeps. One that is prepared for one
/// use is lost each time that the driver meets a type for the first time, such as `citext`, and asks what it is.
const CLEARED: u32 = 8;

/// The retries of one read, or of one transaction.
#[derive(Debug, Default)]
pub(crate) struct Retry {
    /// How often the connection's statements were prepared again.
    cleared: u32,
    is_renewed: bool,
    backoff: Backoff,
}

impl Retry {
    /// The connection on which to run everything again after a failure; `None` where that is no use or was enough.
    /// On another connection nothing runs again unless it `may_move`: no statement has reached the database that must
    /// not run twice.
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

/// Random pauses, so that those that met once do not meet again.
#[derive(Debug, Default)]
struct Backoff {
    retries: u32,
    since: Option<Instant>,
}

impl Backoff {
    /// Waits before the next retry; `false` where there have been enough.
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
