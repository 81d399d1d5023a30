//! Reads through the response cache: looked up after authorization, and sent as they were cached.

use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use futures::future::BoxFuture;
use http::header::CACHE_CONTROL;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value as Json;

use super::handler::ResourceHandler;
use super::prefer::Prefer;
use super::response;
use super::response::Url;
use super::{Endpoint, REQUEST_ID, cache_groups, conditional, set_security_headers};
use crate::access::Actor;
use crate::cache::{
    CACHE_STATUS, CacheStatus, CachedResponse, Content, Lookup, Refreshing, ResponseCache, Sharing, Tag,
};
use crate::engine::{Call, ItemQuery, ListQuery};
use crate::error::Error;
use crate::query::{ListRequest, may_relate};

const X_CACHE: HeaderName = HeaderName::from_static("x-cache");
static PRIVATE: HeaderValue = HeaderValue::from_static("private, no-cache");
/// The timeout of a background revalidation.
const REFRESH: Duration = Duration::from_secs(30);

/// The item or list that is read.
enum Wanted {
    Item(ItemQuery),
    List(ListRequest, Prefer),
}

/// A read of one caller, who is authorized for it.
struct Reading<'a> {
    door: &'a ResourceHandler,
    call: &'a Call<'a>,
    endpoint: Endpoint,
    parts: &'a Parts,
    wanted: Wanted,
}

impl<'a> Reading<'a> {
    fn new(
        door: &'a ResourceHandler,
        call: &'a Call<'a>,
        (endpoint, id): (Endpoint, &str),
        parts: &'a Parts,
        body: Option<&Json>,
    ) -> Result<Self, Error> {
        let query = parts.uri.query();
        let wanted = if endpoint == Endpoint::Read {
            Wanted::Item(call.asked_item(id, query)?)
        } else {
            let asked = body.map_or(ListQuery::Url(query), ListQuery::Body);
            let prefer = Prefer::of(&parts.headers);
            Wanted::List(call.asked_list(asked, prefer.count)?, prefer)
        };
        Ok(Self { door, call, endpoint, parts, wanted })
    }

    /// The cache, and the key of the response; `None` if the response is not cached.
    fn lookup(&self) -> Option<(&'a Arc<ResponseCache>, Lookup)> {
        let lookup = match &self.wanted {
            Wanted::Item(asked) => self.call.item_lookup(asked),
            Wanted::List(request, _) => {
                // The response's links begin with the path of the request.
                let path = self.door.boundary.public_path(self.parts);
                self.call.list_lookup(request, (self.endpoint == Endpoint::List).then_some(&*path))
            }
        };
        self.door.boundary.answers.as_ref().zip(lookup)
    }

    /// The tags of the response.
    fn tags(&self) -> Vec<Tag> {
        match &self.wanted {
            Wanted::Item(asked) => self.call.item_tags(asked),
            Wanted::List(request, _) => self.call.list_tags(request),
        }
    }

    /// The other resources that the response shows, or was queried through.
    fn related(&self) -> Vec<Arc<str>> {
        match &self.wanted {
            Wanted::Item(asked) => self.call.related_to_item(asked),
            Wanted::List(request, _) => self.call.related_to_list(request),
        }
    }

    /// Obtains the response through the cache; `is_own` bypasses the look-up and always computes it.
    async fn made(
        &self,
        answers: &ResponseCache,
        lookup: &Lookup,
        is_own: bool,
        sharing: Sharing,
    ) -> Result<(Arc<CachedResponse>, CacheStatus), Error> {
        let may_share = answers.shares() && self.call.may_share(&self.related());
        let sharing = if may_share { sharing } else { Sharing::No };
        let make = || -> BoxFuture<'_, _> { Box::pin(self.kept()) };
        let tags = self.tags();
        if is_own {
            let is_wanted = !says(&self.parts.headers, "no-store");
            answers.bypass(lookup, &tags, &make, is_wanted).await
        } else {
            answers.make(lookup, &tags, &make, sharing).await
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

    /// The response as it is sent.
    async fn content(&self) -> Result<Content, Error> {
        let (call, entry, related) = (self.call, &self.door.entry, self.related());
        let mut keeping = self.door.keeping();
        if !related.is_empty() && is_shared(keeping.cache_control) {
            // What the response shows of other resources may differ from caller to caller.
            keeping.cache_control = &PRIVATE;
        }
        let (mut content, groups) = match &self.wanted {
            Wanted::Item(asked) => {
                let item = call.read(asked).await?;
                (response::item(item, keeping), cache_groups::of_item(entry, &asked.name(), &related))
            }
            Wanted::List(request, _) => {
                let path = self.door.boundary.public_path(self.parts);
                let url = Url { path: &path, query: self.parts.uri.query() };
                let page = call.list(request).await?;
                let url = (self.endpoint == Endpoint::List).then_some(url);
                (response::page(page, keeping, url), cache_groups::of_list(entry, &related))
            }
        };
        if let (Content::Found { headers, .. }, Some(groups)) = (&mut content, groups) {
            headers.insert(cache_groups::GROUPS, groups);
        }
        Ok(content)
    }
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
        let reading = Reading::new(self, call, (endpoint, id), parts, body.as_ref())?;
        if let Wanted::List(request, prefer) = &reading.wanted
            && self.tells_position(endpoint, request, prefer)
        {
            let read = || -> BoxFuture<'_, _> { Box::pin(reading.content()) };
            return Box::pin(self.with_position(call, request, &parts.headers, &read)).await;
        }
        let unconditional = HeaderMap::new();
        // This endpoint is a POST, which is not conditional.
        let conditions = if endpoint == Endpoint::QueryPost { &unconditional } else { &parts.headers };
        // Boxed, here and below, so that the future of a cache hit does not contain the futures of the other cases.
        let Some((answers, lookup)) = reading.lookup() else {
            return sent(Box::pin(reading.content()).await?, conditions);
        };
        let is_own = answers.is_deaf() || wants_new(&parts.headers);
        let found = if is_own { None } else { answers.find(&lookup) };
        let (kept, came) = match found {
            Some(found) => found,
            None => Box::pin(reading.made(answers, &lookup, is_own, Sharing::Any)).await?,
        };
        if came == CacheStatus::Stale
            && let Some(refreshing) = answers.begin_refresh(&lookup.key)
        {
            self.refresh(refreshing, actor, (endpoint, id), parts, body);
        }
        let Content::Found { headers, tag, body } = &kept.content else { return Err(Error::not_found()) };
        let known = conditional::is_known(conditions, tag)?;
        let headers = match came {
            CacheStatus::Hit | CacheStatus::Stale => kept.headers(),
            CacheStatus::Miss(_) | CacheStatus::Bypass => headers.clone(),
        };
        let mut response = response::read(known, headers, body.clone());
        tell(came, response.headers_mut());
        Ok(response)
    }

    /// Revalidates a cached response in the background, for the same caller, whose right to it may have been withdrawn
    /// meanwhile.
    fn refresh(
        &self,
        refreshing: Refreshing,
        actor: &Actor,
        (endpoint, id): (Endpoint, &str),
        parts: &Parts,
        body: Option<Json>,
    ) {
        let (door, actor, id, parts) = (self.clone(), actor.clone(), id.to_owned(), parts.clone());
        tokio::spawn(async move {
            let _refreshing = refreshing;
            let refreshed =
                tokio::time::timeout(REFRESH, door.refreshed(&actor, endpoint, &id, &parts, body));
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
        let reading = Reading::new(self, &call, (endpoint, id), parts, body.as_ref())?;
        let Some((answers, lookup)) = reading.lookup() else { return Ok(()) };
        // A concurrent request may have refreshed it.
        if answers.is_fresh(&lookup) {
            return Ok(());
        }
        reading.made(answers, &lookup, false, Sharing::Fresh).await.map(drop)
    }
}

/// Whether shared caches may give one caller's response to another caller (RFC 9111, 3.5).
fn is_shared(cache_control: &HeaderValue) -> bool {
    let directives = cache_control.to_str().unwrap_or_default();
    ["public", "s-maxage", "must-revalidate"].iter().any(|word| directives.contains(word))
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

/// The response; 304 if the client has it.
pub(super) fn sent(content: Content, conditions: &HeaderMap) -> Result<Response, Error> {
    match content {
        Content::Absent => Err(Error::not_found()),
        Content::Found { headers, tag, body } => {
            let known = conditional::is_known(conditions, &tag)?;
            Ok(response::read(known, headers, body))
        }
    }
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
