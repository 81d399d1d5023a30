//! Entry point: every request and its response pass through these middleware stages.

use std::convert::Infallible;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Request};
use axum::response::{IntoResponse, Response};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::header::{
    ACCEPT_ENCODING, ACCESS_CONTROL_REQUEST_METHOD, CONNECTION, CONTENT_ENCODING, ETAG, HOST, ORIGIN, VARY,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{BodyExt as _, Collected};
use tokio::sync::watch;
use tower::util::BoxCloneSyncService;
use tower::{Layer as _, Service, ServiceExt};
use tower_http::compression::CompressionLayer;
use tower_http::cors::CorsLayer;

use super::buffered_body::mark_buffered;
use super::health;
use super::lifecycle::{Lifecycle, overloaded};
use crate::app::server::Connection;
use crate::app::server::try_reserve;
use crate::error::{Error, ErrorKind, Fault};
use crate::http::{
    AppState, CodedTags, Context, GetBodyLength, RequestParts, Routes, call, coded_tag, head, original_uri,
    respond,
};

/// The Tower service that handles every request of an application. Cloning is cheap.
#[derive(Clone)]
pub(super) struct AppService {
    stages: Arc<Stages>,
    /// The connection, where the application's own server accepted it.
    connection: Option<Arc<Connection>>,
}

/// The middleware stages of a request, in this order.
struct Stages {
    health: Router,
    lifecycle: Arc<Lifecycle>,
    /// For requests from a page of another origin; other requests skip it.
    cors: Option<Stage>,
    /// For requests that accept an encoding.
    compression: Option<Stage>,
    /// The application's own routes; other paths fall through to `routes`.
    merged: Option<Stage>,
    routes: Routes,
    state: Arc<AppState>,
}

/// A stage with all stages that follow it.
type Stage = BoxCloneSyncService<Request, Response, Infallible>;

impl AppService {
    pub(super) fn new(
        health: Router,
        lifecycle: Arc<Lifecycle>,
        cors: Option<CorsLayer>,
        compression: bool,
        merged: Option<Router>,
        routes: Routes,
        state: Arc<AppState>,
    ) -> Self {
        let merged =
            merged.map(|merged| Stage::new(ServiceExt::<Request>::map_response(merged, mark_buffered)));
        let last = merged.clone().unwrap_or_else(|| Stage::new(routes.clone()));
        let compression = compression.then(|| Stage::new(with_compression(last.clone())));
        let cors = cors.map(|cors| Stage::new(cors.layer(compression.clone().unwrap_or(last))));
        let stages = Arc::new(Stages { health, lifecycle, cors, compression, merged, routes, state });
        Self { stages, connection: None }
    }

    /// The same service for the requests of one connection.
    pub(super) fn for_connection(&self, connection: Arc<Connection>) -> Self {
        Self { stages: self.stages.clone(), connection: Some(connection) }
    }
}

impl AppService {
    /// Whether the application is draining, so that clients should connect elsewhere, as a channel to wait on.
    pub(super) fn draining(&self) -> watch::Receiver<bool> {
        self.stages.lifecycle.draining()
    }

    /// The response to a request head that could not be parsed, as the bytes of HTTP/1.1. The connection is closed after
    /// it.
    pub(super) fn malformed_response(&self, status: StatusCode) -> Vec<u8> {
        let (kind, code, detail) = match status {
            StatusCode::URI_TOO_LONG => (
                ErrorKind::UriTooLong,
                "uri-too-long",
                "Use `POST …/query`, whose body may be longer than a URI.",
            ),
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
                (ErrorKind::HeadersTooLarge, "headers-too-large", "Send fewer or shorter header fields.")
            }
            _ => (ErrorKind::BadRequest, "invalid-request", "The request head is not valid HTTP/1.1."),
        };
        let context = Context::of(&HeaderMap::new());
        let error = Error::new(kind, code, detail);
        let response = respond(&error, &self.stages.state.problem_base, "", &context);
        let (parts, body) = self.stages.lifecycle.set_common_headers(response, &context).into_parts();
        // The body is in memory as a whole.
        let body =
            body.collect().now_or_never().and_then(Result::ok).map(Collected::to_bytes).unwrap_or_default();
        let mut bytes = format!("HTTP/1.1 {status}\r\n").into_bytes();
        for (name, value) in &parts.headers {
            bytes.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
        }
        bytes.extend(format!("content-length: {}\r\nconnection: close\r\n\r\n", body.len()).into_bytes());
        bytes.extend(&body);
        bytes
    }
}

/// A stage whose responses are compressed for clients that accept it.
///
/// Where a client refuses every coding and identity too (`identity;q=0`, `*;q=0`), the layer sets the status to 406 after
/// the handler has run. By then the outcome has a status of its own, so that status is restored, and the response is sent
/// as it is: RFC 9110, 12.1, lets a server disregard a preference that it cannot meet.
///
/// An encoded response gets a strong ETag of its own, and a client that sends this ETag gets it in the response.
fn with_compression(
    stage: Stage,
) -> impl Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone {
    let stage = stage.map_response(|mut response: Response| {
        if let Some(GetBodyLength(bytes)) = response.extensions_mut().remove() {
            // An axum router in between has removed the body, whose length decides whether it is encoded.
            *response.body_mut() = Body::new(LengthOnlyBody(bytes));
        }
        let is_encoded = response.headers().contains_key(CONTENT_ENCODING);
        let outcome = OriginalStatus { status: response.status(), is_encoded };
        response.extensions_mut().insert(outcome);
        response
    });
    let stage = CompressionLayer::new().layer(stage);
    tower::service_fn(move |mut request: Request| {
        let stage = stage.clone();
        async move {
            let client_tags = CodedTags::strip_codings(request.headers_mut());
            let mut response = stage.oneshot(request).await?.into_response();
            if let Some(outcome) = response.extensions_mut().remove::<OriginalStatus>() {
                *response.status_mut() = outcome.status;
                set_etag(&mut response, client_tags, outcome.is_encoded);
            }
            Ok(response)
        }
    })
}

/// Sets the ETag of a response that may have been encoded; `known` are the ETags of encoded responses that the client
/// has.
fn set_etag(response: &mut Response, client_tags: Option<CodedTags>, was_encoded: bool) {
    let headers = response.headers();
    let Some(etag) = headers.get(ETAG) else { return };
    let tag = match headers.get(CONTENT_ENCODING) {
        Some(coding) if !was_encoded => coded_tag(etag, coding.as_bytes()),
        _ if response.status() == StatusCode::NOT_MODIFIED => {
            client_tags.and_then(|client_tags| client_tags.restore(etag).cloned())
        }
        _ => None,
    };
    if let Some(tag) = tag {
        response.headers_mut().insert(ETAG, tag);
    }
}

/// A body with this length that is never sent.
struct LengthOnlyBody(u64);

impl HttpBody for LengthOnlyBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(None)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0)
    }
}

/// A response's status and coding before any other stage changed it.
#[derive(Clone, Copy)]
struct OriginalStatus {
    status: StatusCode,
    /// Whether it had a content coding already.
    is_encoded: bool,
}

impl Stages {
    async fn handle(
        &self,
        request: &mut RequestParts,
        address: Option<IpAddr>,
        connection: Option<&Arc<Connection>>,
    ) -> Response {
        let is_http1 = request.parts.version < Version::HTTP_2;
        let context = Context::of(&request.parts.headers)
            .with_address(address)
            .with_deadline(self.lifecycle.response_due());
        if health::PATHS.contains(&request.parts.uri.path()) {
            let response = Box::pin(call(self.health.clone(), request.take(), &context)).await;
            return self.announce_close(is_http1, self.lifecycle.set_common_headers(response, &context));
        }
        let span = tracing::info_span!(
            "request",
            method = %request.parts.method,
            path = request.parts.uri.path(),
            request_id = context.request_id().to_str().unwrap_or_default(),
        );
        let is_over_limit = connection.is_some_and(|connection| connection.is_over_limit);
        let is_head = request.parts.method == Method::HEAD;
        let instance = original_uri(&request.parts).clone();
        let prepared = match is_over_limit {
            false => self.prepare(&mut request.parts, connection.is_some()),
            true => Err(overloaded()),
        };
        let outcome = match prepared {
            Ok(()) => self.lifecycle.run_guarded(&span, || self.dispatch(request, &context)).await,
            Err(error) => Err(error),
        };
        // Failures are logged in the span of this request.
        let refuse =
            |error| span.in_scope(|| respond(&error, &self.state.problem_base, instance.path(), &context));
        let mut response = outcome.unwrap_or_else(refuse);
        if is_head {
            response = head(response);
        }
        if let Some(connection) = connection
            && !try_reserve(connection, &mut response).await
            && is_safe(&request.parts.method)
        {
            response = refuse(overloaded());
        }
        let mut response = self.lifecycle.set_common_headers(response, &context);
        if is_over_limit {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response = self.announce_close(is_http1, response);
        if response.body().size_hint().exact().is_none() {
            // The connection keeps the headers for as long as the response goes on: a clone has no spare capacity.
            *response.headers_mut() = response.headers().clone();
        }
        response
    }

    /// Announces on every HTTP/1 connection that it will be closed, while the application shuts down (RFC 9112, 9.6).
    fn announce_close(&self, is_http1: bool, mut response: Response) -> Response {
        if is_http1 && self.lifecycle.is_draining() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// Sets `Host` to the request's host, and adds the application's own origins to a request with an `Origin`.
    ///
    /// # Errors
    /// Where a request on a connection of the application's own server names no host, or several.
    fn prepare(&self, parts: &mut Parts, is_served: bool) -> Result<(), Error> {
        if is_served {
            check_host(parts)?;
        }
        // HTTP/2 has the host in `:authority`, and an absolute URI replaces `Host` (RFC 9112, 3.2.2; RFC 9113, 8.3.1).
        if let Some(host) = parts.uri.authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok()) {
            parts.headers.insert(HOST, host);
        }
        let origins = &self.state.public_origins;
        if !origins.is_empty() && parts.headers.contains_key(ORIGIN) {
            parts.extensions.insert(origins.clone());
        }
        Ok(())
    }

    async fn dispatch(&self, request: &mut RequestParts, context: &Context) -> Response {
        let Parts { headers, method, .. } = &request.parts;
        // Any other OPTIONS request is handled by the resource.
        let is_cross_origin = headers.contains_key(ORIGIN)
            && (method != Method::OPTIONS || headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD));
        // Boxed, here and below, so that a request that passes none of them does not reserve space for them.
        if let (Some(cors), true) = (&self.cors, is_cross_origin) {
            return Box::pin(call(cors.clone(), request.take(), context)).await;
        }
        let mut response =
            if let (Some(compression), true) = (&self.compression, headers.contains_key(ACCEPT_ENCODING)) {
                Box::pin(call(compression.clone(), request.take(), context)).await
            } else if let Some(merged) = &self.merged {
                Box::pin(call(merged.clone(), request.take(), context)).await
            } else {
                self.routes.handle(request, context).await
            };
        if self.cors.is_some() && !self.varies_by_origin(response.headers()) {
            // A request from another origin would have got more headers.
            response.headers_mut().append(VARY, HeaderValue::from_static("origin"));
        }
        response
    }

    /// Whether a response's `Vary` names `Origin`.
    fn varies_by_origin(&self, headers: &HeaderMap) -> bool {
        // The `Vary` of resources names it among others.
        let names_origin = |value: &HeaderValue| {
            *value == self.state.vary || value.to_str().is_ok_and(|names| names.contains("origin"))
        };
        headers.get_all(VARY).iter().any(names_origin)
    }
}

/// # Errors
/// Where a request does not name exactly one host, as HTTP/1.1 and HTTP/2 require.
fn check_host(parts: &Parts) -> Result<(), Error> {
    let mut hosts = parts.headers.get_all(HOST).iter();
    let (first, is_single) = (hosts.next(), hosts.next().is_none());
    let is_plain = |host: &HeaderValue| !host.as_bytes().iter().any(|byte| b" ,/@?#\\".contains(byte));
    let is_named = match (first, parts.uri.authority()) {
        (None, None) => parts.version == Version::HTTP_10,
        (None, Some(_)) => parts.version >= Version::HTTP_2,
        (Some(host), Some(authority)) if parts.version >= Version::HTTP_2 => {
            host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes())
        }
        (Some(host), _) => is_plain(host),
    };
    if is_named && is_single {
        return Ok(());
    }
    let detail = "A request has exactly one Host (RFC 9112, 3.2).";
    let fault = Fault::header("Host", "required", detail);
    Err(Error::new(ErrorKind::BadRequest, "invalid-header", detail).with_faults(vec![fault]))
}

/// Whether a request is safe (RFC 9110, 9.2.1; RFC 10008 of QUERY), so that it can be refused after it was handled.
fn is_safe(method: &Method) -> bool {
    method.is_safe() || method.as_str() == "QUERY"
}

impl Service<Request> for AppService {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let stages = self.stages.clone();
        // An outer server may know the client's address, and provides it as axum does.
        let info = || request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
        let connection = self.connection.clone();
        let address = connection.as_ref().map(|connection| connection.peer).or_else(info);
        let mut request = RequestParts::new(request);
        Box::pin(async move { Ok(stages.handle(&mut request, address, connection.as_ref()).await) })
    }
}

impl fmt::Debug for AppService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Front").finish_non_exhaustive()
    }
}
