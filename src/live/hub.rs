//! The hub: the subscriptions of a node, and the distribution of changes to them. It is independent of the transport.
//!
//! Subscribers that receive the same notices form a class: the effect of a change is decided once for all of them,
//! serialized once, and its bytes are shared.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::concurrency::ConcurrencyLimiter;
use super::index::{FilterIndex, IndexKey};
use super::limits::Streams;
use super::notification::{Notice, NoticeKind};
use super::position::StreamScope;
use super::subscriber_queue::{EndReason, QueueItem, SubscriberQueue};
use super::subscriber_view::{RowChange, SubscriberView, ViewChange};
use crate::digest;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind};
use crate::outbox::Follower;
use crate::query::Binding;
use crate::tables::events::EventRow;
use crate::tables::events::Position;

/// How many decisions are made concurrently.
const MAX_AUTHORIZATIONS: usize = 32;
/// How many subscribers read missed events concurrently, each a part of them.
const MAX_REPLAYS: usize = 8;
/// Time limit for deciding the effect of a change on a class; past it the class receives a reset.
const NOTICE_TIMEOUT: Duration = Duration::from_secs(5);

/// Everything that a subscriber follows.
#[derive(Debug)]
pub(crate) struct SubscriptionSpec {
    pub(crate) scope: Arc<StreamScope>,
    pub(crate) views: Vec<SubscriberView>,
    /// Patterns of event types; all types where there is none.
    pub(crate) types: Vec<String>,
    pub(crate) identity: SubscriberIdentity,
}

impl SubscriptionSpec {
    /// Follows nothing: such a connection is counted, and ended, like subscriptions are.
    pub(crate) fn empty(identity: SubscriberIdentity) -> Self {
        let scope = StreamScope { binding: Binding::empty(), policy: [0; 16], databases: Vec::new() };
        Self { scope: Arc::new(scope), views: Vec::new(), types: Vec::new(), identity }
    }
}

/// The identity that a subscriber is counted by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SubscriberIdentity {
    pub(crate) tenant: Option<Arc<str>>,
    pub(crate) actor: Option<Arc<str>>,
}

/// Subscribers of one resource that receive the same notices.
pub(crate) struct SubscriberClass {
    key: [u8; 32],
    scope: Arc<StreamScope>,
    view: SubscriberView,
    types: Vec<String>,
    database: usize,
    index_key: IndexKey,
    members: Mutex<HashMap<u64, Arc<SubscriberQueue>>>,
}

impl fmt::Debug for SubscriberClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Class").field("resource", &self.view.entry.name).finish_non_exhaustive()
    }
}

/// A class, compared by identity.
#[derive(Clone, Debug)]
struct ClassRef(Arc<SubscriberClass>);

impl PartialEq for ClassRef {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// The subscribers of this node.
#[derive(Debug)]
pub(crate) struct Hub {
    engine: Weak<Engine>,
    limits: Streams,
    state: Mutex<HubState>,
    /// Limits concurrent authorization of subscriptions.
    pub(crate) authorization_limiter: ConcurrencyLimiter,
    /// Limits concurrent reads of missed events. Authorization does not wait for them.
    pub(super) resource_read: ConcurrencyLimiter,
    /// Notified when the last connection that follows nothing itself has gone.
    drained: Notify,
}

#[derive(Debug, Default)]
struct HubState {
    classes: HashMap<[u8; 32], Arc<SubscriberClass>>,
    /// By the resource's index in the catalog.
    indexes: HashMap<usize, FilterIndex<ClassRef>>,
    databases: Vec<DatabaseProgress>,
    /// The queues of all subscribers, to end them.
    queues: HashMap<u64, Arc<SubscriberQueue>>,
    tenants: HashMap<Arc<str>, usize>,
    actors: HashMap<Arc<str>, usize>,
    /// The number of subscribers without an actor.
    anonymous: usize,
    last_id: u64,
    /// The number of counted connections that follow nothing themselves.
    slots: usize,
    is_closed: bool,
}

/// How far one database is followed.
#[derive(Clone, Copy, Debug, Default)]
struct DatabaseProgress {
    listeners: usize,
    /// A subscriber that joins now receives what comes after this position.
    observed: Option<Position>,
    /// Everything up to this position was distributed to all subscribers.
    distributed: Option<Position>,
}

impl Hub {
    pub(crate) fn new(engine: &Arc<Engine>, limits: Streams) -> Self {
        let databases = vec![DatabaseProgress::default(); engine.outbox.storages().len()];
        let state = Mutex::new(HubState { databases, ..HubState::default() });
        Self {
            engine: Arc::downgrade(engine),
            limits,
            state,
            authorization_limiter: ConcurrencyLimiter::new(MAX_AUTHORIZATIONS),
            resource_read: ConcurrencyLimiter::new(MAX_REPLAYS),
            drained: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, HubState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a subscriber. It receives changes after [`seen`](Self::seen), where that is known.
    ///
    /// # Errors
    /// Where there are too many streams.
    pub(crate) fn join(self: &Arc<Self>, spec: SubscriptionSpec) -> Result<Subscription, Error> {
        let mut state = self.state();
        self.check_limits(&state, &spec.identity)?;
        state.last_id += 1;
        let id = state.last_id;
        let queue = Arc::new(SubscriberQueue::new(self.limits.queue));
        let mut classes = Vec::with_capacity(spec.views.len());
        for view in spec.views {
            let class = state.class(view, &spec.scope, &spec.types, self);
            class.members().insert(id, queue.clone());
            state.databases[class.database].listeners += 1;
            classes.push(class);
        }
        state.queues.insert(id, queue.clone());
        state.slots += usize::from(classes.is_empty());
        spec.identity.count(&mut state);
        drop(state);
        // The scope of the other members of its class, so that all of them share one.
        let scope = classes.first().map_or(spec.scope, |class| class.scope.clone());
        Ok(Subscription { hub: self.clone(), id, queue, classes, scope, identity: spec.identity })
    }

    fn check_limits(&self, state: &HubState, identity: &SubscriberIdentity) -> Result<(), Error> {
        if state.is_closed || state.queues.len() >= self.limits.max_streams {
            let detail = "Too many streams on this server. Try again later.";
            return Err(Error::new(ErrorKind::Unavailable, "overloaded", detail));
        }
        self.check_identity_limits(state, identity)
    }

    fn check_identity_limits(&self, state: &HubState, identity: &SubscriberIdentity) -> Result<(), Error> {
        if identity.actor.is_none() && state.anonymous >= self.limits.max_anonymous {
            let detail = "Too many anonymous streams. Try again later.";
            return Err(Error::new(ErrorKind::TooManyRequests, "too-many-streams", detail));
        }
        let is_full = |counts: &HashMap<Arc<str>, usize>, name: &Option<Arc<str>>, most| {
            name.as_ref().and_then(|name| counts.get(name)).is_some_and(|count| *count >= most)
        };
        if is_full(&state.tenants, &identity.tenant, self.limits.max_per_tenant)
            || is_full(&state.actors, &identity.actor_key(), self.limits.max_per_actor)
        {
            let detail = "Stream limit reached for this actor or its tenant. Close a stream, and try again.";
            return Err(Error::new(ErrorKind::TooManyRequests, "too-many-streams", detail));
        }
        Ok(())
    }

    /// Ends all subscriptions; none can be added until the hub is opened again.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.is_closed = true;
        for queue in state.queues.values() {
            queue.end(EndReason::Closing);
        }
    }

    /// Requests that all subscribers check their rights again.
    pub(super) fn request_recheck(&self) {
        for class in self.state().classes.values() {
            class.members().values().for_each(|queue| queue.request_recheck());
        }
    }

    pub(crate) fn open(&self) {
        self.state().is_closed = false;
    }

    /// Completes when no connection is left that follows nothing itself.
    pub(crate) async fn wait_until_drained(&self) {
        loop {
            let left = self.drained.notified();
            if self.state().slots == 0 {
                return;
            }
            left.await;
        }
    }

    /// Counts a subscription under another identity from here on.
    ///
    /// # Errors
    /// Where that identity has reached its limit.
    pub(crate) fn change_identity(
        &self,
        subscription: &mut Subscription,
        identity: SubscriberIdentity,
    ) -> Result<(), Error> {
        if subscription.identity == identity {
            return Ok(());
        }
        let mut state = self.state();
        self.check_identity_limits(&state, &identity)?;
        subscription.identity.uncount(&mut state);
        identity.count(&mut state);
        subscription.identity = identity;
        Ok(())
    }

    /// How many subscribers there are.
    pub(crate) fn count(&self) -> usize {
        self.state().queues.len()
    }

    pub(crate) const fn limits(&self) -> &Streams {
        &self.limits
    }

    /// The positions after which present subscribers receive every change; `None` for a database that is not followed yet.
    pub(super) fn observed(&self, databases: &[usize]) -> Vec<Option<Position>> {
        let state = self.state();
        databases.iter().map(|database| state.databases[*database].observed).collect()
    }

    /// The notice of a change for a class, where the change concerns it.
    async fn notice(&self, class: &SubscriberClass, change: &RowChange) -> Option<Arc<Notice>> {
        let engine = self.engine.upgrade()?;
        let is_match = |pattern: &String| change.event.matches(pattern);
        if !class.types.is_empty() && !class.types.iter().any(is_match) {
            return None;
        }
        let effect = class.view.evaluate(&engine, change).await.unwrap_or_else(|error| {
            tracing::warn!(
                error = format!("{error:#}"),
                "a change could not be evaluated for its subscribers"
            );
            ViewChange::Reset
        });
        let (kind, event) = match effect {
            ViewChange::Nothing => return None,
            ViewChange::Reset => return Some(Arc::new(Notice::reset(class.database, change.position))),
            ViewChange::Event(event) => (NoticeKind::Event, event),
            ViewChange::Added(event) => (NoticeKind::Added, event),
            ViewChange::Removed(event) => (NoticeKind::Removed, event),
        };
        let json = serde_json::to_vec(&event).unwrap_or_default();
        Some(Arc::new(Notice::new(kind, class.database, change.position, event.event_type, json)))
    }

    async fn distribute(&self, database: usize, row: &EventRow) {
        let Some(engine) = self.engine.upgrade() else { return };
        let position = Position::of(row);
        let has_subscribers = {
            let mut state = self.state();
            let entry = engine.catalog.find(&row.resource).ok();
            let index = entry.and_then(|entry| state.indexes.get(&entry.position));
            let has_subscribers = index.is_some_and(|index| !index.is_empty());
            if !has_subscribers {
                state.databases[database].observed = Some(position);
            }
            has_subscribers
        };
        let change = if has_subscribers { RowChange::of(&engine, row) } else { None };
        let Some(change) = change else {
            self.state().databases[database].observed = Some(position);
            return;
        };
        let classes = {
            let mut state = self.state();
            // In one critical section: subscribers that join from here on begin after this change.
            state.databases[database].observed = Some(position);
            let index = state.indexes.get(&change.entry.position);
            index.map(|index| index.find(&change.states().collect::<Vec<_>>())).unwrap_or_default()
        };
        // Most are decided at once; a decision that queries a storage, or is slow, does not hold up the others.
        let deliveries = stream::iter(classes).map(|ClassRef(class)| {
            let change = &change;
            async move {
                let notice = match timeout(NOTICE_TIMEOUT, self.notice(&class, change)).await {
                    Ok(notice) => notice,
                    Err(_) => Some(Arc::new(Notice::reset(class.database, change.position))),
                };
                if let Some(notice) = notice {
                    class.offer(&notice);
                }
            }
        });
        deliveries.buffer_unordered(MAX_AUTHORIZATIONS).collect::<()>().await;
    }
}

impl Follower for Hub {
    fn is_active(&self, database: usize) -> bool {
        let mut state = self.state();
        let database = &mut state.databases[database];
        if database.listeners == 0 {
            // In one critical section with the result: subscribers that join from here on wait for `begins`.
            *database = DatabaseProgress::default();
        }
        database.listeners > 0
    }

    fn start_from(&self, database: usize, at: Position) {
        let mut state = self.state();
        let known = &mut state.databases[database];
        let has_missed = known.observed.is_some();
        (known.observed, known.distributed) = (Some(at), Some(at));
        if has_missed {
            let notice = Arc::new(Notice::reset(database, at));
            for class in state.classes.values().filter(|class| class.database == database) {
                class.offer(&notice);
            }
        }
    }

    fn handle_events<'a>(&'a self, database: usize, rows: &'a [Arc<EventRow>]) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            for row in rows {
                self.distribute(database, row).await;
            }
            if let Some(last) = rows.last() {
                self.state().databases[database].distributed = Some(Position::of(last));
            }
        })
    }
}

impl HubState {
    /// The class of subscribers with the same view, scope and types.
    fn class(
        &mut self,
        view: SubscriberView,
        scope: &Arc<StreamScope>,
        types: &[String],
        hub: &Hub,
    ) -> Arc<SubscriberClass> {
        let mut input = digest::DigestInput::default();
        input.update(scope.binding.bytes()).update(&scope.policy);
        view.digest(&mut input);
        for pattern in types {
            input.update(&(pattern.len() as u64).to_le_bytes()).update(pattern.as_bytes());
        }
        let key = *input.digest().as_bytes();
        if let Some(class) = self.classes.get(&key) {
            return class.clone();
        }
        let engine = hub.engine.upgrade();
        let database = engine.and_then(|engine| engine.outbox.database_of(&view.entry)).unwrap_or_default();
        let class = Arc::new(SubscriberClass {
            key,
            scope: scope.clone(),
            index_key: IndexKey::of(view.filter(), &view.entry.schema),
            types: types.to_vec(),
            database,
            members: Mutex::default(),
            view,
        });
        let index = self.indexes.entry(class.view.entry.position).or_insert_with(FilterIndex::new);
        index.insert(&class.index_key, ClassRef(class.clone()));
        self.classes.insert(key, class.clone());
        class
    }

    fn leave(&mut self, id: u64, classes: &[Arc<SubscriberClass>]) {
        self.queues.remove(&id);
        for class in classes {
            self.databases[class.database].listeners -= 1;
            let is_empty = {
                let mut members = class.members();
                members.remove(&id);
                members.is_empty()
            };
            if is_empty {
                self.classes.remove(&class.key);
                let resource = class.view.entry.position;
                if let Some(index) = self.indexes.get_mut(&resource) {
                    index.remove(&class.index_key, &ClassRef(class.clone()));
                }
            }
        }
    }
}

impl SubscriberClass {
    fn members(&self) -> MutexGuard<'_, HashMap<u64, Arc<SubscriberQueue>>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn offer(&self, notice: &Arc<Notice>) {
        for queue in self.members().values() {
            queue.offer(notice);
        }
    }
}

impl SubscriberIdentity {
    /// Actors with the same id in different tenants are counted separately.
    fn actor_key(&self) -> Option<Arc<str>> {
        let tenant = self.tenant.as_deref().unwrap_or_default();
        self.actor.as_ref().map(|actor| format!("{}:{tenant}{actor}", tenant.len()).into())
    }

    fn count(&self, state: &mut HubState) {
        state.anonymous += usize::from(self.actor.is_none());
        for (counts, name) in self.counters(state) {
            *counts.entry(name).or_default() += 1;
        }
    }

    fn uncount(&self, state: &mut HubState) {
        state.anonymous -= usize::from(self.actor.is_none());
        for (counts, name) in self.counters(state) {
            if let Some(count) = counts.get_mut(&name) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(&name);
                }
            }
        }
    }

    fn counters<'a>(
        &self,
        state: &'a mut HubState,
    ) -> impl Iterator<Item = (&'a mut HashMap<Arc<str>, usize>, Arc<str>)> {
        let tenant = self.tenant.clone().map(|tenant| (&mut state.tenants, tenant));
        let actor = self.actor_key().map(|actor| (&mut state.actors, actor));
        tenant.into_iter().chain(actor)
    }
}

/// A subscription of the hub, until it is dropped.
#[derive(Debug)]
pub(crate) struct Subscription {
    hub: Arc<Hub>,
    id: u64,
    queue: Arc<SubscriberQueue>,
    classes: Vec<Arc<SubscriberClass>>,
    pub(crate) scope: Arc<StreamScope>,
    identity: SubscriberIdentity,
}

impl Subscription {
    pub(crate) async fn next(&self) -> QueueItem {
        self.queue.next().await
    }

    /// Whether missed events can be replayed to it.
    pub(super) fn can_replay(&self) -> bool {
        self.classes.iter().all(|class| !class.view.depends_on_hidden())
    }

    /// Rights are being checked: pending requests to check them are obsolete.
    pub(super) fn clear_recheck(&self) {
        self.queue.clear_recheck();
    }

    /// Whether the application is about to stop.
    pub(super) fn is_closing(&self) -> bool {
        self.queue.is_closing()
    }

    /// Whether the classes are the ones for this scope.
    pub(super) fn has_scope(&self, scope: &StreamScope) -> bool {
        self.scope.policy == scope.policy
            && self.scope.binding.bytes() == scope.binding.bytes()
            && self.scope.databases == scope.databases
    }

    /// The next waiting item; where there is none, the positions up to which everything was distributed.
    pub(super) fn try_next(&self) -> Result<QueueItem, Vec<Option<Position>>> {
        // In this order: everything up to these positions was queued before.
        let distributed = {
            let state = self.hub.state();
            self.scope.databases.iter().map(|database| state.databases[*database].distributed).collect()
        };
        self.queue.try_next().ok_or(distributed)
    }

    /// The resources of a database whose changes this subscriber receives.
    pub(super) fn resources(&self, database: usize) -> Vec<Arc<str>> {
        let classes = self.classes.iter().filter(|class| class.database == database);
        classes.map(|class| class.view.entry.name.clone()).collect()
    }

    /// The notices of a past event for this subscriber.
    pub(super) async fn replay(&self, engine: &Engine, database: usize, row: &EventRow) -> Vec<Arc<Notice>> {
        let mut notices = Vec::new();
        let is_of = |class: &&Arc<SubscriberClass>| {
            class.database == database && *class.view.entry.name == *row.resource
        };
        let mut classes = self.classes.iter().filter(is_of).peekable();
        if classes.peek().is_none() {
            return notices;
        }
        let Some(change) = RowChange::of(engine, row) else { return notices };
        for class in classes {
            notices.extend(self.hub.notice(class, &change).await);
        }
        notices
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut state = self.hub.state();
        state.leave(self.id, &self.classes);
        self.identity.uncount(&mut state);
        if self.classes.is_empty() {
            state.slots -= 1;
            if state.slots == 0 {
                self.hub.drained.notify_waiters();
            }
        }
    }
}
