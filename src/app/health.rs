//! Health checks: `/healthz` (the process is alive) and `/readyz` (it can serve). Neither is subject to the request
//! limit.

use std::future::ready as ready_now;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use futures::future::join_all;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};

use super::lifecycle::Lifecycle;
use crate::catalog::GuardedStorage;
use crate::error::Error;
use crate::http::{AppState, Context, respond};

/// How long a storage may take to report that it is ready.
const READY_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) const PATHS: [&str; 2] = ["/healthz", "/readyz"];

pub(super) fn routes(state: &Arc<AppState>, lifecycle: &Arc<Lifecycle>) -> Router {
    let (state, lifecycle) = (state.clone(), lifecycle.clone());
    let fallback_state = state.clone();
    Router::new()
        .route(PATHS[0], get(|| async { ok_response() }))
        .route(
            PATHS[1],
            get(move |request: Request| {
                let (state, lifecycle) = (state.clone(), lifecycle.clone());
                async move { ready(&state, &lifecycle, &Context::of_request(&request)).await }
            }),
        )
        .method_not_allowed_fallback(move |request: Request| {
            let context = Context::of_request(&request);
            let path = request.uri().path();
            ready_now(respond(&Error::method_not_allowed(), &fallback_state.problem_base, path, &context))
        })
}

fn ok_response() -> Response {
    ([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")], r#"{"status":"ok"}"#).into_response()
}

async fn ready(state: &AppState, lifecycle: &Lifecycle, context: &Context) -> Response {
    let refuse = |error: Error| respond(&error, &state.problem_base, PATHS[1], context);
    if lifecycle.is_draining() {
        return refuse(Error::unavailable());
    }
    let storages = storages(state);
    let checks = storages.iter().map(|storage| tokio::time::timeout(READY_TIMEOUT, storage.ready()));
    for outcome in join_all(checks).await {
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return refuse(Error::unavailable().with_source(error)),
            Err(elapsed) => return refuse(Error::unavailable().with_source(elapsed)),
        }
    }
    ok_response()
}

/// Every distinct storage.
fn storages(state: &AppState) -> Vec<GuardedStorage> {
    let mut storages: Vec<GuardedStorage> = Vec::new();
    for entry in state.engine.catalog.entries() {
        if !storages.iter().any(|known| known.is_same(&entry.storage)) {
            storages.push(entry.storage.clone());
        }
    }
    storages
}
