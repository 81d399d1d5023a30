//! The one way in: every request passes here on its way down, and every answer on its way back.

use std::convert::Infallible;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{self, Poll};

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use axum::response::{IntoResponse, Response};
use futures::future::BoxFuture;
use http::header::{ACCEPT_ENCODING, ACCESS_CONTROL_REQUEST_METHOD, CONNECTION, ORIGIN, VARY};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body::Body as _;
use tower::util::BoxCloneSyncService;
use tower::{Layer as _, Service, ServiceExt};
use tower_http::compression::CompressionLayer;
use tower_http::cors::CorsLayer;

use super::health;
use super::lifecycle::{Lifecycle, overloaded};
use super::server::{Connection, has_room};
use super::whole::marked;
use crate::http::{Boundary, Context, Incoming, Routes, call, respond};

/// A service that answers every request of an application. Cloning is cheap.
#[derive(Clone)]
pub(super) struct Front {
    stages: Arc<Stages>,
    /// The connection, where it is one of our own.
    connection: Option<Arc<Connection>>,
}

/// What a request passes, in this order.
struct Stages {
    health: Router,
    lifecycle: Arc<Lifecycle>,
    /// For requests from a page of another origin; the others do not pay for it.
    cors: Option<Stage>,
    /// For requests that accept an encoding.
    compression: Option<Stage>,
    /// Routes of the user's own; what they do not have goes on to `routes`.
    merged: Option<Stage>,
    routes: Routes,
    boundary: Arc<Boundary>,
}

/// A stage with all that come after it.
type Stage = BoxCloneSyncService<Request, Response, Infallible>;

impl Front {
    pub(super) fn new(
        health: Router,
        lifecycle: Arc<Lifecycle>,
        cors: Option<CorsLayer>,
        compression: bool,
        merged: Option<Router>,
        routes: Routes,
        boundary: Arc<Boundary>,
    ) -> Self {
        let merged = merged.map(|merged| Stage::new(ServiceExt::<Request>::map_response(merged, marked)));
        let last = merged.clone().unwrap_or_else(|| Stage::new(routes.clone()));
        let compression = compression.then(|| Stage::new(compressed(last.clone())));
        let cors = cors.map(|cors| Stage::new(cors.layer(compression.clone().unwrap_or(last))));
        let stages = Arc::new(Stages { health, lifecycle, cors, compression, merged, routes, boundary });
        Self { stages, connection: None }
    }

    /// The same for the requests of one connection.
    pub(super) fn for_connection(&self, connection: Arc<Connection>) -> Self {
        Self { stages: self.stages.clone(), connection: Some(connection) }
    }
}

/// A stage whose answers are compressed for clients that accept it.
///
/// Where a client refuses every coding and identity too (`identity;q=0`, `*;q=0`), the layer sets the status to 406 once
/// the handler has run. What happened has its own status by then, so that status is put back, and the answer is sent
/// as it is: RFC 9110, 12.1, lets a server disregard a preference that it cannot meet.
fn compressed(
    stage: Stage,
) -> impl Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone {
    let stage = stage.map_response(|mut response: Response| {
        let status = Answered(response.status());
        response.extensions_mut().insert(status);
        response
    });
    CompressionLayer::new().layer(stage).map_response(|response| {
        let mut response = response.into_response();
        if let Some(Answered(status)) = response.extensions_mut().remove() {
            *response.status_mut() = status;
        }
        response
    })
}

/// The status of an answer before anything else was done to it.
#[derive(Clone, Copy)]
struct Answered(StatusCode);

impl Stages {
    async fn answer(
        &self,
        incoming: &mut Incoming,
        address: Option<IpAddr>,
        connection: Option<&Arc<Connection>>,
    ) -> Response {
        let context = Context::of(&incoming.parts.headers).at_address(address).due(self.lifecycle.due());
        if health::PATHS.contains(&incoming.parts.uri.path()) {
            return Box::pin(call(self.health.clone(), incoming.take(), &context)).await;
        }
        let span = tracing::info_span!(
            "request",
            method = %incoming.parts.method,
            path = incoming.parts.uri.path(),
            request_id = context.request_id().to_str().unwrap_or_default(),
        );
        let is_beyond = connection.is_some_and(|connection| connection.is_beyond);
        let answered = match is_beyond {
            false => self.lifecycle.guard(&span, || self.pass(incoming, &context)).await,
            true => Err(overloaded()),
        };
        let path = incoming.parts.uri.path();
        // What is logged of a failure is of this request.
        let refuse = |error| span.in_scope(|| respond(&error, &self.boundary.problem_base, path, &context));
        let mut response = answered.unwrap_or_else(refuse);
        if let Some(connection) = connection
            && !has_room(connection, &mut response).await
            && is_safe(&incoming.parts.method)
        {
            response = refuse(overloaded());
        }
        let mut response = self.lifecycle.finish(response, &context);
        if is_beyond {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if response.body().size_hint().exact().is_none() {
            // The connection keeps them for as long as the answer goes on: a clone has no room to spare.
            *response.headers_mut() = response.headers().clone();
        }
        response
    }

    async fn pass(&self, incoming: &mut Incoming, context: &Context) -> Response {
        let Parts { headers, method, .. } = &incoming.parts;
        // Any other OPTIONS is the resource's to answer.
        let is_cross_origin = headers.contains_key(ORIGIN)
            && (method != Method::OPTIONS || headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD));
        // Boxed, here and below, so that a request which passes none of them does not carry the room that they take.
        if let (Some(cors), true) = (&self.cors, is_cross_origin) {
            return Box::pin(call(cors.clone(), incoming.take(), context)).await;
        }
        let mut response =
            if let (Some(compression), true) = (&self.compression, headers.contains_key(ACCEPT_ENCODING)) {
                Box::pin(call(compression.clone(), incoming.take(), context)).await
            } else if let Some(merged) = &self.merged {
                Box::pin(call(merged.clone(), incoming.take(), context)).await
            } else {
                self.routes.answer(incoming, context).await
            };
        if self.cors.is_some() && !self.says_origin(response.headers()) {
            // Another origin would have been answered with more.
            response.headers_mut().append(VARY, HeaderValue::from_static("origin"));
        }
        response
    }

    /// Whether an answer says that it depends on where the page came from.
    fn says_origin(&self, headers: &HeaderMap) -> bool {
        // What resources depend on has it among the others.
        let says = |value: &HeaderValue| {
            *value == self.boundary.depends_on || value.to_str().is_ok_and(|names| names.contains("origin"))
        };
        headers.get_all(VARY).iter().any(says)
    }
}

/// Whether nothing happens by a request (RFC 9110, 9.2.1; RFC 10008 of QUERY), so that it can be refused afterwards.
fn is_safe(method: &Method) -> bool {
    method.is_safe() || method.as_str() == "QUERY"
}

impl Service<Request> for Front {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let stages = self.stages.clone();
        // A server around us may know, where it says so as axum does.
        let info = || request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
        let connection = self.connection.clone();
        let address = connection.as_ref().map(|connection| connection.peer).or_else(info);
        let mut incoming = Incoming::new(request);
        Box::pin(async move { Ok(stages.answer(&mut incoming, address, connection.as_ref()).await) })
    }
}

impl fmt::Debug for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Front").finish_non_exhaustive()
    }
}
