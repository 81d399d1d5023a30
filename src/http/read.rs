//! Reads of items and lists: prepared by the engine, answered from the cache or by the engine.

use axum::response::Response;
use futures::future::BoxFuture;
use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use serde_json::Value as Json;

use super::handler::ResourceHandler;
use super::prefer::Prefer;
use super::response;
use super::response::Url;
use super::{Endpoint, cache_groups, conditional};
use crate::access::Actor;
use crate::cache::Content;
use crate::engine::{Call, ListQuery, PreparedRead, ReadResult};
use crate::error::Error;

static PRIVATE_NO_CACHE: HeaderValue = HeaderValue::from_static("private, no-cache");

/// A read of one caller, who is authorized for it.
pub(super) struct ResourceRead<'a> {
    pub(super) handler: &'a ResourceHandler,
    pub(super) parts: &'a Parts,
    pub(super) prepared: PreparedRead<'a>,
    endpoint: Endpoint,
    /// Whether the response is to contain a stream position.
    has_position: bool,
}

impl ResourceHandler {
    /// Handles a read.
    pub(super) async fn read(
        &self,
        call: &Call<'_>,
        actor: &Actor,
        (endpoint, id): (Endpoint, &str),
        parts: &Parts,
        body: Option<Json>,
    ) -> Result<Response, Error> {
        let resource_read = self.prepare(call, (endpoint, id), parts, body.as_ref())?;
        if let Some(request) = resource_read.prepared.list()
            && resource_read.has_position
        {
            let read = || -> BoxFuture<'_, _> { Box::pin(resource_read.content()) };
            return Box::pin(self.list_with_position(call, request, &parts.headers, &read)).await;
        }
        // Boxed, so that the future of a cache hit does not contain that of the read.
        let Some((cache, lookup)) = resource_read.lookup() else {
            return conditional_response(
                Box::pin(resource_read.content()).await?,
                resource_read.conditional_headers(),
            );
        };
        let (response, stale) = resource_read.cached(cache, &lookup).await?;
        if let Some(refreshing) = stale {
            self.spawn_revalidation(refreshing, actor, (endpoint, id), parts, body);
        }
        Ok(response)
    }

    /// Prepares a read.
    pub(super) fn prepare<'a>(
        &'a self,
        call: &'a Call<'a>,
        (endpoint, id): (Endpoint, &str),
        parts: &'a Parts,
        body: Option<&Json>,
    ) -> Result<ResourceRead<'a>, Error> {
        let query = parts.uri.query();
        if endpoint == Endpoint::Read {
            let prepared = call.prepare_item(id, query)?;
            return Ok(ResourceRead { handler: self, parts, prepared, endpoint, has_position: false });
        }
        let prefer = Prefer::of(&parts.headers);
        let list_query = body.map_or(ListQuery::Url(query), ListQuery::Body);
        let prepared = call.prepare_list(list_query, prefer.count)?;
        let has_position = prefer.stream_position
            && endpoint == Endpoint::List
            && prepared.list().is_some_and(|request| self.can_resume_from(request));
        Ok(ResourceRead { handler: self, parts, prepared, endpoint, has_position })
    }
}

impl ResourceRead<'_> {
    /// The headers with the conditions of the request.
    pub(super) fn conditional_headers(&self) -> &HeaderMap {
        static NONE: std::sync::LazyLock<HeaderMap> = std::sync::LazyLock::new(HeaderMap::new);
        // This endpoint is a POST, which is not conditional.
        if self.endpoint == Endpoint::QueryPost { &NONE } else { &self.parts.headers }
    }

    /// Whether the response has links to its neighbouring pages.
    pub(super) fn has_links(&self) -> bool {
        self.endpoint == Endpoint::List
    }

    /// The response.
    pub(super) async fn content(&self) -> Result<Content, Error> {
        let (entry, related) = (&self.handler.entry, self.prepared.related());
        let mut cache_headers = self.handler.cache_headers();
        if !related.is_empty() && is_shared(cache_headers.cache_control) {
            // What the response shows of other resources may differ from caller to caller.
            cache_headers.cache_control = &PRIVATE_NO_CACHE;
        }
        let (mut content, groups) = match self.prepared.run().await? {
            ReadResult::Item(item, id) => {
                (response::item(item, cache_headers), cache_groups::item_groups(entry, &id, &related))
            }
            ReadResult::Page(page) => {
                let path = self.handler.state.public_path(self.parts);
                let url = Url { path: &path, query: self.parts.uri.query() };
                let url = self.has_links().then_some(url);
                (response::page(page, cache_headers, url), cache_groups::list_groups(entry, &related))
            }
        };
        if let (Content::Found { headers, .. }, Some(groups)) = (&mut content, groups) {
            headers.insert(cache_groups::GROUPS, groups);
        }
        Ok(content)
    }
}

/// Whether shared caches may give one caller's response to another caller (RFC 9111, 3.5).
fn is_shared(cache_control: &HeaderValue) -> bool {
    let directives = cache_control.to_str().unwrap_or_default();
    ["public", "s-maxage", "must-revalidate"].iter().any(|word| directives.contains(word))
}

/// The response; 304 if the client has it.
pub(super) fn conditional_response(
    content: Content,
    conditional_headers: &HeaderMap,
) -> Result<Response, Error> {
    match content {
        Content::Absent => Err(Error::not_found()),
        Content::Found { headers, tag, body } => {
            let is_not_modified = conditional::is_not_modified(conditional_headers, &tag)?;
            Ok(response::read(is_not_modified, headers, body))
        }
    }
}
