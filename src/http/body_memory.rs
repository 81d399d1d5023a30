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

use super::body::{NoRoom, too_large};
use super::coding::Coding;
use crate::error::Error;

/// The most bytes of a body that is not counted.
const SMALL: u64 = 16 << 10;
/// The fewest bytes of a body that waits for a processing permit.
const LARGE: u64 = 64 << 10;
/// The unit in which bytes are counted.
const UNIT: u64 = 1 << 10;
/// The least number of large bodies that are processed at once.
const TURNS: usize = 2;

/// The budget that the bodies of an application's requests share.
#[derive(Debug)]
pub(crate) struct BodyMemory {
    room: Arc<Semaphore>,
    turns: Arc<Semaphore>,
}

/// The permits that one request holds, until it is answered.
#[derive(Debug, Default)]
struct Held {
    room: Option<OwnedSemaphorePermit>,
    turn: Option<OwnedSemaphorePermit>,
}

/// The guard of the permits for a request's body; dropped when the request is answered.
#[derive(Debug)]
pub(super) struct Holding(#[expect(dead_code, reason = "it is held, and ends with the request")] Shared);

type Shared = Arc<Mutex<Held>>;

impl BodyMemory {
    pub(crate) fn new(bytes: usize) -> Self {
        let cores = std::thread::available_parallelism().map_or(TURNS, usize::from);
        Self {
            room: Arc::new(Semaphore::new((bytes >> 10).min(Semaphore::MAX_PERMITS))),
            turns: Arc::new(Semaphore::new(cores.max(TURNS))),
        }
    }

    /// Removes the content coding of a body, and counts the body while it is read, unless it is known to be small. An
    /// unsupported coding stays in the headers, for which the body is refused later.
    pub(super) fn count(&self, headers: &mut HeaderMap, body: &mut Body, limit: usize) -> Option<Holding> {
        let coding = match headers.contains_key(CONTENT_ENCODING) && !body.is_end_stream() {
            true => Coding::of(headers).unwrap_or(Coding::Identity),
            false => Coding::Identity,
        };
        let is_coded = coding != Coding::Identity;
        if !is_coded && body.size_hint().upper().is_some_and(|bytes| bytes <= SMALL) {
            return None;
        }
        let held = Shared::default();
        let counted = Counted {
            body: std::mem::take(body),
            held: held.clone(),
            room: self.room.clone(),
            turns: self.turns.clone(),
            seen: 0,
            turn: None,
            is_whole: false,
        };
        *body = match is_coded {
            false => Body::new(counted),
            true => {
                headers.remove(CONTENT_ENCODING);
                headers.remove(CONTENT_LENGTH);
                Body::new(Coded { counted, coding, limit, gathered: Vec::new(), is_done: false })
            }
        };
        Some(Holding(held))
    }
}

/// A body that is counted while it is read.
struct Counted {
    body: Body,
    held: Shared,
    room: Arc<Semaphore>,
    turns: Arc<Semaphore>,
    seen: u64,
    /// The processing permit that is waited for.
    turn: Option<BoxFuture<'static, Option<OwnedSemaphorePermit>>>,
    is_whole: bool,
}

impl Counted {
    /// Counts received bytes. Beyond the budget the body is refused rather than delayed: waiting requests would keep
    /// the memory that they hold, and none could proceed.
    fn holds(&mut self, bytes: usize) -> Result<(), NoRoom> {
        let before = self.units();
        self.seen += bytes as u64;
        let more = u32::try_from(self.units() - before).map_err(|_| NoRoom)?;
        if more == 0 {
            return Ok(());
        }
        let more = self.room.clone().try_acquire_many_owned(more).map_err(|_| NoRoom)?;
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut held.room {
            Some(room) => room.merge(more),
            room => *room = Some(more),
        }
        Ok(())
    }

    const fn units(&self) -> u64 {
        if self.seen > SMALL { self.seen.div_ceil(UNIT) } else { 0 }
    }

    /// Waits for the processing permit of a large body that is complete.
    fn poll_turn(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.is_whole = true;
        if self.seen < LARGE {
            return Poll::Ready(());
        }
        self.poll_any_turn(context)
    }

    fn poll_any_turn(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let turns = &self.turns;
        let turn = self.turn.get_or_insert_with(|| {
            let turns = turns.clone();
            // The semaphore is never closed.
            Box::pin(async move { turns.acquire_owned().await.ok() })
        });
        let turn = ready!(turn.as_mut().poll(context));
        self.held.lock().unwrap_or_else(PoisonError::into_inner).turn = turn;
        self.turn = None;
        self.seen = 0;
        Poll::Ready(())
    }
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if !self.is_whole {
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => {
                    let bytes = frame.data_ref().map_or(0, Bytes::len);
                    let counted = self.holds(bytes).map_err(axum::Error::new);
                    return Poll::Ready(Some(counted.map(|()| frame)));
                }
                Some(error) => return Poll::Ready(Some(error)),
                None => {}
            }
        }
        self.poll_turn(context).map(|()| None)
    }

    fn is_end_stream(&self) -> bool {
        // A large body ends when its processing permit is acquired.
        self.seen < LARGE && (self.is_whole || self.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A body with a content coding. It is collected, decoded once its processing permit is acquired, and counted by its
/// decoded bytes as well: a few coded bytes may decode to very many.
struct Coded {
    counted: Counted,
    coding: Coding,
    limit: usize,
    gathered: Vec<u8>,
    is_done: bool,
}

impl Coded {
    fn poll_decoded(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, axum::Error>>> {
        while !self.counted.is_whole {
            match ready!(Pin::new(&mut self.counted.body).poll_frame(context)) {
                Some(Ok(frame)) => {
                    let Ok(bytes) = frame.into_data() else { continue };
                    if self.gathered.len() + bytes.len() > self.limit {
                        return Poll::Ready(Some(Err(axum::Error::new(too_large(self.limit)))));
                    }
                    self.counted.holds(bytes.len()).map_err(axum::Error::new)?;
                    self.gathered.extend_from_slice(&bytes);
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => self.counted.is_whole = true,
            }
        }
        if self.is_done {
            return Poll::Ready(None);
        }
        ready!(self.counted.poll_any_turn(context));
        self.is_done = true;
        let gathered = Bytes::from(std::mem::take(&mut self.gathered));
        let decoded: Result<Bytes, Error> = self.coding.decoded(gathered, self.limit);
        let decoded = decoded.map_err(axum::Error::new)?;
        self.counted.holds(decoded.len()).map_err(axum::Error::new)?;
        Poll::Ready(Some(Ok(decoded)))
    }
}

impl HttpBody for Coded {
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
