//! The body of an answer on its way to the client.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;

use super::connection::{Connection, Request};

/// The largest piece that is handed on at once: what waits for a client is then held here, where it is counted.
const PIECE: usize = 64 << 10;
/// The most bytes of an answer that does not count.
const SMALL: usize = 16 << 10;

/// A body that is handed on in pieces, and counts for as long as any of it is held.
#[derive(Debug)]
pub(super) struct Answer {
    body: Body,
    /// What of a large frame is not handed on yet.
    rest: Bytes,
    held: Option<Arc<Held>>,
    _turn: Option<Arc<OwnedSemaphorePermit>>,
    /// Whether the peer was handed a frame and has not asked for the next one; followed on HTTP/2 only, where a client
    /// can stop a body without stopping the connection.
    waits: Option<bool>,
    request: Request,
}

/// Bytes of a large answer, for as long as they are in memory.
#[derive(Debug)]
pub(super) struct Held {
    connection: Arc<Connection>,
    bytes: usize,
    _room: OwnedSemaphorePermit,
}

impl Held {
    fn new(connection: Arc<Connection>, bytes: usize, room: OwnedSemaphorePermit) -> Self {
        connection.holds(bytes);
        Self { connection, bytes, _room: room }
    }
}

/// The size of a body that is sent in another coding, of which only the coded size is not known yet.
#[derive(Clone, Copy, Debug)]
pub(in crate::app) struct Weight(pub(in crate::app) u64);

/// Whether there is room for an answer. A large one counts from here on, until its last byte is taken; an answer without an
/// end, as that of a stream, has limits of its own.
pub(in crate::app) fn has_room(connection: &Arc<Connection>, response: &mut Response) -> bool {
    let weight = response.extensions().get::<Weight>().map(|weight| weight.0);
    let bytes = weight.or_else(|| response.body().size_hint().exact()).unwrap_or_default();
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    if bytes <= SMALL {
        return true;
    }
    let Some(room) = connection.registry.room_for(bytes) else { return false };
    response.extensions_mut().insert(Arc::new(Held::new(connection.clone(), bytes, room)));
    true
}

impl Drop for Held {
    fn drop(&mut self) {
        self.connection.releases(self.bytes);
    }
}

/// A frame that counts until the last piece of it is gone.
struct Counted {
    bytes: Bytes,
    _held: Arc<Held>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Answer {
    pub(super) fn new(
        body: Body,
        held: Option<Arc<Held>>,
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

    /// Follows whether the peer takes what it is handed.
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
                // A whole body goes on counting by itself; the pieces of another one count with it.
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

impl HttpBody for Answer {
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

impl Drop for Answer {
    fn drop(&mut self) {
        self.follow(false);
    }
}
