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
use super::index::{Index, Spot};
use super::limits::Streams;
use super::notification::{Kind, Notice};
use super::position::Scope;
use super::subscriber_queue::{End, Next, SubscriberQueue};
use super::subscriber_view::{RowChange, SubscriberView, ViewChange};
use crate::digest;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind};
use crate::outbox::Follower;
use crate::query::Binding;
use crate::tables::events::EventRow;
use crate::tables::events::Position;

/// How many decisions are made concurrently.
const AT_ONCE: usize = 32;
/// How many subscribers read missed events concurrently, each a part of them.
const READING: usize = 8;
/// Time limit for deciding the effect of a change on a class; past it the class receives a reset.
const LATE: Duration = Duration::from_secs(5);

/// Everything that a subscriber follows.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) scope: Arc<Scope>,
    pub(crate) windows: Vec<SubscriberView>,
    /// Patterns of event types; all types where there is none.
    pub(crate) types: Vec<String>,
    pub(crate) who: Who,
}

impl Wanted {
    /// Follows nothing: such a connection is counted, and ended, like subscriptions are.
    pub(crate) fn nothing(who: Who) -> Self {
        let scope = Scope { binding: Binding::of_nothing(), policy: [0; 16], databases: Vec::new() };
        Self { scope: Arc::new(scope), windows: Vec::new(), types: Vec::new(), who }
    }
}

/// The identity that a subscriber is counted by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Who {
    pub(crate) tenant: Option<Arc<str>>,
    pub(crate) actor: Option<Arc<str>>,
}

/// Subscribers of one resource that receive the same notices.
pub(crate) struct Class {
    key: [u8; 32],
    scope: Arc<Scope>,
    window: SubscriberView,
    types: Vec<String>,
    database: usize,
    spot: Spot,
    members: Mutex<HashMap<u64, Arc<SubscriberQueue>>>,
}

impl fmt::Debug for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Class").field("resource", &self.window.entry.name).finish_non_exhaustive()
    }
}

/// A class, compared by identity.
#[derive(Clone, Debug)]
struct Shared(Arc<Class>);

impl PartialEq for Shared {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// The subscribers of this node.
#[derive(Debug)]
pub(crate) struct Hub {
    engine: Weak<Engine>,
    limits: Streams,
    state: Mutex<State>,
    /// Limits concurrent authorization of subscriptions.
    pub(crate) deciding: ConcurrencyLimiter,
    /// Limits concurrent reads of missed events. Authorization does not wait for them.
    pub(super) reading: ConcurrencyLimiter,
    /// Notified when the last connection that follows nothing itself has gone.
    left: Notify,
}

#[derive(Debug, Default)]
struct State {
    classes: HashMap<[u8; 32], Arc<Class>>,
    /// By the resource's index in the catalog.
    indexes: HashMap<usize, Index<Shared>>,
    databases: Vec<Database>,
    /// The queues of all subscribers, to end them.
    outlets: HashMap<u64, Arc<SubscriberQueue>>,
    tenants: HashMap<Arc<str>, usize>,
    actors: HashMap<Arc<str>, usize>,
    /// The number of subscribers without an actor.
    unknown: usize,
    last: u64,
    /// The number of counted connections that follow nothing themselves.
    seats: usize,
    is_closed: bool,
}

/// How far one database is followed.
#[derive(Clone, Copy, Debug, Default)]
struct Database {
    listeners: usize,
    /// A subscriber that joins now receives what comes after this position.
    seen: Option<Position>,
    /// Everything up to this position was distributed to all subscribers.
    done: Option<Position>,
}

impl Hub {
    pub(crate) fn new(engine: &Arc<Engine>, limits: Streams) -> Self {
        let databases = vec![Database::default(); engine.outbox.storages().len()];
        let state = Mutex::new(State { databases, ..State::default() });
        Self {
            engine: Arc::downgrade(engine),
            limits,
            state,
            deciding: ConcurrencyLimiter::new(AT_ONCE),
            reading: ConcurrencyLimiter::new(READING),
            left: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a subscriber. It receives changes after [`seen`](Self::seen), where that is known.
    ///
    /// # Errors
    /// Where there are too many streams.
    pub(crate) fn join(self: &Arc<Self>, wanted: Wanted) -> Result<Subscription, Error> {
        let mut state = self.state();
        self.admit(&state, &wanted.who)?;
        state.last += 1;
        let id = state.last;
        let outlet = Arc::new(SubscriberQueue::new(self.limits.queue));
        let mut classes = Vec::with_capacity(wanted.windows.len());
        for window in wanted.windows {
            let class = state.class(window, &wanted.scope, &wanted.types, self);
            class.members().insert(id, outlet.clone());
            state.databases[class.database].listeners += 1;
            classes.push(class);
        }
        state.outlets.insert(id, outlet.clone());
        state.seats += usize::from(classes.is_empty());
        wanted.who.count(&mut state);
        drop(state);
        // The scope of the other members of its class, so that all of them share one.
        let scope = classes.first().map_or(wanted.scope, |class| class.scope.clone());
        Ok(Subscription { hub: self.clone(), id, outlet, classes, scope, who: wanted.who })
    }

    fn admit(&self, state: &State, who: &Who) -> Result<(), Error> {
        if state.is_closed || state.outlets.len() >= self.limits.most {
            let detail = "Too many streams on this server. Try again later.";
            return Err(Error::new(ErrorKind::Unavailable, "overloaded", detail));
        }
        self.admit_of(state, who)
    }

    fn admit_of(&self, state: &State, who: &Who) -> Result<(), Error> {
        if who.actor.is_none() && state.unknown >= self.limits.max_anonymous {
            let detail = "Too many anonymous streams. Try again later.";
            return Err(Error::new(ErrorKind::TooManyRequests, "too-many-streams", detail));
        }
        let is_full = |counts: &HashMap<Arc<str>, usize>, name: &Option<Arc<str>>, most| {
            name.as_ref().and_then(|name| counts.get(name)).is_some_and(|count| *count >= most)
        };
        if is_full(&state.tenants, &who.tenant, self.limits.max_per_tenant)
            || is_full(&state.actors, &who.actor_key(), self.limits.max_per_actor)
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
        for outlet in state.outlets.values() {
            outlet.end(End::Closing);
        }
    }

    /// Requests that all subscribers check their rights again.
    pub(super) fn look(&self) {
        for class in self.state().classes.values() {
            class.members().values().for_each(|outlet| outlet.look());
        }
    }

    pub(crate) fn open(&self) {
        self.state().is_closed = false;
    }

    /// Completes when no connection is left that follows nothing itself.
    pub(crate) async fn left(&self) {
        loop {
            let left = self.left.notified();
            if self.state().seats == 0 {
                return;
            }
            left.await;
        }
    }

    /// Counts a subscription under another identity from here on.
    ///
    /// # Errors
    /// Where that identity has reached its limit.
    pub(crate) fn hand_over(&self, subscription: &mut Subscription, who: Who) -> Result<(), Error> {
        if subscription.who == who {
            return Ok(());
        }
        let mut state = self.state();
        self.admit_of(&state, &who)?;
        subscription.who.uncount(&mut state);
        who.count(&mut state);
        subscription.who = who;
        Ok(())
    }

    /// How many subscribers there are.
    pub(crate) fn count(&self) -> usize {
        self.state().outlets.len()
    }

    pub(crate) const fn limits(&self) -> &Streams {
        &self.limits
    }

    /// The positions after which present subscribers receive every change; `None` for a database that is not followed yet.
    pub(super) fn seen(&self, databases: &[usize]) -> Vec<Option<Position>> {
        let state = self.state();
        databases.iter().map(|database| state.databases[*database].seen).collect()
    }

    /// The notice of a change for a class, where the change concerns it.
    async fn notice(&self, class: &Class, happened: &RowChange) -> Option<Arc<Notice>> {
        let engine = self.engine.upgrade()?;
        let wants = |pattern: &String| happened.event.matches(pattern);
        if !class.types.is_empty() && !class.types.iter().any(wants) {
            return None;
        }
        let told = class.window.told(&engine, happened).await.unwrap_or_else(|error| {
            tracing::warn!(
                error = format!("{error:#}"),
                "what a change is to subscribers could not be found out"
            );
            ViewChange::Reset
        });
        let (kind, event) = match told {
            ViewChange::Nothing => return None,
            ViewChange::Reset => return Some(Arc::new(Notice::reset(class.database, happened.position))),
            ViewChange::Event(event) => (Kind::Event, event),
            ViewChange::Added(event) => (Kind::Added, event),
            ViewChange::Removed(event) => (Kind::Removed, event),
        };
        let json = serde_json::to_vec(&event).unwrap_or_default();
        Some(Arc::new(Notice::new(kind, class.database, happened.position, event.event_type, json)))
    }

    async fn tell(&self, database: usize, row: &EventRow) {
        let Some(engine) = self.engine.upgrade() else { return };
        let position = Position::of(row);
        let is_wanted = {
            let mut state = self.state();
            let entry = engine.catalog.find(&row.resource).ok();
            let index = entry.and_then(|entry| state.indexes.get(&entry.position));
            let is_wanted = index.is_some_and(|index| !index.is_empty());
            if !is_wanted {
                state.databases[database].seen = Some(position);
            }
            is_wanted
        };
        let happened = if is_wanted { RowChange::of(&engine, row) } else { None };
        let Some(happened) = happened else {
            self.state().databases[database].seen = Some(position);
            return;
        };
        let classes = {
            let mut state = self.state();
            // In one critical section: subscribers that join from here on begin after this change.
            state.databases[database].seen = Some(position);
            let index = state.indexes.get(&happened.entry.position);
            index.map(|index| index.find(&happened.states().collect::<Vec<_>>())).unwrap_or_default()
        };
        // Most are decided at once; a decision that queries a storage, or is slow, does not hold up the others.
        let telling = stream::iter(classes).map(|Shared(class)| {
            let happened = &happened;
            async move {
                let notice = match timeout(LATE, self.notice(&class, happened)).await {
                    Ok(notice) => notice,
                    Err(_) => Some(Arc::new(Notice::reset(class.database, happened.position))),
                };
                if let Some(notice) = notice {
                    class.offer(&notice);
                }
            }
        });
        telling.buffer_unordered(AT_ONCE).collect::<()>().await;
    }
}

impl Follower for Hub {
    fn listens(&self, database: usize) -> bool {
        let mut state = self.state();
        let database = &mut state.databases[database];
        if database.listeners == 0 {
            // In one critical section with the result: subscribers that join from here on wait for `begins`.
            *database = Database::default();
        }
        database.listeners > 0
    }

    fn begins(&self, database: usize, at: Position) {
        let mut state = self.state();
        let known = &mut state.databases[database];
        let has_missed = known.seen.is_some();
        (known.seen, known.done) = (Some(at), Some(at));
        if has_missed {
            let notice = Arc::new(Notice::reset(database, at));
            for class in state.classes.values().filter(|class| class.database == database) {
                class.offer(&notice);
            }
        }
    }

    fn published<'a>(&'a self, database: usize, rows: &'a [Arc<EventRow>]) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            for row in rows {
                self.tell(database, row).await;
            }
            if let Some(last) = rows.last() {
                self.state().databases[database].done = Some(Position::of(last));
            }
        })
    }
}

impl State {
    /// The class of subscribers with the same view, scope and types.
    fn class(
        &mut self,
        window: SubscriberView,
        scope: &Arc<Scope>,
        types: &[String],
        hub: &Hub,
    ) -> Arc<Class> {
        let mut fed = digest::DigestInput::default();
        fed.update(scope.binding.bytes()).update(&scope.policy);
        window.digest(&mut fed);
        for pattern in types {
            fed.update(&(pattern.len() as u64).to_le_bytes()).update(pattern.as_bytes());
        }
        let key = *fed.digest().as_bytes();
        if let Some(class) = self.classes.get(&key) {
            return class.clone();
        }
        let engine = hub.engine.upgrade();
        let database = engine.and_then(|engine| engine.outbox.database_of(&window.entry)).unwrap_or_default();
        let class = Arc::new(Class {
            key,
            scope: scope.clone(),
            spot: Spot::of(window.filter(), &window.entry.schema),
            types: types.to_vec(),
            database,
            members: Mutex::default(),
            window,
        });
        let index = self.indexes.entry(class.window.entry.position).or_insert_with(Index::new);
        index.insert(&class.spot, Shared(class.clone()));
        self.classes.insert(key, class.clone());
        class
    }

    fn leave(&mut self, id: u64, classes: &[Arc<Class>]) {
        self.outlets.remove(&id);
        for class in classes {
            self.databases[class.database].listeners -= 1;
            let is_empty = {
                let mut members = class.members();
                members.remove(&id);
                members.is_empty()
            };
            if is_empty {
                self.classes.remove(&class.key);
                let resource = class.window.entry.position;
                if let Some(index) = self.indexes.get_mut(&resource) {
                    index.remove(&class.spot, &Shared(class.clone()));
                }
            }
        }
    }
}

impl Class {
    fn members(&self) -> MutexGuard<'_, HashMap<u64, Arc<SubscriberQueue>>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn offer(&self, notice: &Arc<Notice>) {
        for outlet in self.members().values() {
            outlet.offer(notice);
        }
    }
}

impl Who {
    /// Actors with the same id in different tenants are counted separately.
    fn actor_key(&self) -> Option<Arc<str>> {
        let tenant = self.tenant.as_deref().unwrap_or_default();
        self.actor.as_ref().map(|actor| format!("{}:{tenant}{actor}", tenant.len()).into())
    }

    fn count(&self, state: &mut State) {
        state.unknown += usize::from(self.actor.is_none());
        for (counts, name) in self.counted(state) {
            *counts.entry(name).or_default() += 1;
        }
    }

    fn uncount(&self, state: &mut State) {
        state.unknown -= usize::from(self.actor.is_none());
        for (counts, name) in self.counted(state) {
            if let Some(count) = counts.get_mut(&name) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(&name);
                }
            }
        }
    }

    fn counted<'a>(
        &self,
        state: &'a mut State,
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
    outlet: Arc<SubscriberQueue>,
    classes: Vec<Arc<Class>>,
    pub(crate) scope: Arc<Scope>,
    who: Who,
}

impl Subscription {
    pub(crate) async fn next(&self) -> Next {
        self.outlet.next().await
    }

    /// Whether missed events can be replayed to it.
    pub(super) fn can_catch_up(&self) -> bool {
        self.classes.iter().all(|class| !class.window.hangs_on_unsaid())
    }

    /// Rights are being checked: pending requests to check them are obsolete.
    pub(super) fn looked(&self) {
        self.outlet.looked();
    }

    /// Whether the application is about to stop.
    pub(super) fn is_closing(&self) -> bool {
        self.outlet.is_closing()
    }

    /// Whether the classes are the ones for this scope.
    pub(super) fn is_told_as(&self, scope: &Scope) -> bool {
        self.scope.policy == scope.policy
            && self.scope.binding.bytes() == scope.binding.bytes()
            && self.scope.databases == scope.databases
    }

    /// The next waiting item; where there is none, the positions up to which everything was distributed.
    pub(super) fn idle(&self) -> Result<Next, Vec<Option<Position>>> {
        // In this order: everything up to these positions was queued before.
        let done = {
            let state = self.hub.state();
            self.scope.databases.iter().map(|database| state.databases[*database].done).collect()
        };
        self.outlet.take().ok_or(done)
    }

    /// The resources of a database whose changes this subscriber receives.
    pub(super) fn resources(&self, database: usize) -> Vec<Arc<str>> {
        let classes = self.classes.iter().filter(|class| class.database == database);
        classes.map(|class| class.window.entry.name.clone()).collect()
    }

    /// The notices of a past event for this subscriber.
    pub(super) async fn replayed(
        &self,
        engine: &Engine,
        database: usize,
        row: &EventRow,
    ) -> Vec<Arc<Notice>> {
        let mut notices = Vec::new();
        let is_of =
            |class: &&Arc<Class>| class.database == database && *class.window.entry.name == *row.resource;
        let mut classes = self.classes.iter().filter(is_of).peekable();
        if classes.peek().is_none() {
            return notices;
        }
        let Some(happened) = RowChange::of(engine, row) else { return notices };
        for class in classes {
            notices.extend(self.hub.notice(class, &happened).await);
        }
        notices
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut state = self.hub.state();
        state.leave(self.id, &self.classes);
        self.who.uncount(&mut state);
        if self.classes.is_empty() {
            state.seats -= 1;
            if state.seats == 0 {
                self.hub.left.notify_waiters();
            }
        }
    }
}
