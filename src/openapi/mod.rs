//! The OpenAPI document, derived from the definitions that the application runs, and its documentation page.

mod batch;
mod bulk;
mod catalog_view;
mod components;
mod decimals;
mod document;
mod explain;
mod filters;
mod names;
mod operations;
#[cfg(feature = "docs")]
mod page;
mod parameters;
mod responses;
mod schemas;
mod streams;
mod version30;
mod walk;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use axum::routing::get;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, VARY};
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use serde_json::Value as Json;

use catalog_view::CatalogView;
use document::Version;

use crate::access::{Permission, SecurityScheme};
use crate::authz::permitted_operations;
use crate::error::{Error, Fault};
use crate::http::{AppState, Context, DEFAULT_BASE, is_not_modified};
use crate::query::read_parameters;

/// The path of the document.
pub(crate) const DOCUMENT_PATH: &str = "/openapi.json";
/// The paths of the documentation page and its files.
pub(crate) const DOCS_PATHS: [&str; 2] = ["/docs", "/docs/{file}"];

/// What the document states about the API as a whole.
#[derive(Debug)]
pub(crate) struct Info {
    pub(crate) title: String,
    pub(crate) version: String,
    pub(crate) description: Option<String>,
    /// The contact: a name and a URL.
    pub(crate) contact: Option<(String, String)>,
    /// The license: a name and a URL.
    pub(crate) license: Option<(String, String)>,
    /// The URLs of the API, if they differ from the document's host.
    pub(crate) servers: Vec<String>,
    /// The prefix of every resource's path.
    pub(crate) prefix: String,
    /// The security schemes: how clients send credentials.
    pub(crate) schemes: Vec<SecurityScheme>,
    /// Whether credentials are verified, so that an invalid one is refused even where none is required.
    pub(crate) has_authenticators: bool,
    /// Whether there is a stream of all changes.
    pub(crate) has_events: bool,
    /// Whether there is a socket.
    pub(crate) has_sockets: bool,
    /// The maximum number of operations in a batch, if there are batches.
    pub(crate) max_batch: Option<usize>,
    /// The permission to use `POST /_explain`.
    pub(crate) explain: Option<Permission>,
    /// Whether the document is made for each caller.
    pub(crate) is_per_caller: bool,
}

/// The OpenAPI document: prepared once in each version, or made for each caller.
#[derive(Debug)]
pub(crate) struct Document {
    state: Arc<AppState>,
    info: Info,
    /// The documents for all callers, if they do not differ by caller.
    prepared: Option<[PreparedDocument; 3]>,
}

/// A document's bytes and its entity tag.
#[derive(Debug)]
struct PreparedDocument {
    bytes: Bytes,
    etag: HeaderValue,
}

impl PreparedDocument {
    fn of(document: &Json) -> Self {
        let bytes = Bytes::from(document.to_string());
        let tag = format!("\"{}\"", &blake3::hash(&bytes).to_hex()[..32]);
        Self { bytes, etag: HeaderValue::from_str(&tag).unwrap_or(HeaderValue::from_static("\"0\"")) }
    }
}

impl Document {
    pub(crate) fn of(state: Arc<AppState>, info: Info) -> Arc<Self> {
        let everything = CatalogView::unrestricted(&state.engine.catalog);
        let prepared = |version| PreparedDocument::of(&document::of(&everything, &info, version));
        let prepared =
            (!info.is_per_caller).then(|| [Version::V30, Version::V31, Version::V32].map(prepared));
        Arc::new(Self { state, info, prepared })
    }

    /// The version that a query string selects.
    fn version(query: Option<&str>) -> Result<Version, Error> {
        let mut requested = None;
        let mut faults = Vec::new();
        for parameter in read_parameters(query, &mut faults) {
            let outcome = parameter.single().and_then(|value| match (parameter.name(), value) {
                ("version", "3.0") => Ok(Version::V30),
                ("version", "3.1") => Ok(Version::V31),
                ("version", "3.2") => Ok(Version::V32),
                ("version", _) => Err(Fault::parameter("version", "value", "Must be 3.0, 3.1 or 3.2.")),
                _ => Err(parameter.unknown_parameter(["version"])),
            });
            match outcome {
                Ok(version) => requested = Some(version),
                Err(fault) => faults.push(fault),
            }
        }
        if faults.is_empty() {
            Ok(requested.unwrap_or(Version::V31))
        } else {
            Err(Error::invalid_query(faults))
        }
    }

    async fn handle(&self, request: Request) -> Response {
        let context = Context::of_request(&request);
        let (parts, _) = request.into_parts();
        match self.respond(&parts).await {
            Ok(response) => response,
            Err(error) => self.state.error_response(&error, parts.uri.path(), &context),
        }
    }

    async fn respond(&self, parts: &Parts) -> Result<Response, Error> {
        let version = Self::version(parts.uri.query())?;
        let per_caller;
        let prepared = match &self.prepared {
            Some([v30, v31, v32]) => match version {
                Version::V30 => v30,
                Version::V31 => v31,
                Version::V32 => v32,
            },
            None => {
                let caller = self.state.actor(parts).await?;
                let permitted = permitted_operations(&self.state.engine.catalog, &caller).await;
                let can_explain = self.state.authorize_explain(&caller).await.is_ok();
                let view = CatalogView::of(&self.state.engine.catalog, permitted, can_explain);
                per_caller = PreparedDocument::of(&document::of(&view, &self.info, version));
                &per_caller
            }
        };
        let is_not_modified = is_not_modified(&parts.headers, &prepared.etag)?;
        let mut response = if is_not_modified {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response
        } else {
            Response::new(Body::from(prepared.bytes.clone()))
        };
        let headers = response.headers_mut();
        if !is_not_modified {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        headers.insert(ETAG, prepared.etag.clone());
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        if self.info.is_per_caller {
            headers.insert(VARY, self.state.vary.clone());
        }
        Ok(response)
    }
}

/// The routes of `/openapi.json`, and of the page at `/docs` if `docs` is set.
pub(crate) fn routes(document: Arc<Document>, docs: bool) -> Router {
    debug_assert!(DEFAULT_BASE.ends_with('/'), "a code is appended to the base");
    #[cfg(feature = "docs")]
    let page = if docs { page::routes(&document.info.title) } else { Router::new() };
    #[cfg(not(feature = "docs"))]
    let page = {
        let _ = docs;
        Router::new()
    };
    page.route(
        DOCUMENT_PATH,
        get(move |request: Request| {
            let document = document.clone();
            async move { document.handle(request).await }
        }),
    )
}
