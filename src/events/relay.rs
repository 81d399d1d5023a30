//! The relay: takes events out of the outbox and delivers them to subscribers, at least once and for each item in order.
//!
//! One node at a time relays a database: the holder of its lease. The lease's version is the fencing token: deliveries are
//! marked in one commit with it, so that a node which lost the lease, or was stopped for a while, marks nothing. Events are
//! marked one by one and not by an advancing position, so that a transaction which commits late is never skipped, and a
//! long-running one delays no other events. An item's own events cannot overtake each other: their numbers are taken while
//! their transaction holds the item's row.
//!
//! Every event is published first: it gets its position, which is the fencing token of that commit, whether or not it has
//! subscribers and however those perform. Consumers that follow by position (streams, caches) wait for no subscriber.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use futures::future::join_all;
use indexmap::IndexMap;
use tokio::sync::{Mutex, Semaphore, watch};
use tokio::task::{self, JoinSet};
use uuid::Uuid;

use super::Workers;
use super::subscriber::{RegisteredSubscriber, handle};
use crate::catalog::GuardedStorage;
use crate::engine::Engine;
use crate::error::Error;
use crate::outbox::Event;
use crate::outbox::{EventUpdates, FailedDelivery, Lease, MAX_RETRY_DELAY};
use crate::tables::events::EventRow;

/// How many events are published at once.
const PUBLISH_BATCH: u32 = 500;
/// The most events under way at once.
const MAX_IN_FLIGHT: u32 = 500;
/// How many events are delivered concurrently.
const MAX_CONCURRENT: usize = 64;
/// How often delivery of an event is attempted before it is a dead letter.
const MAX_ATTEMPTS: u32 = 10;
/// The pause before the first retry of an event; each further one is twice as long, up to the longest. Jitter adds up to a
/// half.
const INITIAL_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(15 * 60);

/// Relays the outboxes of an application from one node.
#[derive(Debug)]
pub(crate) struct Relay {
    engine: Arc<Engine>,
    subscribers: Arc<[RegisteredSubscriber]>,
    /// Distributes the work, where there are other nodes.
    workers: Option<Arc<Workers>>,
    /// The id of this node as a lease holder.
    holder: String,
    /// One for each database, locked while that is relayed.
    state: Vec<Mutex<RelayState>>,
    /// One for each database, incremented when this node published events.
    published: Vec<watch::Sender<u64>>,
    /// Limits concurrent deliveries.
    capacity: Semaphore,
}

/// A resource and the id of an item.
type Item = (String, String);

/// The relay state of one database on this node.
#[derive(Debug, Default)]
struct RelayState {
    /// The lease, where this node holds it.
    lease: Option<Lease>,
    deliveries: JoinSet<Vec<RelayOutcome>>,
    /// Items whose events are being delivered, with the number of events.
    items: HashMap<task::Id, (Item, usize)>,
    /// Outcomes that are not written to the outbox yet.
    outcomes: Vec<RelayOutcome>,
}

impl RelayState {
    fn is_empty(&self) -> bool {
        self.deliveries.is_empty() && self.outcomes.is_empty()
    }

    fn record(&mut self, outcomes: Result<(task::Id, Vec<RelayOutcome>), task::JoinError>) {
        let task = match outcomes {
            Ok((task, result)) => {
                self.outcomes.extend(result);
                task
            }
            Err(error) => error.id(),
        };
        self.items.remove(&task);
    }

    /// Discards the state after the lease was lost: another node continues, or this one later.
    fn discard(&mut self) -> RelayStep {
        if !self.is_empty() {
            tracing::warn!(
                "another node is the relay now: events that were delivered meanwhile are delivered again"
            );
        }
        *self = Self::default();
        RelayStep::NotHolder
    }
}

/// The result of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RelayStep {
    /// So many events were marked or begun, so there may be more.
    Progressed(usize),
    /// There was nothing to do until a delivery under way ends.
    Busy,
    /// There was nothing to do.
    Idle,
    /// Another node relays.
    NotHolder,
}

/// The outcome of one event.
#[derive(Debug)]
struct RelayOutcome {
    sequence: i64,
    attempts: i64,
    /// Subscribers that handled it, now or before.
    handled: Vec<String>,
    /// Subscribers that failed, with their reasons.
    failures: Vec<String>,
}

impl Relay {
    pub(crate) fn new(
        engine: Arc<Engine>,
        subscribers: Arc<[RegisteredSubscriber]>,
        workers: Option<Arc<Workers>>,
    ) -> Self {
        let state = engine.outbox.storages().iter().map(|_| Mutex::default()).collect();
        let published = engine.outbox.storages().iter().map(|_| watch::Sender::default()).collect();
        Self {
            engine,
            subscribers,
            workers,
            holder: Uuid::new_v4().to_string(),
            state,
            published,
            capacity: Semaphore::new(MAX_CONCURRENT),
        }
    }

    /// Distributes the work over nodes, where that is enabled.
    pub(crate) const fn workers(&self) -> Option<&Arc<Workers>> {
        self.workers.as_ref()
    }

    /// Incremented when this node published events of a database.
    pub(crate) fn published(&self, position: usize) -> Option<watch::Receiver<u64>> {
        self.published.get(position).map(watch::Sender::subscribe)
    }

    /// The name of this node as a lease holder.
    pub(crate) fn holder(&self) -> &str {
        &self.holder
    }

    /// Publishes the new events of a database, writes the outcomes of earlier deliveries, and begins deliveries that are
    /// due. `position` is the database's index among those that keep records. Deliveries under way are not awaited, so that
    /// a slow subscriber holds up no others.
    ///
    /// # Errors
    /// Where the storage fails.
    pub(crate) async fn step(self: &Arc<Self>, position: usize) -> Result<RelayStep, Error> {
        let storages = self.engine.outbox.storages();
        let (Some(storage), Some(state)) = (storages.get(position), self.state.get(position)) else {
            return Ok(RelayStep::Idle);
        };
        let mut state = state.lock().await;
        while let Some(outcomes) = state.deliveries.try_join_next_with_id() {
            state.record(outcomes);
        }
        let lease = match state.lease.take().filter(Lease::is_fresh) {
            Some(lease) => lease,
            // Taking a lease is a write, so it is taken only where there is work.
            None if state.is_empty() && self.is_idle(storage).await? => return Ok(RelayStep::Idle),
            None => match self.engine.outbox.acquire_lease(storage, &self.holder).await? {
                Some(lease) => lease,
                None => return Ok(state.discard()),
            },
        };
        let updates = self.next_updates(storage, std::mem::take(&mut state.outcomes)).await?;
        let (update_count, has_publications) = (updates.len(), updates.has_publications());
        state.lease = Some(if updates.is_empty() {
            lease
        } else {
            match self.engine.outbox.commit_updates(storage, lease, updates).await? {
                Some(lease) => lease,
                None => return Ok(state.discard()),
            }
        });
        if has_publications {
            self.published[position].send_modify(|count| *count += 1);
            self.engine.outbox.published.send_modify(|count| *count += 1);
        }
        let began = self.start_deliveries(storage, &mut state).await?;
        Ok(match update_count + began {
            0 if state.deliveries.is_empty() => RelayStep::Idle,
            0 => RelayStep::Busy,
            some => RelayStep::Progressed(some),
        })
    }

    /// Completes when a delivery under way has ended; never where there is none.
    pub(crate) async fn wait_for_delivery(&self, position: usize) {
        let Some(state) = self.state.get(position) else { return std::future::pending().await };
        let mut state = state.lock().await;
        match state.deliveries.join_next_with_id().await {
            Some(outcomes) => state.record(outcomes),
            None => {
                drop(state);
                std::future::pending::<()>().await;
            }
        }
    }

    /// Abandons deliveries under way: the next holder of the lease repeats them.
    pub(crate) fn abandon(&self, position: usize) {
        if let Some(mut state) = self.state.get(position).and_then(|state| state.try_lock().ok()) {
            *state = RelayState::default();
        }
    }

    /// Whether there is nothing to publish and nothing to deliver.
    async fn is_idle(&self, storage: &GuardedStorage) -> Result<bool, Error> {
        Ok(self.engine.outbox.unpublished(storage, 1).await?.is_empty()
            && self.engine.outbox.pending(storage, 0, 1).await?.is_empty())
    }

    /// The marks of the next commit: outcomes of deliveries, and new events.
    async fn next_updates(
        &self,
        storage: &GuardedStorage,
        outcomes: Vec<RelayOutcome>,
    ) -> Result<EventUpdates, Error> {
        let new = self.engine.outbox.unpublished(storage, PUBLISH_BATCH).await?;
        let (delivered, failed): (Vec<_>, Vec<_>) =
            outcomes.into_iter().partition(|one| one.failures.is_empty());
        let mut updates = EventUpdates {
            delivered: delivered.into_iter().map(|one| one.sequence).collect(),
            failed: failed.into_iter().map(failed_delivery).collect(),
            ..EventUpdates::default()
        };
        for (sequence, event_type) in new {
            let is_wanted = self.subscribers.iter().any(|one| one.matches(&event_type));
            // Events without subscribers are finished in the same commit.
            if is_wanted { &mut updates.published } else { &mut updates.published_only }.push(sequence);
        }
        Ok(updates)
    }

    /// Begins deliveries that are due, as far as the limit allows; returns of how many events.
    async fn start_deliveries(
        self: &Arc<Self>,
        storage: &GuardedStorage,
        state: &mut RelayState,
    ) -> Result<usize, Error> {
        let in_flight: usize = state.items.values().map(|(_, events)| events).sum();
        let capacity = MAX_IN_FLIGHT.saturating_sub(u32::try_from(in_flight).unwrap_or(MAX_IN_FLIGHT));
        if capacity == 0 {
            return Ok(0);
        }
        let mut due = self.due_events(storage, state).await?;
        due.truncate(capacity as usize);
        let count = due.len();
        let mut items: IndexMap<Item, Vec<EventRow>> = IndexMap::new();
        for row in due {
            items.entry((row.resource.clone(), row.subject.clone())).or_default().push(row);
        }
        for (item, rows) in items {
            let (relay, events) = (self.clone(), rows.len());
            let task = state.deliveries.spawn(async move { relay.deliver_item(rows).await });
            state.items.insert(task.id(), (item, events));
        }
        Ok(count)
    }

    /// The next events that wait for no other event. Waiting events are skipped, however many an item has.
    async fn due_events(&self, storage: &GuardedStorage, state: &RelayState) -> Result<Vec<EventRow>, Error> {
        let mut waiting = self.engine.outbox.postponed(storage).await?;
        waiting.extend(state.items.values().map(|(item, _)| item.clone()));
        let mut after = 0;
        loop {
            let pending = self.engine.outbox.pending(storage, after, MAX_IN_FLIGHT).await?;
            let Some(last) = pending.last() else { return Ok(Vec::new()) };
            after = last.sequence;
            let due: Vec<_> = pending.into_iter().filter(|row| !is_blocked(row, &waiting)).collect();
            if !due.is_empty() {
                return Ok(due);
            }
        }
    }

    /// Delivers one item's events in order, until one fails.
    async fn deliver_item(&self, rows: Vec<EventRow>) -> Vec<RelayOutcome> {
        let mut result = Vec::with_capacity(rows.len());
        for row in rows {
            let capacity = self.capacity.acquire().await;
            let one = self.deliver(&row).await;
            drop(capacity);
            let failed = !one.failures.is_empty();
            result.push(one);
            if failed {
                // Later events wait for it.
                break;
            }
        }
        result
    }

    /// Delivers an event to all its subscribers that have not handled it yet.
    async fn deliver(&self, row: &EventRow) -> RelayOutcome {
        let mut result = RelayOutcome {
            sequence: row.sequence,
            attempts: row.attempts + 1,
            handled: row.handled.clone(),
            failures: Vec::new(),
        };
        let is_unhandled = |registered: &&RegisteredSubscriber| {
            registered.matches(&row.event_type) && !row.handled.iter().any(|name| **name == *registered.name)
        };
        let unhandled: Vec<_> = self.subscribers.iter().filter(is_unhandled).collect();
        if unhandled.is_empty() {
            return result;
        }
        let event = self.engine.outbox.to_event(row);
        // Concurrently: no subscriber waits for another one.
        let deliveries = unhandled.into_iter().map(async |registered| {
            (&*registered.name, self.deliver_to(registered, &event, row.attempts).await)
        });
        for (subscriber, outcome) in join_all(deliveries).await {
            match outcome {
                Ok(()) => result.handled.push(subscriber.to_owned()),
                Err(reason) => {
                    let event = event.id.to_string();
                    tracing::warn!(subscriber, event, reason, "an event was not handled");
                    result.failures.push(format!("{subscriber}: {reason}"));
                }
            }
        }
        result
    }

    /// Delivers an event to one subscriber, on any free node.
    async fn deliver_to(
        &self,
        registered: &RegisteredSubscriber,
        event: &Event,
        attempts: i64,
    ) -> Result<(), String> {
        let attempt = u32::try_from(attempts + 1).unwrap_or(u32::MAX);
        if let Some(workers) = self.workers.as_ref().filter(|_| !registered.is_relay_local)
            && let Some(outcome) = workers.dispatch(registered, event, attempt).await
        {
            return outcome;
        }
        handle(&self.engine, registered, event, attempt).await
    }
}

/// Whether an event waits: for its own retry time, or for an earlier event of its item.
fn is_blocked(row: &EventRow, waiting: &HashSet<(String, String)>) -> bool {
    waiting.contains(&(row.resource.clone(), row.subject.clone()))
}

/// The mark of a failed event: its next retry, or its end as a dead letter.
fn failed_delivery(result: RelayOutcome) -> FailedDelivery {
    let RelayOutcome { sequence, attempts, handled, failures } = result;
    let (now, reason) = (Utc::now(), failures.join("; "));
    if attempts >= i64::from(MAX_ATTEMPTS) {
        return FailedDelivery { sequence, attempts, reason, due_at: None, dead_at: Some(now), handled };
    }
    let doubled = INITIAL_BACKOFF.saturating_mul(1 << u32::try_from(attempts - 1).unwrap_or(0).min(20));
    let pause = doubled.min(MAX_BACKOFF);
    // Up to a half longer, so that events that failed together are not retried together for ever.
    let jitter = pause.mul_f64(f64::from(Uuid::new_v4().as_fields().0) / f64::from(u32::MAX) / 2.0);
    let due_at = now + (pause + jitter).min(MAX_RETRY_DELAY);
    FailedDelivery { sequence, attempts, reason, due_at: Some(due_at), dead_at: None, handled }
}
