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
use super::{Endpoint, conditional, groups};
use crate::access::Actor;
use crate::cache::{Came, Content, Kept, Lookup, Refreshing};
use crate::engine::{Asked, AskedItem, Call};
use crate::error::Error;
use crate::query::{ListRequest, may_relate};

/// RFC 9211.
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const X_CACHE: HeaderName = HeaderName::from_static("x-cache");
/// How long an answer may take that nobody waits for.
const REFRESH: Duration = Duration::from_secs(30);

/// What is read.
enum Wanted<'a> {
    Item(AskedItem, &'a str),
    List(ListRequest),
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
        let unconditional = HeaderMap::new();
        // The twin is a POST, which is not conditional.
        let conditions = if endpoint == Endpoint::QueryTwin { &unconditional } else { &parts.headers };
        let found = self.boundary.answers.as_ref().zip(lookup(call, endpoint, &wanted, parts));
        let Some((answers, lookup)) = found else {
            return sent(self.content(call, &wanted, endpoint, parts).await?, conditions);
        };
        let make = || -> BoxFuture<'_, _> { Box::pin(self.content(call, &wanted, endpoint, parts)) };
        let (kept, came) = if answers.is_deaf() || wants_new(&parts.headers) {
            answers.bypass(&lookup, &make).await?
        } else if let Some((kept, came)) = answers.find(&lookup) {
            if came == Came::Stale
                && let Some(refreshing) = answers.begin_refresh(lookup.key)
            {
                self.refresh(refreshing, actor, (endpoint, id), parts, body);
            }
            (kept, came)
        } else {
            answers.make(&lookup, &make).await?
        };
        let mut response = sent(kept.content.clone(), conditions)?;
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
        let make = || -> BoxFuture<'_, _> { Box::pin(self.content(&call, &wanted, endpoint, parts)) };
        answers.make(&lookup, &make).await.map(drop)
    }

    /// Reads what is wanted, as it is sent.
    async fn content(
        &self,
        call: &Call<'_>,
        wanted: &Wanted<'_>,
        endpoint: Endpoint,
        parts: &Parts,
    ) -> Result<Content, Error> {
        let keeping = self.keeping();
        let (mut content, groups) = match wanted {
            Wanted::Item(asked, id) => {
                (answer::item(call.read(asked).await?, keeping), groups::of_item(&self.entry, id))
            }
            Wanted::List(request) => {
                let query = parts.uri.query();
                let url = (endpoint == Endpoint::List).then(|| Url { path: original(parts).path(), query });
                (answer::page(call.list(request).await?, keeping, url), groups::of_list(&self.entry))
            }
        };
        if let (Content::Found { headers, .. }, Some(groups)) = (&mut content, groups) {
            headers.insert(groups::GROUPS, groups);
        }
        Ok(content)
    }
}

fn wanted<'a>(
    call: &Call<'_>,
    (endpoint, id): (Endpoint, &'a str),
    parts: &Parts,
    body: Option<&Json>,
) -> Result<Wanted<'a>, Error> {
    let query = parts.uri.query();
    if endpoint == Endpoint::Read {
        return Ok(Wanted::Item(call.asked_item(id, query)?, id));
    }
    let asked = body.map_or(Asked::Url(query), Asked::Body);
    Ok(Wanted::List(call.asked_list(asked, Prefer::of(&parts.headers).count)?))
}

fn lookup(call: &Call<'_>, endpoint: Endpoint, wanted: &Wanted<'_>, parts: &Parts) -> Option<Lookup> {
    match wanted {
        Wanted::Item(asked, _) => call.item_lookup(asked),
        Wanted::List(request) => {
            // Its links begin with the path by which it was asked for.
            let path = (endpoint == Endpoint::List).then(|| original(parts).path());
            call.list_lookup(request, path)
        }
    }
}

/// Whether a client asks for an answer that is made for it (RFC 9111, 5.2.1).
fn wants_new(headers: &HeaderMap) -> bool {
    headers.get_all(CACHE_CONTROL).iter().any(|value| {
        let directives = value.to_str().unwrap_or_default().split(',').map(str::trim);
        directives
            .into_iter()
            .any(|one| one.eq_ignore_ascii_case("no-cache") || one.eq_ignore_ascii_case("no-store"))
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
        Came::Hit => ("HIT", format!("resourceful; hit; ttl={}", kept.ttl())),
        Came::Stale => ("STALE", format!("resourceful; hit; ttl={}", kept.ttl())),
        Came::Miss(true) => ("MISS", "resourceful; fwd=miss; stored".to_owned()),
        Came::Miss(false) => ("MISS", "resourceful; fwd=miss".to_owned()),
        Came::Bypass => ("BYPASS", "resourceful; fwd=bypass".to_owned()),
    };
    headers.insert(X_CACHE, HeaderValue::from_static(word));
    if let Ok(status) = HeaderValue::from_str(&status) {
        headers.insert(CACHE_STATUS, status);
    }
    if matches!(came, Came::Hit | Came::Stale) {
        headers.insert(AGE, kept.age().as_secs().into());
    }
}
