//! The OpenAPI document, made of the definitions that run, and the page that shows it.

use std::sync::Arc;

use axum::Router;

use crate::engine::Catalog;

/// What the document says of the API as a whole.
#[derive(Debug)]
pub(crate) struct Info {
    pub(crate) title: String,
    pub(crate) version: String,
    pub(crate) description: Option<String>,
    /// What every resource's path begins with.
    pub(crate) prefix: String,
    /// What the `type` of a problem begins with.
    pub(crate) problem_base: String,
    /// The schemes of the authenticators, in their order.
    pub(crate) schemes: Vec<&'static str>,
}

/// The document, prepared once.
#[derive(Debug)]
pub(crate) struct Document {}

impl Document {
    pub(crate) fn of(_catalog: &Catalog, _info: &Info) -> Arc<Self> {
        Arc::new(Self {})
    }
}

/// `/openapi.json`, and the page at `/docs` where it is wanted.
pub(crate) fn routes(_document: Arc<Document>, _docs: bool) -> Router {
    Router::new()
}
