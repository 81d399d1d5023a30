//! Cached reads: looked up after authorization, and sent as they were cached.

use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use futures::future::BoxFuture;
use http::header::CACHE_CONTROL;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value as Json;

use super::handler::ResourceHandler;
use super::read::ResourceRead;
use super::response;
use super::{Endpoint, REQUEST_ID, conditional, set_security_headers};
use crate::access::Actor;
use crate::cache::{
    CACHE_STATUS, CacheStatus, CachedResponse, Content, Lookup, ResponseCache, RevalidationPermit, Sharing,
};
use crate::error::Error;
use crate::query::may_follow_relations;

const X_CACHE: HeaderName = HeaderName::from_static("x-cache");
/// The timeout of a background revalidation.
const REVALIDATION_TIMEOUT: Duration = Duration::from_secs(30);

impl ResourceRead<'_> {
    /// The cache, and the key of the response; `None` if the response is not cached.
    pub(super) fn lookup(&self) -> Option<(&Arc<ResponseCache>, Lookup)> {
        let cache = self.handler.state.cache.as_ref()?;
        // The links of a response begin with the path of the request.
        let path = self.has_links().then(|| self.handler.state.public_path(self.parts));
        Some((cache, self.prepared.lookup(path.as_deref())?))
    }

    /// The response through the cache; with the right to revalidate it where it is stale and no other request revalidates it.
    pub(super) async fn cached(
        &self,
        cache: &Arc<ResponseCache>,
        lookup: &Lookup,
    ) -> Result<(Response, Option<RevalidationPermit>), Error> {
        let is_bypass = cache.is_disconnected() || should_bypass_cache(&self.parts.headers);
        let found = if is_bypass { None } else { cache.find(lookup) };
        let (stored, status) = match found {
            Some(found) => found,
            // Boxed, so that the future of a cache hit does not contain that of a miss.
            None => Box::pin(self.get_or_compute(cache, lookup, is_bypass, Sharing::Any)).await?,
        };
        let stale = if status == CacheStatus::Stale { cache.begin_revalidation(&lookup.key) } else { None };
        let Content::Found { headers, tag, body } = &stored.content else { return Err(Error::not_found()) };
        let is_not_modified = conditional::is_not_modified(self.conditional_headers(), tag)?;
        let headers = match status {
            CacheStatus::Hit | CacheStatus::Stale => stored.headers(),
            CacheStatus::Miss(_) | CacheStatus::Bypass => headers.clone(),
        };
        let mut response = response::read(is_not_modified, headers, body.clone());
        set_cache_status(status, response.headers_mut());
        Ok((response, stale))
    }

    /// Obtains the response through the cache; `is_own` bypasses the look-up and always computes it.
    async fn get_or_compute(
        &self,
        cache: &ResponseCache,
        lookup: &Lookup,
        is_bypass: bool,
        sharing: Sharing,
    ) -> Result<(Arc<CachedResponse>, CacheStatus), Error> {
        let sharing =
            if cache.has_shared_store() && self.prepared.can_share() { sharing } else { Sharing::No };
        let compute = || -> BoxFuture<'_, _> { Box::pin(self.cacheable_content()) };
        let tags = self.prepared.tags();
        if is_bypass {
            let should_store = !has_directive(&self.parts.headers, "no-store");
            cache.bypass(lookup, &tags, &compute, should_store).await
        } else {
            cache.get_or_compute(lookup, &tags, &compute, sharing).await
        }
    }

    /// The response for the cache, every header in the place that it has each time it is sent, except those for its
    /// age.
    async fn cacheable_content(&self) -> Result<Content, Error> {
        let mut content = self.content().await?;
        if let Content::Found { headers, .. } = &mut content {
            headers.insert(X_CACHE, HeaderValue::from_static("HIT"));
            headers.insert(REQUEST_ID, HeaderValue::from_static(""));
            set_security_headers(headers);
        }
        Ok(content)
    }
}

impl ResourceHandler {
    /// Revalidates a cached response in the background, for the same caller, whose right to it may have been withdrawn
    /// meanwhile.
    pub(super) fn spawn_revalidation(
        &self,
        refreshing: RevalidationPermit,
        actor: &Actor,
        (endpoint, id): (Endpoint, &str),
        parts: &Parts,
        body: Option<Json>,
    ) {
        let (handler, actor, id, parts) = (self.clone(), actor.clone(), id.to_owned(), parts.clone());
        tokio::spawn(async move {
            let _refreshing = refreshing;
            let revalidated = tokio::time::timeout(
                REVALIDATION_TIMEOUT,
                handler.revalidate(&actor, endpoint, &id, &parts, body),
            );
            match revalidated.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "a stale response could not be revalidated"),
                Err(_) => tracing::debug!("a stale response was not revalidated in time"),
            }
        });
    }

    async fn revalidate(
        &self,
        actor: &Actor,
        endpoint: Endpoint,
        id: &str,
        parts: &Parts,
        body: Option<Json>,
    ) -> Result<(), Error> {
        let related = body.is_some() || may_follow_relations(parts.uri.query());
        let call = self.state.engine.call(&self.entry, actor, endpoint.right(), related).await?;
        let reading = self.prepare(&call, (endpoint, id), parts, body.as_ref())?;
        let Some((cache, lookup)) = reading.lookup() else { return Ok(()) };
        // A concurrent request may have refreshed it.
        if cache.is_fresh(&lookup) {
            return Ok(());
        }
        reading.get_or_compute(cache, &lookup, false, Sharing::Fresh).await.map(drop)
    }
}

/// Whether the client requires a response that is computed for it (RFC 9111, 5.2.1).
fn should_bypass_cache(headers: &HeaderMap) -> bool {
    headers.contains_key(CACHE_CONTROL)
        && (has_directive(headers, "no-cache") || has_directive(headers, "no-store"))
}

fn has_directive(headers: &HeaderMap, directive: &str) -> bool {
    headers.get_all(CACHE_CONTROL).iter().any(|value| {
        let mut directives = value.to_str().unwrap_or_default().split(',');
        directives.any(|one| one.trim().eq_ignore_ascii_case(directive))
    })
}

/// Sets the headers for how the response was obtained, unless they are there already.
fn set_cache_status(cache_status: CacheStatus, headers: &mut HeaderMap) {
    let (x_cache, status) = match cache_status {
        CacheStatus::Hit => return,
        CacheStatus::Stale => ("STALE", None),
        CacheStatus::Miss(true) => ("MISS", Some("resourceful; fwd=miss; stored")),
        CacheStatus::Miss(false) => ("MISS", Some("resourceful; fwd=miss")),
        CacheStatus::Bypass => ("BYPASS", Some("resourceful; fwd=bypass")),
    };
    headers.insert(X_CACHE, HeaderValue::from_static(x_cache));
    if let Some(status) = status {
        headers.insert(CACHE_STATUS, HeaderValue::from_static(status));
    }
}
