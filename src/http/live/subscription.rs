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
use crate::http::app_state::invalid_credentials;
use crate::http::request_context::Context;
use crate::http::request_head::CompactHead;
use crate::live::SubscriberView;
use crate::live::{StreamScope, SubscriberIdentity, SubscriptionRequest, SubscriptionSpec};
use crate::nearest::suggest;
use crate::query::{Binding, may_follow_relations};

use super::stream::EVENTS_PATH;

/// A long-lived subscriber, authenticated more than once.
pub(super) struct SubscribingCaller {
    pub(super) state: Arc<AppState>,
    head: Mutex<CompactHead>,
    /// Incremented when the subscriber presents another credential, if it can.
    credential_changes: Option<watch::Sender<u64>>,
}

impl SubscribingCaller {
    /// The sender of this request.
    pub(super) fn of(state: &Arc<AppState>, parts: &Parts) -> Self {
        let mut parts = parts.clone();
        parts.extensions.remove::<Context>();
        parts.extensions.remove::<OriginalUri>();
        parts.extensions.remove::<PublicOrigins>();
        if state.can_authenticate() {
            parts.extensions.insert(Revalidation::default());
        }
        Self { state: state.clone(), head: Mutex::new(CompactHead::of(&parts)), credential_changes: None }
    }

    /// The same, able to present another credential later. Over HTTP/2 a socket is opened by CONNECT (RFC 8441), which
    /// means what GET does.
    pub(super) fn allow_reauthentication(mut self) -> Self {
        let mut parts = self.parts();
        parts.method = Method::GET;
        *self.head() = CompactHead::of(&parts);
        self.credential_changes = Some(watch::Sender::new(0));
        self
    }

    fn head(&self) -> MutexGuard<'_, CompactHead> {
        self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn parts(&self) -> Parts {
        self.head().parts()
    }

    /// A counter of presented credentials; it never changes if the subscriber cannot present another one.
    pub(super) fn changed(&self) -> watch::Receiver<u64> {
        self.credential_changes.as_ref().map_or_else(|| watch::channel(0).1, watch::Sender::subscribe)
    }

    /// The actor, by a credential that is valid now.
    pub(super) async fn actor(&self) -> Result<Actor, Error> {
        let parts = self.parts();
        let actor = self.state.actor(&parts).await?;
        Revalidation::mark(&parts);
        Ok(actor)
    }

    /// Replaces the credential from here on, if the new one is valid.
    pub(super) async fn reauthenticate(&self, authorization: &str) -> Result<Actor, Error> {
        let mut parts = self.parts();
        let mut value = HeaderValue::from_str(authorization).map_err(|_| invalid_credentials())?;
        value.set_sensitive(true);
        // Earlier credentials no longer count.
        for header in self.state.authenticators.iter().flat_map(|authenticator| authenticator.headers()) {
            parts.headers.remove(header);
        }
        parts.headers.insert(AUTHORIZATION, value);
        parts.extensions.insert(Revalidation::default());
        let actor = self.state.actor(&parts).await?;
        if actor.is_anonymous() {
            return Err(invalid_credentials());
        }
        Revalidation::mark(&parts);
        *self.head() = CompactHead::of(&parts);
        if let Some(changed) = &self.credential_changes {
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
    async fn authorize_caller(&self) -> Result<SubscriptionSpec, Error> {
        let (engine, actor) = (&self.caller.state.engine, self.caller.actor().await?);
        let parts = self.caller.parts();
        let query = parts.uri.query();
        let related = self.body.is_some() || may_follow_relations(query);
        let call = engine.call(&self.entry, &actor, Operation::List, related).await?;
        let (view, binding) =
            call.parse_stream(self.body.as_deref().map_or(ListQuery::Url(query), ListQuery::Body))?;
        let databases = engine.outbox.database_of(&self.entry).into_iter().collect();
        let scope = Arc::new(StreamScope { binding, policy: view.policy, databases });
        Ok(SubscriptionSpec {
            scope,
            views: vec![view],
            types: Vec::new(),
            identity: subscriber_identity(&actor),
        })
    }
}

impl SubscriptionRequest for ResourceSubscription {
    fn authorize(&self) -> BoxFuture<'_, Result<SubscriptionSpec, Error>> {
        Box::pin(self.authorize_caller())
    }

    fn changed(&self) -> Option<watch::Receiver<u64>> {
        self.caller.credential_changes.as_ref().map(watch::Sender::subscribe)
    }
}

/// A subscription to the changes of all resources.
pub(super) struct EventsSubscription {
    pub(super) caller: Arc<SubscribingCaller>,
    pub(super) types: Vec<String>,
}

impl EventsSubscription {
    async fn authorize_caller(&self) -> Result<SubscriptionSpec, Error> {
        let (engine, actor) = (&self.caller.state.engine, self.caller.actor().await?);
        let (mut views, mut databases, mut denied) = (Vec::new(), Vec::new(), None);
        for entry in engine.catalog.entries().iter().filter(|entry| entry.definition.has_streams()) {
            let Some(is_by_name) = self.match_types(entry) else { continue };
            match SubscriberView::of(engine, entry, &actor).await {
                Ok(view) => {
                    views.push(view);
                    databases.extend(engine.outbox.database_of(entry));
                }
                Err(error) if is_by_name => return Err(error),
                Err(error) if matches!(error.kind(), ErrorKind::Forbidden | ErrorKind::Unauthenticated) => {
                    denied = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        if let (true, Some(denied)) = (views.is_empty(), denied) {
            return Err(denied);
        }
        databases.sort_unstable();
        databases.dedup();
        let scope = Arc::new(events_scope(&actor, &self.types, &views, databases));
        Ok(SubscriptionSpec {
            scope,
            views,
            types: self.types.clone(),
            identity: subscriber_identity(&actor),
        })
    }

    /// Whether events of a resource are requested; and if so, whether by its name.
    fn match_types(&self, entry: &Entry) -> Option<bool> {
        let is_of = |pattern: &String| pattern.split('.').next() == Some(&*entry.name);
        if self.types.iter().any(is_of) {
            return Some(true);
        }
        (self.types.is_empty() || self.types.iter().any(|pattern| pattern == "*")).then_some(false)
    }
}

impl SubscriptionRequest for EventsSubscription {
    fn authorize(&self) -> BoxFuture<'_, Result<SubscriptionSpec, Error>> {
        Box::pin(self.authorize_caller())
    }

    fn changed(&self) -> Option<watch::Receiver<u64>> {
        self.caller.credential_changes.as_ref().map(watch::Sender::subscribe)
    }
}

fn events_scope(
    actor: &Actor,
    types: &[String],
    views: &[SubscriberView],
    databases: Vec<usize>,
) -> StreamScope {
    let mut binding_input = digest::DigestInput::default();
    digest::add_text(&mut binding_input, EVENTS_PATH);
    for pattern in types {
        digest::add_text(&mut binding_input, pattern);
    }
    let mut policy_input = digest::DigestInput::default();
    for view in views {
        view.digest(&mut policy_input);
    }
    let mut policy = [0; 16];
    policy.copy_from_slice(&policy_input.digest().as_bytes()[..16]);
    StreamScope { binding: Binding::for_stream(actor, &binding_input), policy, databases }
}

pub(super) fn subscriber_identity(actor: &Actor) -> SubscriberIdentity {
    SubscriberIdentity { tenant: actor.tenant().map(Arc::from), actor: actor.id().map(Arc::from) }
}

/// The requested types of events, each once and in order; or for each unknown one its index and the reason.
pub(super) fn parse_types<'a>(
    engine: &Engine,
    patterns: impl Iterator<Item = &'a str>,
) -> Result<Vec<String>, Vec<(usize, String)>> {
    let streamed = || engine.catalog.entries().iter().filter(|entry| entry.definition.has_streams());
    let (mut types, mut unknown) = (Vec::new(), Vec::new());
    for (index, pattern) in patterns.enumerate() {
        let (resource, event_name) = pattern.split_once('.').unwrap_or((pattern, ""));
        let entry = streamed().find(|entry| *entry.name == *resource);
        if pattern == "*"
            || entry.is_some_and(|entry| event_name == "*" || entry.definition.has_event(event_name))
        {
            types.push(pattern.to_owned());
            continue;
        }
        let detail = format!("`{pattern}` is not a type of events here.");
        unknown.push((
            index,
            match entry {
                Some(entry) => suggest(detail, event_name, entry.definition.event_suffixes()),
                None => suggest(detail, resource, streamed().map(|entry| &*entry.name)),
            },
        ));
    }
    types.sort();
    types.dedup();
    if unknown.is_empty() { Ok(types) } else { Err(unknown) }
}
