//! A request on its way through the middleware.

use std::mem;

use axum::body::Body;
use axum::extract::Request;
use http::request::Parts;

/// A request, passed by `&mut` until a service takes it: an async function that received it by value would store two
/// copies of it, and so would each of its callers.
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

    /// The whole request, for a service that needs it. Its method and path stay behind, for reports about the outcome.
    pub(crate) fn take(&mut self) -> Request {
        let (mut remaining, ()) = Request::new(()).into_parts();
        remaining.method.clone_from(&self.parts.method);
        remaining.uri.clone_from(&self.parts.uri);
        Request::from_parts(mem::replace(&mut self.parts, remaining), mem::take(&mut self.body))
    }
}
