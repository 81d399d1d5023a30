//! Limits concurrent work of subscribers, so that a mass re-check after a change of rights, or after the loss of a node,
//! cannot starve the storage.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::poll;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::error::Error;

/// Time limit for acquiring a permit, and for the work itself.
const LATE: Duration = Duration::from_secs(10);

/// Bounds how many pieces of work run at once.
#[derive(Debug)]
pub(crate) struct ConcurrencyLimiter(Arc<Semaphore>);

impl ConcurrencyLimiter {
    pub(super) fn new(at_once: usize) -> Self {
        Self(Arc::new(Semaphore::new(at_once)))
    }

    /// Runs work under a permit: at once where that is possible, and otherwise in a task of its own. The caller may not
    /// poll for long, as a socket does whose client reads nothing, and must not hold up others meanwhile.
    ///
    /// # Errors
    /// Errors of the work; and where it takes too long, or no permit becomes free in time.
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
        // The task is dropped with its set when the caller stops waiting.
        match task.join_next().await {
            Some(Ok(done)) => done,
            Some(Err(failed)) => Err(Error::internal(failed)),
            None => Err(Error::unavailable()),
        }
    }
}
