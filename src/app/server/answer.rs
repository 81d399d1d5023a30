//! Response bodies on their way to the client.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::stream;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::block_in_place;

use super::connection::{Connection, Request};
use super::has_other_threads;
use super::registry::Registry;
use crate::http::Whole;

/// The maximum size of a piece that is passed on at once: the rest waits for the client here, where it is counted.
const PIECE: usize = 64 << 10;

/// A response body that is sent in pieces, and is counted for as long as any of it is held.
#[derive(Debug)]
pub(super) struct ResponseBody {
    body: Body,
    /// The part of a large frame that is not passed on yet.
    rest: Bytes,
    held: Option<Arc<AnswerMemory>>,
    _turn: Option<Arc<OwnedSemaphorePermit>>,
    /// Whether the peer was given a frame and has not asked for the next one; tracked on HTTP/2 only, where a client can
    /// stop a body without stopping the connection.
    waits: Option<bool>,
    request: Request,
}

/// The memory of a large response, counted until this is dropped.
#[derive(Debug)]
pub(super) struct AnswerMemory {
    connection: Arc<Connection>,
    bytes: usize,
    _room: OwnedSemaphorePermit,
}

impl AnswerMemory {
    fn new(connection: Arc<Connection>, bytes: usize, room: OwnedSemaphorePermit) -> Self {
        connection.holds(bytes);
        Self { connection, bytes, _room: room }
    }
}

/// Whether there is memory for a response. A large response that is in memory is counted from here on, until its last
/// byte is taken. Bodies that are generated while they are sent, such as streams, have limits of their own.
pub(in crate::app) async fn has_room(connection: &Arc<Connection>, response: &mut Response) -> bool {
    let Some(Whole { bytes }) = response.extensions_mut().remove() else { return true };
    let mut bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    let registry = &connection.registry;
    let Some(mut room) = registry.room_for(bytes) else { return false };
    if response.body().size_hint().exact().is_none()
        && let Some(coded) = Box::pin(encode(registry, response)).await
    {
        // Nearly always smaller; where it is larger, then only by the few bytes of a header.
        bytes = coded.min(bytes);
        drop(room.split(room.num_permits() - Registry::units(bytes)));
    }
    response.extensions_mut().insert(Arc::new(AnswerMemory::new(connection.clone(), bytes, room)));
    true
}

/// Encodes a response that is in memory as a whole, before its client takes any of it, and returns the encoded size. So
/// neither its plain bytes nor the state of an encoder, which may be some MiB, is held for as long as a client takes.
async fn encode(registry: &Registry, response: &mut Response) -> Option<usize> {
    // The semaphore is never closed.
    let _turn = registry.encoders.acquire().await.ok()?;
    let mut encoded = std::mem::take(response.body_mut()).collect();
    let is_apart = has_other_threads();
    let encoded = poll_fn(|context| {
        let encoded = Pin::new(&mut encoded);
        if is_apart { block_in_place(|| encoded.poll(context)) } else { encoded.poll(context) }
    });
    match encoded.await {
        Ok(encoded) => {
            let bytes = encoded.to_bytes();
            let count = bytes.len();
            *response.body_mut() = Body::from(bytes);
            Some(count)
        }
        Err(error) => {
            // The client sees that the response ends early.
            *response.body_mut() = Body::from_stream(stream::iter([Err::<Bytes, _>(error)]));
            None
        }
    }
}

impl Drop for AnswerMemory {
    fn drop(&mut self) {
        self.connection.releases(self.bytes);
    }
}

/// A frame that is counted until its last piece is dropped.
struct Counted {
    bytes: Bytes,
    _held: Arc<AnswerMemory>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl ResponseBody {
    pub(super) fn new(
        body: Body,
        held: Option<Arc<AnswerMemory>>,
        turn: Option<Arc<OwnedSemaphorePermit>>,
        is_http2: bool,
        request: Request,
    ) -> Self {
        let waits = (is_http2 && !body.is_end_stream()).then(|| {
            request.connection.waits_for_peer();
            true
        });
        Self { body, rest: Bytes::new(), held, _turn: turn, waits, request }
    }

    /// Tracks whether the peer takes what it is given.
    fn follow(&mut self, waits: bool) {
        match &mut self.waits {
            Some(was) if *was != waits => *was = waits,
            _ => return,
        }
        if waits {
            self.request.connection.waits_for_peer();
        } else {
            self.request.connection.peer_takes();
        }
    }

    /// The next piece of a frame.
    fn piece(&mut self, bytes: Bytes) -> Bytes {
        self.rest = bytes;
        if self.rest.len() > PIECE { self.rest.split_to(PIECE) } else { std::mem::take(&mut self.rest) }
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if !self.rest.is_empty() {
            let rest = std::mem::take(&mut self.rest);
            return Poll::Ready(Some(Ok(Frame::data(self.piece(rest)))));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let Some(Ok(frame)) = frame else { return Poll::Ready(frame) };
        let frame = match frame.into_data() {
            Ok(bytes) if bytes.len() > PIECE || self.held.is_some() => {
                // A frame that is the whole body is counted by itself; the pieces of any other body are counted with the
                // body.
                let is_whole = self.body.is_end_stream();
                let bytes = match self.held.take_if(|_| is_whole) {
                    Some(held) => Bytes::from_owner(Counted { bytes, _held: held }),
                    None => bytes,
                };
                Frame::data(self.piece(bytes))
            }
            Ok(bytes) => Frame::data(bytes),
            Err(frame) => frame,
        };
        Poll::Ready(Some(Ok(frame)))
    }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.follow(false);
        let frame = self.poll_next(context);
        if matches!(frame, Poll::Ready(Some(Ok(_)))) {
            self.follow(true);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let inner = self.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower().saturating_add(rest));
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        self.follow(false);
    }
}
