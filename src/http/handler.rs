//! Handlers of a resource: from a request to the engine and back.

use std::sync::Arc;

use axum::body::Body as HttpBody;
use axum::extract::OriginalUri;
use axum::response::Response;
use http::header::ALLOW;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, StatusCode};

use super::endpoint::Path;
use super::prefer::Prefer;
use super::read::conditional_response;
use super::response;
use super::response::{CacheHeaders, Url};
use super::{AppState, Body, Context, Endpoint, content_coding};
use crate::catalog::Entry;
use crate::error::{Error, ErrorKind};
use crate::query::{may_follow_relations, reject_parameters};
use crate::resource::Definition;

/// The handler of the requests for one resource.
#[derive(Clone, Debug)]
pub(super) struct ResourceHandler {
    pub(super) state: Arc<AppState>,
    pub(super) entry: Arc<Entry>,
}

/// A route: one path of a resource.
#[derive(Clone, Debug)]
pub(super) struct Route {
    handler: ResourceHandler,
    path: Path,
    /// Its methods, and the endpoint of each.
    endpoints: Vec<(Method, Endpoint)>,
}

impl Route {
    pub(super) fn new(handler: ResourceHandler, path: Path) -> Self {
        let all = Endpoint::of(&handler.entry.definition).filter(|endpoint| endpoint.path() == path);
        let endpoints = all.map(|endpoint| (endpoint.method(), endpoint)).collect();
        Self { handler, path, endpoints }
    }

    fn endpoint(&self, method: &Method) -> Option<Endpoint> {
        // HEAD is GET without the body (RFC 9110, 9.3.2).
        let method = if method == Method::HEAD { &Method::GET } else { method };
        self.endpoints.iter().find(|(own, _)| own == method).map(|(_, endpoint)| *endpoint)
    }

    pub(super) async fn handle(
        &self,
        id: Option<&str>,
        parts: &Parts,
        body: HttpBody,
        context: &Context,
    ) -> Response {
        let (handler, path) = (&self.handler, self.path);
        let endpoint = self.endpoint(&parts.method);
        let outcome = match endpoint {
            Some(endpoint) => handler.dispatch(endpoint, id.unwrap_or_default(), parts, body, context).await,
            None if parts.method == Method::OPTIONS => return options(&handler.entry.definition, path),
            None => Err(Error::new(
                ErrorKind::MethodNotAllowed,
                "method-not-allowed",
                format!("This path has {}.", path.allow(&handler.entry.definition)),
            )),
        };
        match outcome {
            Ok(response) => response,
            Err(error) => {
                let instance = original_uri(parts).path();
                let mut response = handler.state.error_response(&error, instance, context);
                if error.kind() == ErrorKind::MethodNotAllowed
                    && let Ok(allow) = HeaderValue::from_str(&path.allow(&handler.entry.definition))
                {
                    response.headers_mut().insert(ALLOW, allow);
                }
                with_accept(response, &error, endpoint.and_then(Endpoint::accept))
            }
        }
    }
}

impl ResourceHandler {
    async fn dispatch(
        &self,
        endpoint: Endpoint,
        id: &str,
        parts: &Parts,
        body: HttpBody,
        context: &Context,
    ) -> Result<Response, Error> {
        if endpoint == Endpoint::Stream {
            // Streams are authorized more than once.
            return Box::pin(self.stream(parts)).await;
        }
        let actor = self.state.actor(parts).await?;
        let headers = &parts.headers;
        let query = parts.uri.query();
        let has_filter = matches!(endpoint.body(), Body::Query | Body::BulkUpdate | Body::BulkDelete);
        let may_relate_rows = || has_filter || may_follow_relations(query);
        let related = !self.entry.links.is_empty() && may_relate_rows();
        let call = self.state.engine.call(&self.entry, &actor, endpoint.right(), related).await?;
        match endpoint {
            Endpoint::Read | Endpoint::List => self.read(&call, &actor, (endpoint, id), parts, None).await,
            Endpoint::History | Endpoint::Children => {
                let page = if endpoint == Endpoint::History {
                    Box::pin(call.history(id, query)).await?
                } else {
                    Box::pin(call.children(id, query, Prefer::of(headers).count)).await?
                };
                let path = self.state.public_path(parts);
                let url = Url { path: &path, query };
                conditional_response(response::page(page, self.cache_headers(), Some(url)), headers)
            }
            Endpoint::Subtree => conditional_response(
                response::unpaged_list(Box::pin(call.subtree(id, query)).await?, self.cache_headers()),
                headers,
            ),
            Endpoint::Query | Endpoint::QueryPost => {
                Box::pin(async {
                    reject_parameters(query)?;
                    let query_body = self.read_json(endpoint, parts, body).await?;
                    self.read(&call, &actor, (endpoint, id), parts, Some(query_body)).await
                })
                .await
            }
            _ => {
                let response =
                    Box::pin(self.write_idempotent(call, &actor, (endpoint, id), parts, body, context))
                        .await?;
                Ok(self.with_invalidation(response, endpoint, id, Prefer::of(headers).dry_run))
            }
        }
    }

    pub(super) fn cache_headers(&self) -> CacheHeaders<'_> {
        CacheHeaders { cache_control: &self.entry.definition.cache_control, vary: &self.state.vary }
    }
}

/// The URI as the client wrote it, whatever this router is nested under.
pub(crate) fn original_uri(parts: &Parts) -> &http::Uri {
    parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |original| &original.0)
}

/// The response to a body of an unsupported media type or coding, with the header that names the supported ones.
pub(super) fn with_accept(
    mut response: Response,
    error: &Error,
    media_types: Option<(HeaderName, HeaderValue)>,
) -> Response {
    if error.kind() == ErrorKind::UnsupportedMediaType {
        let is_coded = error.code() == content_coding::UNSUPPORTED_CODING;
        response.headers_mut().extend(if is_coded {
            Some(content_coding::ACCEPTED_CODINGS)
        } else {
            media_types
        });
    }
    response
}

fn options(definition: &Definition, path: Path) -> Response {
    let mut response = response::empty(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    if let Ok(allow) = HeaderValue::from_str(&path.allow(definition)) {
        headers.insert(ALLOW, allow);
    }
    for endpoint in Endpoint::of(definition).filter(|endpoint| endpoint.path() == path) {
        headers.extend(endpoint.accept());
    }
    response
}
