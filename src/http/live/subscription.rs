//! Subscription requests: what a caller subscribes to, authorized more than once while the subscription lasts.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::OriginalUri;
use futures::future::BoxFuture;
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderValue, Method};
use serde_json::Value as Json;
use tokio::sync::watch;

use crate::access::Operation;
use crate::access::{Actor, PublicOrigins, Revalidation};
use crate::catalog::Entry;
use crate::digest;
use crate::engine::{Engine, ListQuery};
use crate::error::{Error, ErrorKind};
use crate::http::app_state::AppState;
use crate::http::app_state::bad_credential;
use crate::http::request_context::Context;
use crate::http::request_head::Head;
use crate::live::SubscriberView;
use crate::live::{Scope, SubscriptionRequest, Wanted, Who};
use crate::nearest::suggest;
use crate::query::{Binding, may_relate};

use super::stream::EVENTS;

/// A long-lived subscriber, authenticated more than once.
pub(super) struct SubscribingCaller {
    pub(super) boundary: Arc<AppState>,
    head: Mutex<Head>,
    /// Incremented when the subscriber presents another credential, if it can.
    changed: Option<watch::Sender<u64>>,
}

impl SubscribingCaller {
    /// The sender of this request.
    pub(super) fn of(boundary: &Arc<AppState>, parts: &Parts) -> Self {
        let mut parts = parts.clone();
        parts.extensions.remove::<Context>();
        parts.extensions.remove::<OriginalUri>();
        parts.extensions.remove::<PublicOrigins>();
        if boundary.knows_anybody() {
            parts.extensions.insert(Revalidation::default());
        }
        Self { boundary: boundary.clone(), head: Mutex::new(Head::of(&parts)), changed: None }
    }

    /// The same, able to present another credential later. Over HTTP/2 a socket is opened by CONNECT (RFC 8441), which
    /// means what GET does.
    pub(super) fn changing(mut self) -> Self {
        let mut parts = self.parts();
        parts.method = Method::GET;
        *self.head() = Head::of(&parts);
        self.changed = Some(watch::Sender::new(0));
        self
    }

    fn head(&self) -> MutexGuard<'_, Head> {
        self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn parts(&self) -> Parts {
        self.head().parts()
    }

    /// A counter of presented credentials; it never changes if the subscriber cannot present another one.
    pub(super) fn changed(&self) -> watch::Receiver<u64> {
        self.changed.as_ref().map_or_else(|| watch::channel(0).1, watch::Sender::subscribe)
    }

    /// The actor, by a credential that is valid now.
    pub(super) async fn actor(&self) -> Result<Actor, Error> {
        let parts = self.parts();
        let actor = self.boundary.actor(&parts).await?;
        Revalidation::note(&parts);
        Ok(actor)
    }

    /// Replaces the credential from here on, if the new one is valid.
    pub(super) async fn show(&self, authorization: &str) -> Result<Actor, Error> {
        let mut parts = self.parts();
        let mut value = HeaderValue::from_str(authorization).map_err(|_| bad_credential())?;
        value.set_sensitive(true);
        // Earlier credentials no longer count.
        for shown in self.boundary.authenticators.iter().flat_map(|authenticator| authenticator.headers()) {
            parts.headers.remove(shown);
        }
        parts.headers.insert(AUTHORIZATION, value);
        parts.extensions.insert(Revalidation::default());
        let actor = self.boundary.actor(&parts).await?;
        if actor.is_anonymous() {
            return Err(bad_credential());
        }
        Revalidation::note(&parts);
        *self.head() = Head::of(&parts);
        if let Some(changed) = &self.changed {
            changed.send_modify(|count| *count += 1);
        }
        Ok(actor)
    }
}

/// A subscription to the changes of one resource.
pub(super) struct ResourceSubscription {
    pub(super) caller: Arc<SubscribingCaller>,
    pub(super) entry: Arc<Entry>,
    /// The query, if it is not in the query string of the request.
    pub(super) body: Option<Box<Json>>,
}

impl ResourceSubscription {
    async fn decided(&self) -> Result<Wanted, Error> {
        let (engine, actor) = (&self.caller.boundary.engine, self.caller.actor().await?);
        let parts = self.caller.parts();
        let query = parts.uri.query();
        let related = self.body.is_some() || may_relate(query);
        let call = engine.call(&self.entry, &actor, Operation::List, related).await?;
        let (window, binding) =
            call.asked_stream(self.body.as_deref().map_or(ListQuery::Url(query), ListQuery::Body))?;
        let databases = engine.outbox.database_of(&self.entry).into_iter().collect();
        let scope = Arc::new(Scope { binding, policy: window.policy, databases });
        Ok(Wanted { scope, windows: vec![window], types: Vec::new(), who: who(&actor) })
    }
}

impl SubscriptionRequest for ResourceSubscription {
    fn wanted(&self) -> BoxFuture<'_, Result<Wanted, Error>> {
        Box::pin(self.decided())
    }

    fn changed(&self) -> Option<watch::Receiver<u64>> {
        self.caller.changed.as_ref().map(watch::Sender::subscribe)
    }
}

/// A subscription to the changes of all resources.
pub(super) struct EventsSubscription {
    pub(super) caller: Arc<SubscribingCaller>,
    pub(super) types: Vec<String>,
}

impl EventsSubscription {
    async fn decided(&self) -> Result<Wanted, Error> {
        let (engine, actor) = (&self.caller.boundary.engine, self.caller.actor().await?);
        let (mut windows, mut databases, mut refused) = (Vec::new(), Vec::new(), None);
        for entry in engine.catalog.entries().iter().filter(|entry| entry.definition.streams()) {
            let Some(by_name) = self.asks_for(entry) else { continue };
            match SubscriberView::of(engine, entry, &actor).await {
                Ok(window) => {
                    windows.push(window);
                    databases.extend(engine.outbox.database_of(entry));
                }
                Err(error) if by_name => return Err(error),
                Err(error) if matches!(error.kind(), ErrorKind::Forbidden | ErrorKind::Unauthenticated) => {
                    refused = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        if let (true, Some(refused)) = (windows.is_empty(), refused) {
            return Err(refused);
        }
        databases.sort_unstable();
        databases.dedup();
        let scope = Arc::new(scope(&actor, &self.types, &windows, databases));
        Ok(Wanted { scope, windows, types: self.types.clone(), who: who(&actor) })
    }

    /// Whether events of a resource are requested; and if so, whether by its name.
    fn asks_for(&self, entry: &Entry) -> Option<bool> {
        let is_of = |pattern: &String| pattern.split('.').next() == Some(&*entry.name);
        if self.types.iter().any(is_of) {
            return Some(true);
        }
        (self.types.is_empty() || self.types.iter().any(|pattern| pattern == "*")).then_some(false)
    }
}

impl SubscriptionRequest for EventsSubscription {
    fn wanted(&self) -> BoxFuture<'_, Result<Wanted, Error>> {
        Box::pin(self.decided())
    }

    fn changed(&self) -> Option<watch::Receiver<u64>> {
        self.caller.changed.as_ref().map(watch::Sender::subscribe)
    }
}

fn scope(actor: &Actor, types: &[String], windows: &[SubscriberView], databases: Vec<usize>) -> Scope {
    let mut asked = digest::DigestInput::default();
    digest::text(&mut asked, EVENTS);
    for pattern in types {
        digest::text(&mut asked, pattern);
    }
    let mut decided = digest::DigestInput::default();
    for window in windows {
        window.digest(&mut decided);
    }
    let mut policy = [0; 16];
    policy.copy_from_slice(&decided.digest().as_bytes()[..16]);
    Scope { binding: Binding::of_stream(actor, &asked), policy, databases }
}

pub(super) fn who(actor: &Actor) -> Who {
    Who { tenant: actor.tenant().map(Arc::from), actor: actor.id().map(Arc::from) }
}

/// The requested types of events, each once and in order; or for each unknown one its index and the reason.
pub(super) fn types<'a>(
    engine: &Engine,
    patterns: impl Iterator<Item = &'a str>,
) -> Result<Vec<String>, Vec<(usize, String)>> {
    let streamed = || engine.catalog.entries().iter().filter(|entry| entry.definition.streams());
    let (mut types, mut unknown) = (Vec::new(), Vec::new());
    for (index, pattern) in patterns.enumerate() {
        let (resource, happened) = pattern.split_once('.').unwrap_or((pattern, ""));
        let entry = streamed().find(|entry| *entry.name == *resource);
        if pattern == "*" || entry.is_some_and(|entry| happened == "*" || entry.definition.happens(happened))
        {
            types.push(pattern.to_owned());
            continue;
        }
        let detail = format!("`{pattern}` is not a type of events here.");
        unknown.push((
            index,
            match entry {
                Some(entry) => suggest(detail, happened, entry.definition.happenings()),
                None => suggest(detail, resource, streamed().map(|entry| &*entry.name)),
            },
        ));
    }
    types.sort();
    types.dedup();
    if unknown.is_empty() { Ok(types) } else { Err(unknown) }
}
