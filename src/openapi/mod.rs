//! The OpenAPI document, made of the definitions that run, and the page that shows it.

mod document;
mod operations;
#[cfg(feature = "docs")]
mod page;
mod parameters;
mod raw;
mod responses;
mod schemas;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use axum::routing::get;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG};
use http::{HeaderValue, StatusCode};
use serde_json::Value as Json;

use crate::engine::Catalog;
use crate::error::{Error, Fault};
use crate::http::{Context, DEFAULT_BASE, is_known, respond};
use crate::query::Parameters;

/// Where the document is.
pub(crate) const DOCUMENT: &str = "/openapi.json";
/// Where the page that shows it is, and its files.
pub(crate) const PAGE: [&str; 2] = ["/docs", "/docs/{file}"];

/// What the document says of the API as a whole.
#[derive(Debug)]
pub(crate) struct Info {
    pub(crate) title: String,
    pub(crate) version: String,
    pub(crate) description: Option<String>,
    /// Where clients find the API, where that is not where the document is.
    pub(crate) servers: Vec<String>,
    /// What every resource's path begins with.
    pub(crate) prefix: String,
    /// What the `type` of a problem begins with.
    pub(crate) problem_base: String,
    /// The schemes that a 401 asks for, in their order.
    pub(crate) schemes: Vec<&'static str>,
    /// Whether credentials are looked at, so that a bad one is refused even where none is needed.
    pub(crate) authenticates: bool,
}

/// The document, prepared once in each version.
#[derive(Debug)]
pub(crate) struct Document {
    title: String,
    problem_base: String,
    v31: Prepared,
    v32: Prepared,
}

/// A document's bytes and the tag that names them.
#[derive(Debug)]
struct Prepared {
    bytes: Bytes,
    tag: HeaderValue,
}

impl Prepared {
    fn of(document: &Json) -> Self {
        let bytes = Bytes::from(document.to_string());
        let tag = format!("\"{}\"", &blake3::hash(&bytes).to_hex()[..32]);
        Self { bytes, tag: HeaderValue::from_str(&tag).unwrap_or(HeaderValue::from_static("\"0\"")) }
    }
}

impl Document {
    pub(crate) fn of(catalog: &Catalog, info: &Info) -> Arc<Self> {
        Arc::new(Self {
            title: info.title.clone(),
            problem_base: info.problem_base.clone(),
            v31: Prepared::of(&document::of(catalog, info, document::Version::V31)),
            v32: Prepared::of(&document::of(catalog, info, document::Version::V32)),
        })
    }

    /// The version that a query string asks for.
    fn version(&self, query: Option<&str>) -> Result<&Prepared, Error> {
        let mut asked = None;
        let mut faults = Vec::new();
        for parameter in Parameters::of(query) {
            match parameter {
                Ok((name, _)) if name == "version" && asked.is_some() => {
                    faults.push(Fault::parameter("version", "repeated", "This can be given once only."));
                }
                Ok((name, value)) if name == "version" => match value.as_ref() {
                    "3.1" => asked = Some(&self.v31),
                    "3.2" => asked = Some(&self.v32),
                    _ => faults.push(Fault::parameter("version", "value", "Must be 3.1 or 3.2.")),
                },
                Ok((name, _)) => {
                    faults.push(Fault::parameter(name, "unknown", "There is only `version`."));
                }
                Err(fault) => faults.push(fault),
            }
        }
        let prepared = asked.unwrap_or(&self.v31);
        if faults.is_empty() { Ok(prepared) } else { Err(Error::invalid_query(faults)) }
    }

    fn answer(&self, request: &Request) -> Response {
        let prepared = self.version(request.uri().query());
        let outcome =
            prepared.and_then(|prepared| Ok((prepared, is_known(request.headers(), &prepared.tag)?)));
        let (prepared, known) = match outcome {
            Ok(outcome) => outcome,
            Err(error) => {
                let context = Context::carried_by(request);
                return respond(&error, &self.problem_base, request.uri().path(), &context);
            }
        };
        let mut response = if known {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response
        } else {
            Response::new(Body::from(prepared.bytes.clone()))
        };
        let headers = response.headers_mut();
        if !known {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        headers.insert(ETAG, prepared.tag.clone());
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        response
    }
}

/// `/openapi.json`, and the page at `/docs` where it is wanted.
pub(crate) fn routes(document: Arc<Document>, docs: bool) -> Router {
    debug_assert!(DEFAULT_BASE.ends_with('/'), "a code is appended to the base");
    #[cfg(feature = "docs")]
    let page = if docs { page::routes(&document.title) } else { Router::new() };
    #[cfg(not(feature = "docs"))]
    let page = {
        let _ = docs;
        Router::new()
    };
    page.route(
        DOCUMENT,
        get(move |request: Request| {
            let document = document.clone();
            async move { document.answer(&request) }
        }),
    )
}
