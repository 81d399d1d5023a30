//! The memory budget of request bodies.
//!
//! A body in memory is as long as the client has made it, and its parsed JSON takes many times that. So large bodies
//! are counted while they arrive, and once they are complete only a few are processed at a time.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use axum::body::Body;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::body::{BudgetExceeded, too_large};
use super::content_coding::Coding;
use crate::error::Error;

/// The most bytes of a body that is not counted.
const MAX_UNCOUNTED: u64 = 16 << 10;
/// The fewest bytes of a body that waits for a processing permit.
const MIN_LARGE: u64 = 64 << 10;
/// The unit in which bytes are counted.
const UNIT: u64 = 1 << 10;
/// The least number of large bodies that are processed at once.
const MIN_PROCESSING: usize = 2;

/// The budget that the bodies of an application's requests share.
#[derive(Debug)]
pub(crate) struct BodyMemory {
    memory: Arc<Semaphore>,
    processing: Arc<Semaphore>,
}

/// The permits that one request holds, until it is answered.
#[derive(Debug, Default)]
struct BodyPermits {
    memory: Option<OwnedSemaphorePermit>,
    processing_permit: Option<OwnedSemaphorePermit>,
}

/// The guard of the permits for a request's body; dropped when the request is answered.
#[derive(Debug)]
pub(super) struct BodyPermitGuard(
    #[expect(dead_code, reason = "it is held, and ends with the request")] SharedPermits,
);

type SharedPermits = Arc<Mutex<BodyPermits>>;

impl BodyMemory {
    pub(crate) fn new(bytes: usize) -> Self {
        let cores = std::thread::available_parallelism().map_or(MIN_PROCESSING, usize::from);
        Self {
            memory: Arc::new(Semaphore::new((bytes >> 10).min(Semaphore::MAX_PERMITS))),
            processing: Arc::new(Semaphore::new(cores.max(MIN_PROCESSING))),
        }
    }

    /// Removes the content coding of a body, and counts the body while it is read, unless it is known to be small. An
    /// unsupported coding stays in the headers, for which the body is refused later.
    pub(super) fn count_body(
        &self,
        headers: &mut HeaderMap,
        body: &mut Body,
        limit: usize,
    ) -> Option<BodyPermitGuard> {
        let coding = match headers.contains_key(CONTENT_ENCODING) && !body.is_end_stream() {
            true => Coding::of(headers).unwrap_or(Coding::Identity),
            false => Coding::Identity,
        };
        let is_coded = coding != Coding::Identity;
        if !is_coded && body.size_hint().upper().is_some_and(|bytes| bytes <= MAX_UNCOUNTED) {
            return None;
        }
        let held = SharedPermits::default();
        let counted = CountedBody {
            body: std::mem::take(body),
            permits: held.clone(),
            memory: self.memory.clone(),
            processing: self.processing.clone(),
            received: 0,
            processing_permit: None,
            is_complete: false,
        };
        *body = match is_coded {
            false => Body::new(counted),
            true => {
                headers.remove(CONTENT_ENCODING);
                headers.remove(CONTENT_LENGTH);
                Body::new(EncodedBody { counted, coding, limit, encoded: Vec::new(), is_done: false })
            }
        };
        Some(BodyPermitGuard(held))
    }
}

/// A body that is counted while it is read.
struct CountedBody {
    body: Body,
    permits: SharedPermits,
    memory: Arc<Semaphore>,
    processing: Arc<Semaphore>,
    received: u64,
    /// The processing permit that is waited for.
    processing_permit: Option<BoxFuture<'static, Option<OwnedSemaphorePermit>>>,
    is_complete: bool,
}

impl CountedBody {
    /// Counts received bytes. Beyond the budget the body is refused rather than delayed: waiting requests would keep
    /// the memory that they hold, and none could proceed.
    fn reserve(&mut self, bytes: usize) -> Result<(), BudgetExceeded> {
        let before = self.units();
        self.received += bytes as u64;
        let more = u32::try_from(self.units() - before).map_err(|_| BudgetExceeded)?;
        if more == 0 {
            return Ok(());
        }
        let more = self.memory.clone().try_acquire_many_owned(more).map_err(|_| BudgetExceeded)?;
        let mut held = self.permits.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut held.memory {
            Some(memory) => memory.merge(more),
            memory => *memory = Some(more),
        }
        Ok(())
    }

    const fn units(&self) -> u64 {
        if self.received > MAX_UNCOUNTED { self.received.div_ceil(UNIT) } else { 0 }
    }

    /// Waits for the processing permit of a large body that is complete.
    fn poll_complete(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.is_complete = true;
        if self.received < MIN_LARGE {
            return Poll::Ready(());
        }
        self.poll_permit(context)
    }

    fn poll_permit(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let processing = &self.processing;
        let processing_permit = self.processing_permit.get_or_insert_with(|| {
            let processing = processing.clone();
            // The semaphore is never closed.
            Box::pin(async move { processing.acquire_owned().await.ok() })
        });
        let processing_permit = ready!(processing_permit.as_mut().poll(context));
        self.permits.lock().unwrap_or_else(PoisonError::into_inner).processing_permit = processing_permit;
        self.processing_permit = None;
        self.received = 0;
        Poll::Ready(())
    }
}

impl HttpBody for CountedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if !self.is_complete {
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => {
                    let bytes = frame.data_ref().map_or(0, Bytes::len);
                    let counted = self.reserve(bytes).map_err(axum::Error::new);
                    return Poll::Ready(Some(counted.map(|()| frame)));
                }
                Some(error) => return Poll::Ready(Some(error)),
                None => {}
            }
        }
        self.poll_complete(context).map(|()| None)
    }

    fn is_end_stream(&self) -> bool {
        // A large body ends when its processing permit is acquired.
        self.received < MIN_LARGE && (self.is_complete || self.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A body with a content coding. It is collected, decoded once its processing permit is acquired, and counted by its
/// decoded bytes as well: a few coded bytes may decode to very many.
struct EncodedBody {
    counted: CountedBody,
    coding: Coding,
    limit: usize,
    encoded: Vec<u8>,
    is_done: bool,
}

impl EncodedBody {
    fn poll_decoded(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, axum::Error>>> {
        while !self.counted.is_complete {
            match ready!(Pin::new(&mut self.counted.body).poll_frame(context)) {
                Some(Ok(frame)) => {
                    let Ok(bytes) = frame.into_data() else { continue };
                    if self.encoded.len() + bytes.len() > self.limit {
                        return Poll::Ready(Some(Err(axum::Error::new(too_large(self.limit)))));
                    }
                    self.counted.reserve(bytes.len()).map_err(axum::Error::new)?;
                    self.encoded.extend_from_slice(&bytes);
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => self.counted.is_complete = true,
            }
        }
        if self.is_done {
            return Poll::Ready(None);
        }
        ready!(self.counted.poll_permit(context));
        self.is_done = true;
        let encoded = Bytes::from(std::mem::take(&mut self.encoded));
        let decoded: Result<Bytes, Error> = self.coding.decode(encoded, self.limit);
        let decoded = decoded.map_err(axum::Error::new)?;
        self.counted.reserve(decoded.len()).map_err(axum::Error::new)?;
        Poll::Ready(Some(Ok(decoded)))
    }
}

impl HttpBody for EncodedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.poll_decoded(context).map(|decoded| decoded.map(|bytes| bytes.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.is_done
    }
}
