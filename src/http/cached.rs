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
use super::read::Reading;
use super::response;
use super::{Endpoint, REQUEST_ID, conditional, set_security_headers};
use crate::access::Actor;
use crate::cache::{
    CACHE_STATUS, CacheStatus, CachedResponse, Content, Lookup, Refreshing, ResponseCache, Sharing,
};
use crate::error::Error;
use crate::query::may_relate;

const X_CACHE: HeaderName = HeaderName::from_static("x-cache");
/// The timeout of a background revalidation.
const REFRESH: Duration = Duration::from_secs(30);

impl Reading<'_> {
    /// The cache, and the key of the response; `None` if the response is not cached.
    pub(super) fn lookup(&self) -> Option<(&Arc<ResponseCache>, Lookup)> {
        let cache = self.handler.boundary.answers.as_ref()?;
        // The links of a response begin with the path of the request.
        let path = self.has_links().then(|| self.handler.boundary.public_path(self.parts));
        Some((cache, self.prepared.lookup(path.as_deref())?))
    }

    /// The response through the cache; with the right to revalidate it where it is stale and no other request revalidates it.
    pub(super) async fn cached(
        &self,
        cache: &Arc<ResponseCache>,
        lookup: &Lookup,
    ) -> Result<(Response, Option<Refreshing>), Error> {
        let is_own = cache.is_deaf() || wants_new(&self.parts.headers);
        let found = if is_own { None } else { cache.find(lookup) };
        let (kept, status) = match found {
            Some(found) => found,
            // Boxed, so that the future of a cache hit does not contain that of a miss.
            None => Box::pin(self.made(cache, lookup, is_own, Sharing::Any)).await?,
        };
        let stale = if status == CacheStatus::Stale { cache.begin_refresh(&lookup.key) } else { None };
        let Content::Found { headers, tag, body } = &kept.content else { return Err(Error::not_found()) };
        let known = conditional::is_known(self.conditions(), tag)?;
        let headers = match status {
            CacheStatus::Hit | CacheStatus::Stale => kept.headers(),
            CacheStatus::Miss(_) | CacheStatus::Bypass => headers.clone(),
        };
        let mut response = response::read(known, headers, body.clone());
        tell(status, response.headers_mut());
        Ok((response, stale))
    }

    /// Obtains the response through the cache; `is_own` bypasses the look-up and always computes it.
    async fn made(
        &self,
        cache: &ResponseCache,
        lookup: &Lookup,
        is_own: bool,
        sharing: Sharing,
    ) -> Result<(Arc<CachedResponse>, CacheStatus), Error> {
        let sharing = if cache.shares() && self.prepared.may_share() { sharing } else { Sharing::No };
        let make = || -> BoxFuture<'_, _> { Box::pin(self.kept()) };
        let tags = self.prepared.tags();
        if is_own {
            let is_wanted = !says(&self.parts.headers, "no-store");
            cache.bypass(lookup, &tags, &make, is_wanted).await
        } else {
            cache.make(lookup, &tags, &make, sharing).await
        }
    }

    /// The response for the cache, every header in the place that it has each time it is sent, except those for its
    /// age.
    async fn kept(&self) -> Result<Content, Error> {
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
    pub(super) fn refresh(
        &self,
        refreshing: Refreshing,
        actor: &Actor,
        (endpoint, id): (Endpoint, &str),
        parts: &Parts,
        body: Option<Json>,
    ) {
        let (handler, actor, id, parts) = (self.clone(), actor.clone(), id.to_owned(), parts.clone());
        tokio::spawn(async move {
            let _refreshing = refreshing;
            let refreshed =
                tokio::time::timeout(REFRESH, handler.refreshed(&actor, endpoint, &id, &parts, body));
            match refreshed.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "a stale response could not be revalidated"),
                Err(_) => tracing::debug!("a stale response was not revalidated in time"),
            }
        });
    }

    async fn refreshed(
        &self,
        actor: &Actor,
        endpoint: Endpoint,
        id: &str,
        parts: &Parts,
        body: Option<Json>,
    ) -> Result<(), Error> {
        let related = body.is_some() || may_relate(parts.uri.query());
        let call = self.boundary.engine.call(&self.entry, actor, endpoint.right(), related).await?;
        let reading = self.prepare(&call, (endpoint, id), parts, body.as_ref())?;
        let Some((cache, lookup)) = reading.lookup() else { return Ok(()) };
        // A concurrent request may have refreshed it.
        if cache.is_fresh(&lookup) {
            return Ok(());
        }
        reading.made(cache, &lookup, false, Sharing::Fresh).await.map(drop)
    }
}

/// Whether the client requires a response that is computed for it (RFC 9111, 5.2.1).
fn wants_new(headers: &HeaderMap) -> bool {
    headers.contains_key(CACHE_CONTROL) && (says(headers, "no-cache") || says(headers, "no-store"))
}

fn says(headers: &HeaderMap, wanted: &str) -> bool {
    headers.get_all(CACHE_CONTROL).iter().any(|value| {
        let mut directives = value.to_str().unwrap_or_default().split(',');
        directives.any(|one| one.trim().eq_ignore_ascii_case(wanted))
    })
}

/// Sets the headers for how the response was obtained, unless they are there already.
fn tell(came: CacheStatus, headers: &mut HeaderMap) {
    let (word, status) = match came {
        CacheStatus::Hit => return,
        CacheStatus::Stale => ("STALE", None),
        CacheStatus::Miss(true) => ("MISS", Some("resourceful; fwd=miss; stored")),
        CacheStatus::Miss(false) => ("MISS", Some("resourceful; fwd=miss")),
        CacheStatus::Bypass => ("BYPASS", Some("resourceful; fwd=bypass")),
    };
    headers.insert(X_CACHE, HeaderValue::from_static(word));
    if let Some(status) = status {
        headers.insert(CACHE_STATUS, HeaderValue::from_static(status));
    }
}
