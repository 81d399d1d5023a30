//! The I/O of a connection, and whether it makes progress.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection::Connection;
use crate::app::middleware::AppService;

/// A stream that reports to its connection whether bytes move. It lives for as long as the TCP connection does, also
/// where that has become a WebSocket.
#[derive(Debug)]
pub(super) struct TrackedStream<S> {
    stream: S,
    connection: Arc<Connection>,
    is_blocked: bool,
    service: AppService,
    /// The problem that replaces an error response of the HTTP library, and how much of it is written.
    replacement: Option<(Vec<u8>, usize)>,
}

impl<S> TrackedStream<S> {
    pub(super) const fn new(stream: S, connection: Arc<Connection>, service: AppService) -> Self {
        Self { stream, connection, is_blocked: false, service, replacement: None }
    }

    /// Detects an error response that the HTTP library sends by itself, to a request head that it cannot parse.
    fn detect_error_response(&mut self, bytes: &[u8]) {
        if self.replacement.is_none()
            && bytes.starts_with(b"HTTP/1.1 4")
            && self.connection.is_awaiting_request()
            && let Some(status) = error_status(bytes)
        {
            self.replacement = Some((self.service.malformed_response(status), 0));
        }
    }

    fn track_write(&mut self, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if outcome.is_pending() != self.is_blocked {
            self.is_blocked = outcome.is_pending();
            self.connection.record_blocked(self.is_blocked);
        }
        outcome
    }
}

impl<S: AsyncWrite + Unpin> TrackedStream<S> {
    /// Writes the problem in place of an error response of this length.
    fn poll_replacement(&mut self, context: &mut Context<'_>, length: usize) -> Poll<io::Result<usize>> {
        while let Some((problem, written)) = &mut self.replacement {
            if *written == problem.len() {
                self.replacement = None;
                break;
            }
            let rest = &problem[*written..];
            match ready!(Pin::new(&mut self.stream).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => *written += count,
            }
        }
        Poll::Ready(Ok(length))
    }
}

/// The status of an error response that the HTTP library sends by itself: the application's own responses have an
/// `x-request-id` or a body.
fn error_status(bytes: &[u8]) -> Option<StatusCode> {
    let head = std::str::from_utf8(bytes).ok()?.strip_suffix("\r\n\r\n")?.to_ascii_lowercase();
    let is_empty = head.contains("\r\ncontent-length: 0") && head.contains("\r\nconnection: close");
    let status = head.get(9..12)?.parse().ok()?;
    (is_empty && !head.contains("x-request-id")).then_some(status)
}

impl<S: AsyncRead + Unpin> AsyncRead for TrackedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if buffer.filled().len() > before {
            self.connection.read();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TrackedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.detect_error_response(bytes);
        let outcome = match self.replacement {
            Some(_) => self.poll_replacement(context, bytes.len()),
            None => Pin::new(&mut self.stream).poll_write(context, bytes),
        };
        self.track_write(outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [bytes] = slices {
            self.detect_error_response(bytes);
        }
        let outcome = match self.replacement {
            Some(_) => self.poll_replacement(context, slices.iter().map(|slice| slice.len()).sum()),
            None => Pin::new(&mut self.stream).poll_write_vectored(context, slices),
        };
        self.track_write(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
