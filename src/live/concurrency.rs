//! Turns: where rights change, or a node has gone, everyone asks at once, and the storage has others to answer as well.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::poll;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::error::Error;

/// How long to wait for a turn, and how long to have it.
const LATE: Duration = Duration::from_secs(10);

/// So many are at work at once.
#[derive(Debug)]
pub(crate) struct ConcurrencyLimiter(Arc<Semaphore>);

impl ConcurrencyLimiter {
    pub(super) fn new(at_once: usize) -> Self {
        Self(Arc::new(Semaphore::new(at_once)))
    }

    /// Does something in turn: at once where it can be, and otherwise in a task of its own. Whoever waits for it may not look for
    /// long, as a socket does whose client takes nothing, and must hold up nobody meanwhile.
    ///
    /// # Errors
    /// Those of the work; and where it takes too long, or its turn does not come.
    pub(crate) async fn take<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let mut work = Box::pin(work);
        let turn = self.0.clone().try_acquire_owned().ok();
        if turn.is_some()
            && let Poll::Ready(done) = poll!(work.as_mut())
        {
            return done;
        }
        let turns = self.0.clone();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let _turn = match turn {
                Some(turn) => turn,
                None => match timeout(LATE, turns.acquire_owned()).await {
                    Ok(Ok(turn)) => turn,
                    _ => return Err(Error::unavailable()),
                },
            };
            timeout(LATE, work).await.unwrap_or_else(|_| Err(Error::unavailable()))
        });
        // Dropped with its set where nobody waits any more.
        match task.join_next().await {
            Some(Ok(done)) => done,
            Some(Err(failed)) => Err(Error::internal(failed)),
            None => Err(Error::unavailable()),
        }
    }
}
