//! `/healthz`: the process is alive. `/readyz`: it can serve. Neither waits in line with requests.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use futures::future::join_all;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};

use super::lifecycle::Lifecycle;
use crate::engine::Vault;
use crate::error::Error;
use crate::http::{Boundary, Context, respond};

/// How long a storage may take to say that it is ready.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) const PATHS: [&str; 2] = ["/healthz", "/readyz"];

pub(super) fn routes(boundary: &Arc<Boundary>, lifecycle: &Arc<Lifecycle>) -> Router {
    let (boundary, lifecycle) = (boundary.clone(), lifecycle.clone());
    Router::new().route(PATHS[0], get(|| async { fine() })).route(
        PATHS[1],
        get(move || {
            let (boundary, lifecycle) = (boundary.clone(), lifecycle.clone());
            async move { ready(&boundary, &lifecycle).await }
        }),
    )
}

fn fine() -> Response {
    ([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")], r#"{"status":"ok"}"#).into_response()
}

async fn ready(boundary: &Boundary, lifecycle: &Lifecycle) -> Response {
    let refuse = |error: Error| {
        respond(&error, &boundary.problem_base, "/readyz", &Context::of(&http::HeaderMap::new()))
    };
    if lifecycle.is_draining() {
        return refuse(Error::unavailable());
    }
    let storages = storages(boundary);
    let checks = storages.iter().map(|storage| tokio::time::timeout(PATIENCE, storage.ready()));
    for outcome in join_all(checks).await {
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return refuse(Error::unavailable().with_source(error)),
            Err(late) => return refuse(Error::unavailable().with_source(late)),
        }
    }
    fine()
}

/// Every storage once.
fn storages(boundary: &Boundary) -> Vec<Vault> {
    let mut storages: Vec<Vault> = Vec::new();
    for entry in boundary.engine.catalog.entries() {
        if !storages.iter().any(|known| known.is(&entry.storage)) {
            storages.push(entry.storage.clone());
        }
    }
    storages
}
