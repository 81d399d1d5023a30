//! A request on its way down.

use std::mem;

use axum::body::Body;
use axum::extract::Request;
use http::request::Parts;

/// A request that is lent from hand to hand, until somebody takes it: an async function that is given one would keep
/// two places for it, and so would each one above.
#[derive(Debug)]
pub(crate) struct RequestParts {
    pub(crate) parts: Parts,
    pub(crate) body: Body,
}

impl RequestParts {
    pub(crate) fn new(request: Request) -> Self {
        let (parts, body) = request.into_parts();
        Self { parts, body }
    }

    /// The request, for a service that wants it whole. Its method and path stay, for who tells what became of it.
    pub(crate) fn take(&mut self) -> Request {
        let (mut left, ()) = Request::new(()).into_parts();
        left.method.clone_from(&self.parts.method);
        left.uri.clone_from(&self.parts.uri);
        Request::from_parts(mem::replace(&mut self.parts, left), mem::take(&mut self.body))
    }
}
