//! The origin check of sockets: a browser lets every page open one, and sends its cookies along.

use std::convert::Infallible;
use std::future::{Ready, ready};

use axum::body::Body;
use axum::response::Response;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_ORIGIN, AUTHORIZATION, COOKIE, ORIGIN,
};
use http::request::Parts;
use http::{HeaderValue, Request};
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_http::cors::CorsLayer;

use crate::access::is_own_origin;

/// The origins whose pages may open a socket: the application's own, and those that CORS allows to read responses, with
/// credentials if the request has any.
#[derive(Clone, Debug)]
pub(crate) struct Origins(Option<CorsLayer>);

impl Origins {
    pub(crate) const fn new(cors: Option<CorsLayer>) -> Self {
        Self(cors)
    }

    /// Whether the page that sent this request may open a socket. A client that sends no origin is not a browser.
    pub(super) async fn is_allowed(&self, parts: &Parts) -> bool {
        let Some(origin) = parts.headers.get(ORIGIN) else { return true };
        origin.to_str().is_ok_and(|origin| is_own_origin(parts, origin))
            || self.is_cors_allowed(parts, origin).await
    }

    /// Applies the CORS rules themselves, as to an ordinary request.
    async fn is_cors_allowed(&self, parts: &Parts, origin: &HeaderValue) -> bool {
        let Some(cors) = &self.0 else { return false };
        let mut request = Request::new(Body::empty());
        request.headers_mut().clone_from(&parts.headers);
        *request.uri_mut() = parts.uri.clone();
        let Ok(response) = cors.layer(service_fn(empty_response)).oneshot(request).await;
        let header = |name| response.headers().get(name).map(HeaderValue::as_bytes);
        let allowed = header(ACCESS_CONTROL_ALLOW_ORIGIN);
        if parts.headers.contains_key(COOKIE) || parts.headers.contains_key(AUTHORIZATION) {
            // With a wildcard, no page may use the credentials that the browser holds (Fetch standard, 3.3.5).
            allowed == Some(origin.as_bytes()) && header(ACCESS_CONTROL_ALLOW_CREDENTIALS) == Some(b"true")
        } else {
            allowed == Some(origin.as_bytes()) || allowed == Some(b"*")
        }
    }
}

/// Any response: only the headers that CORS adds to it matter.
fn empty_response(_: Request<Body>) -> Ready<Result<Response, Infallible>> {
    ready(Ok(Response::new(Body::empty())))
}
