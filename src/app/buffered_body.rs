//! Responses of the application's own routes: whether a body is in memory as a whole, or generated while it is sent.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::http::BufferedBody;

/// Marks a response whose body is in memory as a whole, so that its memory is counted. The size alone does not show this:
/// a file that is sent piece by piece has one as well.
pub(super) fn mark_buffered(mut response: Response) -> Response {
    let Some(bytes) = response.body().size_hint().exact().filter(|bytes| *bytes > BufferedBody::MAX_UNMARKED)
    else {
        return response;
    };
    if response.extensions().get::<BufferedBody>().is_some() {
        return response;
    }
    let mut body = std::mem::take(response.body_mut());
    // A body that has no data yet is polled again when it is sent.
    let polled = Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop()));
    let Poll::Ready(Some(first)) = polled else {
        *response.body_mut() = body;
        return response;
    };
    if first.as_ref().is_ok_and(|frame| frame.data_ref().is_some_and(|data| data.len() as u64 == bytes)) {
        response.extensions_mut().insert(BufferedBody { bytes });
    }
    *response.body_mut() = Body::new(PeekedBody { first: Some(first), bytes, rest: body });
    response
}

/// A body whose first frame has been taken.
struct PeekedBody {
    first: Option<Result<Frame<Bytes>, axum::Error>>,
    /// The size of the whole body.
    bytes: u64,
    rest: Body,
}

impl HttpBody for PeekedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(first)),
            None => Pin::new(&mut self.rest).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.first.is_some() { SizeHint::with_exact(self.bytes) } else { self.rest.size_hint() }
    }
}
