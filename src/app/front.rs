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
use http::header::{ACCEPT_ENCODING, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY};
use http::{HeaderValue, Method};
use tower::util::BoxCloneSyncService;
use tower::{Layer as _, Service, ServiceExt as _};
use tower_http::compression::CompressionLayer;
use tower_http::cors::CorsLayer;

use super::health;
use super::lifecycle::Lifecycle;
use crate::http::{Context, Routes, call};

/// A service that answers every request of an application. Cloning is cheap.
#[derive(Clone)]
pub(super) struct Front {
    stages: Arc<Stages>,
    /// Who is at the other end, where the connection is one of our own.
    address: Option<IpAddr>,
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
    merged: Option<Router>,
    routes: Routes,
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
    ) -> Self {
        let last = match merged.clone() {
            Some(merged) => Stage::new(merged),
            None => Stage::new(routes.clone()),
        };
        let compression = compression.then(|| {
            let compressed = CompressionLayer::new().layer(last.clone());
            Stage::new(compressed.map_response(IntoResponse::into_response))
        });
        let cors = cors.map(|cors| Stage::new(cors.layer(compression.clone().unwrap_or(last))));
        let stages = Arc::new(Stages { health, lifecycle, cors, compression, merged, routes });
        Self { stages, address: None }
    }

    /// The same for the requests of one connection.
    pub(super) fn for_connection(&self, address: IpAddr) -> Self {
        Self { stages: self.stages.clone(), address: Some(address) }
    }
}

impl Stages {
    async fn answer(&self, request: Request, address: Option<IpAddr>) -> Response {
        let context = Context::of(request.headers()).at_address(address);
        if health::PATHS.contains(&request.uri().path()) {
            return call(self.health.clone(), request, &context).await;
        }
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let pass = || self.pass(request, &context);
        self.lifecycle.guard(&method, uri.path(), &context, pass).await
    }

    async fn pass(&self, request: Request, context: &Context) -> Response {
        let headers = request.headers();
        // Any other OPTIONS is the resource's to answer.
        let is_cross_origin = headers.contains_key(ORIGIN)
            && (request.method() != Method::OPTIONS || headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD));
        if let (Some(cors), true) = (&self.cors, is_cross_origin) {
            return call(cors.clone(), request, context).await;
        }
        let mut response =
            if let (Some(compression), true) = (&self.compression, headers.contains_key(ACCEPT_ENCODING)) {
                call(compression.clone(), request, context).await
            } else if let Some(merged) = &self.merged {
                call(merged.clone(), request, context).await
            } else {
                self.routes.answer(request, context).await
            };
        let says_origin = |value: &HeaderValue| value.to_str().is_ok_and(|names| names.contains("origin"));
        if self.cors.is_some() && !response.headers().get_all(VARY).iter().any(says_origin) {
            // Another origin would have been answered with more.
            response.headers_mut().append(VARY, HeaderValue::from_static("origin"));
        }
        response
    }
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
        let address = self.address.or_else(info);
        Box::pin(async move { Ok(stages.answer(request, address).await) })
    }
}

impl fmt::Debug for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Front").finish_non_exhaustive()
    }
}
