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
const TIMEOUT: Duration = Duration::from_secs(10);

/// Bounds how many pieces of work run at once.
#[derive(Debug)]
pub(crate) struct ConcurrencyLimiter(Arc<Semaphore>);

impl ConcurrencyLimiter {
    pub(super) fn new(max_concurrent: usize) -> Self {
        Self(Arc::new(Semaphore::new(max_concurrent)))
    }

    /// Runs work under a permit: at once where that is possible, and otherwise in a task of its own. The caller may not
    /// poll for long, as a socket does whose client reads nothing, and must not hold up others meanwhile.
    ///
    /// # Errors
    /// Errors of the work; and where it takes too long, or no permit becomes free in time.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let mut work = Box::pin(work);
        let permit = self.0.clone().try_acquire_owned().ok();
        if permit.is_some()
            && let Poll::Ready(result) = poll!(work.as_mut())
        {
            return result;
        }
        let semaphore = self.0.clone();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let _permit = match permit {
                Some(permit) => permit,
                None => match timeout(TIMEOUT, semaphore.acquire_owned()).await {
                    Ok(Ok(permit)) => permit,
                    _ => return Err(Error::unavailable()),
                },
            };
            timeout(TIMEOUT, work).await.unwrap_or_else(|_| Err(Error::unavailable()))
        });
        // The task is dropped with its set when the caller stops waiting.
        match task.join_next().await {
            Some(Ok(result)) => result,
            Some(Err(failed)) => Err(Error::internal(failed)),
            None => Err(Error::unavailable()),
        }
    }
}
