//! Writes: from the body of a request to the operation, and from its outcome to the response.

use axum::body::Body as HttpBody;
use axum::response::Response;
use http::StatusCode;
use http::header::CONTENT_RANGE;
use http::request::Parts;
use serde_json::Value as Json;

use super::endpoint::Path;
use super::handler::ResourceHandler;
use super::prefer::Prefer;
use super::{Context, Endpoint, body, cache_groups, conditional, response};
use crate::engine::{ActionResult, Call, PutResult};
use crate::error::{Error, ErrorKind, Fault};
use crate::query::reject_parameters;

impl ResourceHandler {
    /// Executes one write.
    pub(super) async fn write(
        &self,
        call: &Call<'_>,
        endpoint: Endpoint,
        id: &str,
        parts: &Parts,
        body: HttpBody,
        context: &Context,
    ) -> Result<Response, Error> {
        let headers = &parts.headers;
        if endpoint.path() == Path::Bulk {
            conditional::reject_if_match(
                headers,
                "A bulk change takes preconditions item by item: `if_match` in each.",
            )?;
            return Box::pin(self.bulk(call, endpoint, parts, body, context)).await;
        }
        reject_parameters(parts.uri.query())?;
        match endpoint {
            Endpoint::Create => {
                let json = self.read_json(endpoint, parts, body).await?;
                let (item, id) = call.create(json).await?;
                let location = response::location(&self.state.public_path(parts), &id);
                Ok(response::created(item, &location, &Prefer::of(headers)))
            }
            Endpoint::Update => {
                let expected = conditional::parse_if_match(headers)?;
                let patch = self.read_json(endpoint, parts, body).await?;
                let item = call.update(id, patch, expected.as_ref()).await?;
                Ok(response::changed(item, endpoint.success()))
            }
            Endpoint::Replace => self.put(call, id, parts, body).await,
            Endpoint::Action(action) => {
                if !endpoint.has_item() {
                    conditional::reject_if_match(
                        headers,
                        "This action has no single item, so there is no version to match.",
                    )?;
                }
                let expected = conditional::parse_if_match(headers)?;
                let limit = self.state.body_limit;
                let input = body::read_optional_json(endpoint.body(), headers, body, limit).await?;
                match call.act(action, id, input, expected.as_ref()).await? {
                    ActionResult::Item(item) => Ok(response::changed(item, endpoint.success())),
                    ActionResult::Output(output) => {
                        Ok(response::json_response(output.to_string(), endpoint.success()))
                    }
                }
            }
            _ => Ok(match call.delete(id, conditional::parse_if_match(headers)?.as_ref()).await? {
                Some(item) => response::changed(item, StatusCode::OK),
                None => response::empty(endpoint.success()),
            }),
        }
    }

    async fn put(&self, call: &Call<'_>, id: &str, parts: &Parts, body: HttpBody) -> Result<Response, Error> {
        if parts.headers.contains_key(CONTENT_RANGE) {
            // RFC 9110, 14.5: a part must not be taken for the whole.
            let detail = "PUT takes the whole item; PATCH changes parts of it.";
            let fault = Fault::header("Content-Range", "unknown", detail);
            return Err(Error::new(ErrorKind::BadRequest, "invalid-header", detail).with_faults(vec![fault]));
        }
        let expected = conditional::parse_if_match(&parts.headers)?;
        let create_only = conditional::is_create_only(&parts.headers)?;
        let json = self.read_json(Endpoint::Replace, parts, body).await?;
        Ok(match call.replace(id, json, expected.as_ref(), create_only).await? {
            PutResult::Changed(item) => response::changed(item, Endpoint::Replace.success()),
            PutResult::Created(item, id) => {
                let path = self.state.public_path(parts);
                let collection = response::parent(&path);
                response::created(item, &response::location(collection, &id), &Prefer::default())
            }
        })
    }

    pub(super) async fn read_json(
        &self,
        endpoint: Endpoint,
        parts: &Parts,
        body: HttpBody,
    ) -> Result<Json, Error> {
        body::read_json(endpoint.body(), &parts.headers, body, self.state.body_limit).await
    }

    /// Adds the header that tells caches what the change invalidates.
    pub(super) fn with_invalidation(
        &self,
        mut response: Response,
        endpoint: Endpoint,
        id: &str,
        is_dry_run: bool,
    ) -> Response {
        if response.status().is_success() && !is_dry_run {
            let id = (endpoint.has_item() && !id.is_empty()).then_some(id);
            let groups = cache_groups::invalidated_groups(&self.state.engine.catalog, &self.entry, id);
            cache_groups::set_invalidation(groups, response.headers_mut());
        }
        response
    }
}
