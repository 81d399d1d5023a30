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
use super::read::sent;
use super::response;
use super::response::{CacheHeaders, Url};
use super::{AppState, Body, Context, Endpoint, coding};
use crate::catalog::Entry;
use crate::error::{Error, ErrorKind};
use crate::query::{may_relate, no_parameters};
use crate::resource::Definition;

/// The handler of the requests for one resource.
#[derive(Clone, Debug)]
pub(super) struct ResourceHandler {
    pub(super) boundary: Arc<AppState>,
    pub(super) entry: Arc<Entry>,
}

/// A route: one path of a resource.
#[derive(Clone, Debug)]
pub(super) struct Route {
    door: ResourceHandler,
    path: Path,
    /// Its methods, and the endpoint of each.
    endpoints: Vec<(Method, Endpoint)>,
}

impl Route {
    pub(super) fn new(door: ResourceHandler, path: Path) -> Self {
        let all = Endpoint::of(&door.entry.definition).filter(|endpoint| endpoint.path() == path);
        let endpoints = all.map(|endpoint| (endpoint.method(), endpoint)).collect();
        Self { door, path, endpoints }
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
        let (door, path) = (&self.door, self.path);
        let endpoint = self.endpoint(&parts.method);
        let outcome = match endpoint {
            Some(endpoint) => door.run(endpoint, id.unwrap_or_default(), parts, body, context).await,
            None if parts.method == Method::OPTIONS => return options(&door.entry.definition, path),
            None => Err(Error::new(
                ErrorKind::MethodNotAllowed,
                "method-not-allowed",
                format!("This path has {}.", path.allow(&door.entry.definition)),
            )),
        };
        match outcome {
            Ok(response) => response,
            Err(error) => {
                let instance = original(parts).path();
                let mut response = door.boundary.refuse(&error, instance, context);
                if error.kind() == ErrorKind::MethodNotAllowed
                    && let Ok(allow) = HeaderValue::from_str(&path.allow(&door.entry.definition))
                {
                    response.headers_mut().insert(ALLOW, allow);
                }
                accepting(response, &error, endpoint.and_then(Endpoint::accept))
            }
        }
    }
}

impl ResourceHandler {
    async fn run(
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
        let actor = self.boundary.actor(parts).await?;
        let headers = &parts.headers;
        let query = parts.uri.query();
        let has_filter = matches!(endpoint.body(), Body::Query | Body::BulkUpdate | Body::BulkDelete);
        let asks = || has_filter || may_relate(query);
        let related = !self.entry.links.is_empty() && asks();
        let call = self.boundary.engine.call(&self.entry, &actor, endpoint.right(), related).await?;
        match endpoint {
            Endpoint::Read | Endpoint::List => self.read(&call, &actor, (endpoint, id), parts, None).await,
            Endpoint::History | Endpoint::Children => {
                let page = if endpoint == Endpoint::History {
                    Box::pin(call.history(id, query)).await?
                } else {
                    Box::pin(call.children(id, query, Prefer::of(headers).count)).await?
                };
                let path = self.boundary.public_path(parts);
                let url = Url { path: &path, query };
                sent(response::page(page, self.keeping(), Some(url)), headers)
            }
            Endpoint::Subtree => {
                sent(response::listing(Box::pin(call.subtree(id, query)).await?, self.keeping()), headers)
            }
            Endpoint::Query | Endpoint::QueryPost => {
                Box::pin(async {
                    no_parameters(query)?;
                    let asked = self.json(endpoint, parts, body).await?;
                    self.read(&call, &actor, (endpoint, id), parts, Some(asked)).await
                })
                .await
            }
            _ => {
                let response =
                    Box::pin(self.change(call, &actor, (endpoint, id), parts, body, context)).await?;
                Ok(self.fallen(response, endpoint, id, Prefer::of(headers).dry_run))
            }
        }
    }

    pub(super) fn keeping(&self) -> CacheHeaders<'_> {
        CacheHeaders {
            cache_control: &self.entry.definition.cache_control,
            depends_on: &self.boundary.depends_on,
        }
    }
}

/// The URI as the client wrote it, whatever this router is nested under.
pub(crate) fn original(parts: &Parts) -> &http::Uri {
    parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |original| &original.0)
}

/// The response to a body of an unsupported media type or coding, with the header that names the supported ones.
pub(super) fn accepting(
    mut response: Response,
    error: &Error,
    media_types: Option<(HeaderName, HeaderValue)>,
) -> Response {
    if error.kind() == ErrorKind::UnsupportedMediaType {
        let is_coded = error.code() == coding::UNSUPPORTED;
        response.headers_mut().extend(if is_coded { Some(coding::ACCEPTED) } else { media_types });
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
