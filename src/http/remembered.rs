//! Reads whose answers may be remembered: looked for after the permission was decided, and sent as they are.

use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use futures::future::BoxFuture;
use http::header::{AGE, CACHE_CONTROL};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value as Json;

use super::answer::{self, Url};
use super::dispatch::{Door, original};
use super::prefer::Prefer;
use super::{Endpoint, REQUEST_ID, conditional, groups, inert};
use crate::access::Actor;
use crate::cache::{Answers, Came, Content, Kept, Lookup, Make, Refreshing, Tag};
use crate::engine::{Asked, AskedItem, Call};
use crate::error::Error;
use crate::query::{ListRequest, may_relate};

/// RFC 9211.
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const X_CACHE: HeaderName = HeaderName::from_static("x-cache");
static PRIVATE: HeaderValue = HeaderValue::from_static("private, no-cache");
/// How long an answer may take that nobody waits for.
const REFRESH: Duration = Duration::from_secs(30);

/// What is read.
enum Wanted {
    Item(AskedItem),
    List(ListRequest),
}

impl Wanted {
    /// What its answer is made of.
    fn tags(&self, call: &Call<'_>) -> Vec<Tag> {
        match self {
            Self::Item(asked) => call.item_tags(asked),
            Self::List(request) => call.list_tags(request),
        }
    }

    /// The other resources that its answer shows, or was asked for through.
    fn related(&self, call: &Call<'_>) -> Vec<Arc<str>> {
        match self {
            Self::Item(asked) => call.related_to_item(asked),
            Self::List(request) => call.related_to_list(request),
        }
    }
}

impl Door {
    /// Answers a read.
    pub(super) async fn read(
        &self,
        call: &Call<'_>,
        actor: &Actor,
        (endpoint, id): (Endpoint, &str),
        parts: &Parts,
        body: Option<Json>,
    ) -> Result<Response, Error> {
        let wanted = wanted(call, (endpoint, id), parts, body.as_ref())?;
        if let Wanted::List(request) = &wanted
            && self.tells_position(endpoint, request, &parts.headers)
        {
            let read = || -> BoxFuture<'_, _> { Box::pin(self.content(call, &wanted, endpoint, parts)) };
            return Box::pin(self.with_position(call, request, &parts.headers, &read)).await;
        }
        let unconditional = HeaderMap::new();
        // The twin is a POST, which is not conditional.
        let conditions = if endpoint == Endpoint::QueryTwin { &unconditional } else { &parts.headers };
        let found = self.boundary.answers.as_ref().zip(lookup(call, endpoint, &wanted, parts));
        let Some((answers, lookup)) = found else {
            let content = Box::pin(self.content(call, &wanted, endpoint, parts)).await?;
            return sent(content, conditions);
        };
        let wants_new = answers.is_deaf() || wants_new(&parts.headers);
        let (kept, came) = match (!wants_new).then(|| answers.find(&lookup)).flatten() {
            Some((kept, came)) => {
                if came == Came::Stale
                    && let Some(refreshing) = answers.begin_refresh(lookup.key)
                {
                    self.refresh(refreshing, actor, (endpoint, id), parts, body);
                }
                (kept, came)
            }
            // Boxed, so that a hit does not carry the room that this takes.
            None => {
                let make = || -> BoxFuture<'_, _> { Box::pin(self.kept(call, &wanted, endpoint, parts)) };
                Box::pin(made(
                    answers,
                    &lookup,
                    &wanted.tags(call),
                    wants_new,
                    !says(&parts.headers, "no-store"),
                    &make,
                ))
                .await?
            }
        };
        let Content::Found { headers, tag, body } = &kept.content else { return Err(Error::not_found()) };
        let known = conditional::is_known(conditions, tag)?;
        let mut response = answer::read(known, headers.clone(), body.clone());
        tell(&kept, came, response.headers_mut());
        Ok(response)
    }

    /// Makes a new answer that nobody waits for, for the same caller, who may have lost the right to it meanwhile.
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
                Ok(Err(error)) => tracing::debug!(%error, "a remembered answer could not be made anew"),
                Err(_) => tracing::debug!("a remembered answer could not be made anew in time"),
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
        let wanted = wanted(&call, (endpoint, id), parts, body.as_ref())?;
        let found = self.boundary.answers.as_ref().zip(lookup(&call, endpoint, &wanted, parts));
        let Some((answers, lookup)) = found else { return Ok(()) };
        // Somebody who came between may have made it.
        if answers.is_fresh(&lookup) {
            return Ok(());
        }
        let make = || -> BoxFuture<'_, _> { Box::pin(self.kept(&call, &wanted, endpoint, parts)) };
        answers.make(&lookup, &wanted.tags(&call), &make).await.map(drop)
    }

    /// Reads what is wanted, with every header in its place that it will have each time it is sent.
    async fn kept(
        &self,
        call: &Call<'_>,
        wanted: &Wanted,
        endpoint: Endpoint,
        parts: &Parts,
    ) -> Result<Content, Error> {
        let mut content = self.content(call, wanted, endpoint, parts).await?;
        if let Content::Found { headers, .. } = &mut content {
            headers.insert(X_CACHE, HeaderValue::from_static("HIT"));
            headers.insert(CACHE_STATUS, HeaderValue::from_static("resourceful; hit"));
            headers.insert(AGE, 0.into());
            headers.insert(REQUEST_ID, HeaderValue::from_static(""));
            inert(headers);
        }
        Ok(content)
    }

    /// Reads what is wanted, as it is sent.
    async fn content(
        &self,
        call: &Call<'_>,
        wanted: &Wanted,
        endpoint: Endpoint,
        parts: &Parts,
    ) -> Result<Content, Error> {
        let related = wanted.related(call);
        let mut keeping = self.keeping();
        if !related.is_empty() && is_shared(keeping.cache_control) {
            // What it shows of others may differ from caller to caller.
            keeping.cache_control = &PRIVATE;
        }
        let (mut content, groups) = match wanted {
            Wanted::Item(asked) => (
                answer::item(call.read(asked).await?, keeping),
                groups::of_item(&self.entry, &asked.name(), &related),
            ),
            Wanted::List(request) => {
                let query = parts.uri.query();
                let url = (endpoint == Endpoint::List).then(|| Url { path: original(parts).path(), query });
                (
                    answer::page(call.list(request).await?, keeping, url),
                    groups::of_list(&self.entry, &related),
                )
            }
        };
        if let (Content::Found { headers, .. }, Some(groups)) = (&mut content, groups) {
            headers.insert(groups::GROUPS, groups);
        }
        Ok(content)
    }
}

/// Makes an answer for one who waits for it.
async fn made(
    answers: &Answers,
    lookup: &Lookup,
    tags: &[Tag],
    is_own: bool,
    is_wanted: bool,
    make: &Make<'_>,
) -> Result<(Arc<Kept>, Came), Error> {
    if is_own {
        answers.bypass(lookup, tags, make, is_wanted).await
    } else {
        answers.make(lookup, tags, make).await
    }
}

fn wanted(
    call: &Call<'_>,
    (endpoint, id): (Endpoint, &str),
    parts: &Parts,
    body: Option<&Json>,
) -> Result<Wanted, Error> {
    let query = parts.uri.query();
    if endpoint == Endpoint::Read {
        return Ok(Wanted::Item(call.asked_item(id, query)?));
    }
    let asked = body.map_or(Asked::Url(query), Asked::Body);
    Ok(Wanted::List(call.asked_list(asked, Prefer::of(&parts.headers).count)?))
}

fn lookup(call: &Call<'_>, endpoint: Endpoint, wanted: &Wanted, parts: &Parts) -> Option<Lookup> {
    match wanted {
        Wanted::Item(asked) => call.item_lookup(asked),
        Wanted::List(request) => {
            // Its links begin with the path by which it was asked for.
            let path = (endpoint == Endpoint::List).then(|| original(parts).path());
            call.list_lookup(request, path)
        }
    }
}

/// Whether caches between may give one caller's answer to another one (RFC 9111, 3.5).
fn is_shared(cache_control: &HeaderValue) -> bool {
    let directives = cache_control.to_str().unwrap_or_default();
    ["public", "s-maxage", "must-revalidate"].iter().any(|word| directives.contains(word))
}

/// Whether a client asks for an answer that is made for it (RFC 9111, 5.2.1).
fn wants_new(headers: &HeaderMap) -> bool {
    says(headers, "no-cache") || says(headers, "no-store")
}

fn says(headers: &HeaderMap, wanted: &str) -> bool {
    headers.get_all(CACHE_CONTROL).iter().any(|value| {
        let mut directives = value.to_str().unwrap_or_default().split(',');
        directives.any(|one| one.trim().eq_ignore_ascii_case(wanted))
    })
}

/// An answer; 304 where the client has it.
pub(super) fn sent(content: Content, conditions: &HeaderMap) -> Result<Response, Error> {
    match content {
        Content::Absent => Err(Error::not_found()),
        Content::Found { headers, tag, body } => {
            let known = conditional::is_known(conditions, &tag)?;
            Ok(answer::read(known, headers, body))
        }
    }
}

/// How an answer was come by.
fn tell(kept: &Arc<Kept>, came: Came, headers: &mut HeaderMap) {
    let (word, status) = match came {
        Came::Hit => ("HIT", None),
        Came::Stale => ("STALE", None),
        Came::Miss(true) => ("MISS", Some("resourceful; fwd=miss; stored")),
        Came::Miss(false) => ("MISS", Some("resourceful; fwd=miss")),
        Came::Bypass => ("BYPASS", Some("resourceful; fwd=bypass")),
    };
    if came != Came::Hit {
        headers.insert(X_CACHE, HeaderValue::from_static(word));
    }
    if let Some(status) = status {
        headers.insert(CACHE_STATUS, HeaderValue::from_static(status));
        headers.remove(AGE);
        return;
    }
    headers.insert(AGE, kept.age().as_secs().into());
    let mut status = String::with_capacity(48);
    status.push_str("resourceful; hit; ttl=");
    status.push_str(itoa::Buffer::new().format(kept.ttl()));
    if let Ok(status) = HeaderValue::try_from(status) {
        headers.insert(CACHE_STATUS, status);
    }
}
