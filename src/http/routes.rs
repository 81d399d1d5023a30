//! Routing: which resource a path belongs to.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::task;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use futures::future::BoxFuture;
use http::header::ALLOW;
use http::{HeaderValue, Method, StatusCode};
use http_body::Body as _;
use percent_encoding::percent_decode_str;
use tower::{Service, ServiceExt as _};

use super::endpoint::Path;
use super::handler::{ResourceHandler, Route};
use super::{AppState, Context, RequestParts, response};

/// The mark of a large response whose body is completely in memory, with its size in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BufferedBody {
    pub(crate) bytes: u64,
}

impl BufferedBody {
    /// The most bytes of a response that is not marked.
    pub(crate) const MAX_UNMARKED: u64 = 16 << 10;
}

/// The length of the body that GET would have, kept beside the response to HEAD.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GetBodyLength(pub(crate) u64);

/// The routes of every resource, and a router for all other paths.
///
/// A resource is found in one table and called directly; an axum router would box and clone a service for each layer of
/// each route.
#[derive(Clone)]
pub(crate) struct Routes(Arc<RouteTable>);

struct RouteTable {
    state: Arc<AppState>,
    paths: matchit::Router<Route>,
    fallback: Router,
}

impl Routes {
    pub(crate) fn new(state: &Arc<AppState>, prefix: &str, fallback: Router) -> Self {
        let mut paths = matchit::Router::new();
        for entry in state.engine.catalog.entries() {
            for path in Path::of(&entry.definition) {
                let handler = ResourceHandler { state: state.clone(), entry: entry.clone() };
                let template = path.template(prefix, &entry.definition);
                let inserted = paths.insert(template, Route::new(handler, path));
                // Names are unique and all paths are of one form, so no two of them conflict.
                debug_assert!(inserted.is_ok(), "{inserted:?}");
            }
        }
        Self(Arc::new(RouteTable { state: state.clone(), paths, fallback }))
    }

    pub(crate) async fn handle(&self, request: &mut RequestParts, context: &Context) -> Response {
        let mut response = match self.0.paths.at(request.parts.uri.path()) {
            Ok(found) => {
                // An id that is not UTF-8 names nothing.
                let decoded = |id| percent_decode_str(id).decode_utf8().unwrap_or("\0".into());
                let id = found.params.get("id").map(decoded);
                let mut body = std::mem::take(&mut request.body);
                let _permits = self.0.state.count_body(&mut request.parts.headers, &mut body);
                found.value.handle(id.as_deref(), &request.parts, body, context).await
            }
            Err(_) => {
                let mut response = Box::pin(call(self.0.fallback.clone(), request.take(), context)).await;
                complete_allow(&request.parts.method, &mut response);
                response
            }
        };
        let length = response.body().size_hint().exact();
        if request.parts.method == Method::HEAD
            && let Some(bytes) = length
        {
            response.extensions_mut().insert(GetBodyLength(bytes));
        }
        if let Some(bytes) = length.filter(|bytes| *bytes > BufferedBody::MAX_UNMARKED) {
            response.extensions_mut().insert(BufferedBody { bytes });
        }
        response
    }
}

/// Completes `Allow` for paths that belong to no resource, and answers OPTIONS with it.
fn complete_allow(method: &Method, response: &mut Response) {
    let Some(allow) = response.headers().get(ALLOW).and_then(|allow| allow.to_str().ok()) else { return };
    let mut methods: Vec<_> = allow.split(',').map(str::trim).chain(["OPTIONS"]).collect();
    methods.sort_unstable();
    methods.dedup();
    if let Ok(allow) = HeaderValue::from_str(&methods.join(", ")) {
        if method == Method::OPTIONS && response.status() == StatusCode::METHOD_NOT_ALLOWED {
            *response = response::empty(StatusCode::NO_CONTENT);
        }
        response.headers_mut().insert(ALLOW, allow);
    }
}

/// Has a service handle a request, which carries its context from here on.
pub(crate) async fn call(
    service: impl Service<Request, Response = Response, Error = Infallible>,
    mut request: Request,
    context: &Context,
) -> Response {
    request.extensions_mut().insert(context.clone());
    match service.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

impl Service<Request> for Routes {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> task::Poll<Result<(), Infallible>> {
        task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let routes = self.clone();
        Box::pin(async move {
            let context = Context::of_request(&request);
            Ok(routes.handle(&mut RequestParts::new(request), &context).await)
        })
    }
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routes").finish_non_exhaustive()
    }
}
