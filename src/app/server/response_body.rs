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
use crate::http::BufferedBody;

/// The maximum size of a piece that is passed on at once: the rest waits for the client here, where it is counted.
const MAX_CHUNK_BYTES: usize = 64 << 10;

/// A response body that is sent in pieces, and is counted for as long as any of it is held.
#[derive(Debug)]
pub(super) struct ResponseBody {
    body: Body,
    /// The part of a large frame that is not passed on yet.
    rest: Bytes,
    memory: Option<Arc<ResponseMemory>>,
    _permit: Option<Arc<OwnedSemaphorePermit>>,
    /// Whether the peer was given a frame and has not asked for the next one; tracked on HTTP/2 only, where a client can
    /// stop a body without stopping the connection.
    is_waiting: Option<bool>,
    request: Request,
}

/// The memory of a large response, counted until this is dropped.
#[derive(Debug)]
pub(super) struct ResponseMemory {
    connection: Arc<Connection>,
    bytes: usize,
    _reservation: OwnedSemaphorePermit,
}

impl ResponseMemory {
    fn new(connection: Arc<Connection>, bytes: usize, reservation: OwnedSemaphorePermit) -> Self {
        connection.add_held(bytes);
        Self { connection, bytes, _reservation: reservation }
    }
}

/// Whether there is memory for a response. A large response that is in memory is counted from here on, until its last
/// byte is taken. Bodies that are generated while they are sent, such as streams, have limits of their own.
pub(in crate::app) async fn try_reserve(connection: &Arc<Connection>, response: &mut Response) -> bool {
    let Some(BufferedBody { bytes }) = response.extensions_mut().remove() else { return true };
    let mut bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    let registry = &connection.registry;
    let Some(mut reservation) = registry.reserve(bytes) else { return false };
    if response.body().size_hint().exact().is_none()
        && let Some(encoded_size) = Box::pin(encode(registry, response)).await
    {
        // Nearly always smaller; where it is larger, then only by the few bytes of a header.
        bytes = encoded_size.min(bytes);
        drop(reservation.split(reservation.num_permits() - Registry::units(bytes)));
    }
    response.extensions_mut().insert(Arc::new(ResponseMemory::new(connection.clone(), bytes, reservation)));
    true
}

/// Encodes a response that is in memory as a whole, before its client takes any of it, and returns the encoded size. So
/// neither its plain bytes nor the state of an encoder, which may be some MiB, is held for as long as a client takes.
async fn encode(registry: &Registry, response: &mut Response) -> Option<usize> {
    // The semaphore is never closed.
    let _permit = registry.encoders.acquire().await.ok()?;
    let mut encoded = std::mem::take(response.body_mut()).collect();
    let can_block = has_other_threads();
    let encoded = poll_fn(|context| {
        let encoded = Pin::new(&mut encoded);
        if can_block { block_in_place(|| encoded.poll(context)) } else { encoded.poll(context) }
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

impl Drop for ResponseMemory {
    fn drop(&mut self) {
        self.connection.remove_held(self.bytes);
    }
}

/// A frame that is counted until its last piece is dropped.
struct CountedBytes {
    bytes: Bytes,
    _memory: Arc<ResponseMemory>,
}

impl AsRef<[u8]> for CountedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl ResponseBody {
    pub(super) fn new(
        body: Body,
        memory: Option<Arc<ResponseMemory>>,
        permit: Option<Arc<OwnedSemaphorePermit>>,
        is_http2: bool,
        request: Request,
    ) -> Self {
        let is_waiting = (is_http2 && !body.is_end_stream()).then(|| {
            request.connection.record_waiting();
            true
        });
        Self { body, rest: Bytes::new(), memory, _permit: permit, is_waiting, request }
    }

    /// Tracks whether the peer takes what it is given.
    fn set_waiting(&mut self, is_waiting: bool) {
        match &mut self.is_waiting {
            Some(previous) if *previous != is_waiting => *previous = is_waiting,
            _ => return,
        }
        if is_waiting {
            self.request.connection.record_waiting();
        } else {
            self.request.connection.record_taken();
        }
    }

    /// The next piece of a frame.
    fn next_chunk(&mut self, bytes: Bytes) -> Bytes {
        self.rest = bytes;
        if self.rest.len() > MAX_CHUNK_BYTES {
            self.rest.split_to(MAX_CHUNK_BYTES)
        } else {
            std::mem::take(&mut self.rest)
        }
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if !self.rest.is_empty() {
            let rest = std::mem::take(&mut self.rest);
            return Poll::Ready(Some(Ok(Frame::data(self.next_chunk(rest)))));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let Some(Ok(frame)) = frame else { return Poll::Ready(frame) };
        let frame = match frame.into_data() {
            Ok(bytes) if bytes.len() > MAX_CHUNK_BYTES || self.memory.is_some() => {
                // A frame that is the whole body is counted by itself; the pieces of any other body are counted with the
                // body.
                let is_whole = self.body.is_end_stream();
                let bytes = match self.memory.take_if(|_| is_whole) {
                    Some(memory) => Bytes::from_owner(CountedBytes { bytes, _memory: memory }),
                    None => bytes,
                };
                Frame::data(self.next_chunk(bytes))
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
        self.set_waiting(false);
        let frame = self.poll_next(context);
        if matches!(frame, Poll::Ready(Some(Ok(_)))) {
            self.set_waiting(true);
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
        self.set_waiting(false);
    }
}
