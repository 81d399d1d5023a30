//! The bodies of requests, and how much of memory they take together.
//!
//! A body in memory is as long as the client has made it, and its JSON takes many times that. So large bodies are counted
//! while they arrive, and when they are whole they are read a few at a time.

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

/// The most bytes of a body that does not count.
const SMALL: u64 = 16 << 10;
/// The least bytes of one that waits for its turn.
const LARGE: u64 = 64 << 10;
/// In which units bytes are counted.
const UNIT: u64 = 1 << 10;
/// The least number of large bodies that are read at once.
const TURNS: usize = 2;

/// What the bodies of an application's requests share.
#[derive(Debug)]
pub(crate) struct BodyMemory {
    room: Arc<Semaphore>,
    turns: Arc<Semaphore>,
}

/// What one request holds, until it is answered.
#[derive(Debug, Default)]
struct Held {
    room: Option<OwnedSemaphorePermit>,
    turn: Option<OwnedSemaphorePermit>,
}

/// What a request holds for its body; dropped when it is answered.
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

    /// Takes the coding off a body, and counts it while it is read, unless it is known to be small. A coding that is not
    /// read here stays in the headers, where the body is refused for it.
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

/// A body that is counted.
struct Counted {
    body: Body,
    held: Shared,
    room: Arc<Semaphore>,
    turns: Arc<Semaphore>,
    seen: u64,
    /// The turn that is waited for.
    turn: Option<BoxFuture<'static, Option<OwnedSemaphorePermit>>>,
    is_whole: bool,
}

impl Counted {
    /// Counts bytes that came. What there is no room for is refused rather than waited for: those who wait would keep what
    /// they have, and none could go on.
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

    /// Waits for the turn of a large body that is whole.
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
            // They are never closed.
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
        // A large one ends when its turn has come.
        self.seen < LARGE && (self.is_whole || self.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A coded body. It is gathered, decoded when its turn has come, and counts as its decoded bytes as well: a few bytes may
/// stand for very many.
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
