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
use super::subscriber::{Subscription, handle};
use crate::catalog::GuardedStorage;
use crate::engine::Engine;
use crate::error::Error;
use crate::outbox::Event;
use crate::outbox::{LONGEST_RETRY_DELAY, Lease, Marked, Marks};
use crate::tables::events::EventRow;

/// How many events are published at once.
const PUBLISHED: u32 = 500;
/// The most events under way at once.
const STEP: u32 = 500;
/// How many events are delivered concurrently.
const WIDTH: usize = 64;
/// How often delivery of an event is attempted before it is a dead letter.
const ATTEMPTS: u32 = 10;
/// The pause before the first retry of an event; each further one is twice as long, up to the longest. Jitter adds up to a
/// half.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(15 * 60);

/// Relays the outboxes of an application from one node.
#[derive(Debug)]
pub(crate) struct Relay {
    engine: Arc<Engine>,
    subscriptions: Arc<[Subscription]>,
    /// Distributes the work, where there are other nodes.
    workers: Option<Arc<Workers>>,
    /// The id of this node as a lease holder.
    holder: String,
    /// One for each database, locked while that is relayed.
    held: Vec<Mutex<Held>>,
    /// One for each database, incremented when this node published events.
    published: Vec<watch::Sender<u64>>,
    /// Limits concurrent deliveries.
    room: Semaphore,
}

/// A resource and the id of an item.
type Item = (String, String);

/// The relay state of one database on this node.
#[derive(Debug, Default)]
struct Held {
    /// The lease, where this node holds it.
    lease: Option<Lease>,
    telling: JoinSet<Vec<RelayOutcome>>,
    /// Items whose events are being delivered, with the number of events.
    items: HashMap<task::Id, (Item, usize)>,
    /// Outcomes that are not written to the outbox yet.
    done: Vec<RelayOutcome>,
}

impl Held {
    fn is_empty(&self) -> bool {
        self.telling.is_empty() && self.done.is_empty()
    }

    fn note(&mut self, done: Result<(task::Id, Vec<RelayOutcome>), task::JoinError>) {
        let task = match done {
            Ok((task, told)) => {
                self.done.extend(told);
                task
            }
            Err(error) => error.id(),
        };
        self.items.remove(&task);
    }

    /// Discards the state after the lease was lost: another node continues, or this one later.
    fn lost(&mut self) -> Step {
        if !self.is_empty() {
            tracing::warn!(
                "another node is the relay now: events that were delivered meanwhile are delivered again"
            );
        }
        *self = Self::default();
        Step::Elsewhere
    }
}

/// The result of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// So many events were marked or begun, so there may be more.
    Took(usize),
    /// There was nothing to do until a delivery under way ends.
    Busy,
    /// There was nothing to do.
    Idle,
    /// Another node relays.
    Elsewhere,
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
        subscriptions: Arc<[Subscription]>,
        workers: Option<Arc<Workers>>,
    ) -> Self {
        let held = engine.outbox.storages().iter().map(|_| Mutex::default()).collect();
        let published = engine.outbox.storages().iter().map(|_| watch::Sender::default()).collect();
        Self {
            engine,
            subscriptions,
            workers,
            holder: Uuid::new_v4().to_string(),
            held,
            published,
            room: Semaphore::new(WIDTH),
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
    pub(crate) async fn step(self: &Arc<Self>, position: usize) -> Result<Step, Error> {
        let recorded = self.engine.outbox.storages();
        let (Some(vault), Some(held)) = (recorded.get(position), self.held.get(position)) else {
            return Ok(Step::Idle);
        };
        let mut held = held.lock().await;
        while let Some(done) = held.telling.try_join_next_with_id() {
            held.note(done);
        }
        let lease = match held.lease.take().filter(Lease::is_fresh) {
            Some(lease) => lease,
            // Taking a lease is a write, so it is taken only where there is work.
            None if held.is_empty() && self.is_quiet(vault).await? => return Ok(Step::Idle),
            None => match self.engine.outbox.lease(vault, &self.holder).await? {
                Some(lease) => lease,
                None => return Ok(held.lost()),
            },
        };
        let marks = self.marks(vault, std::mem::take(&mut held.done)).await?;
        let (marked, publishes) = (marks.len(), marks.publishes());
        held.lease = Some(if marks.is_empty() {
            lease
        } else {
            match self.engine.outbox.mark(vault, lease, marks).await? {
                Some(lease) => lease,
                None => return Ok(held.lost()),
            }
        });
        if publishes {
            self.published[position].send_modify(|count| *count += 1);
            self.engine.outbox.published.send_modify(|count| *count += 1);
        }
        let began = self.begin(vault, &mut held).await?;
        Ok(match marked + began {
            0 if held.telling.is_empty() => Step::Idle,
            0 => Step::Busy,
            some => Step::Took(some),
        })
    }

    /// Completes when a delivery under way has ended; never where there is none.
    pub(crate) async fn one_is_done(&self, position: usize) {
        let Some(held) = self.held.get(position) else { return std::future::pending().await };
        let mut held = held.lock().await;
        match held.telling.join_next_with_id().await {
            Some(done) => held.note(done),
            None => {
                drop(held);
                std::future::pending::<()>().await;
            }
        }
    }

    /// Abandons deliveries under way: the next holder of the lease repeats them.
    pub(crate) fn abandon(&self, position: usize) {
        if let Some(mut held) = self.held.get(position).and_then(|held| held.try_lock().ok()) {
            *held = Held::default();
        }
    }

    /// Whether there is nothing to publish and nothing to deliver.
    async fn is_quiet(&self, vault: &GuardedStorage) -> Result<bool, Error> {
        Ok(self.engine.outbox.unpublished(vault, 1).await?.is_empty()
            && self.engine.outbox.pending(vault, 0, 1).await?.is_empty())
    }

    /// The marks of the next commit: outcomes of deliveries, and new events.
    async fn marks(&self, vault: &GuardedStorage, done: Vec<RelayOutcome>) -> Result<Marks, Error> {
        let new = self.engine.outbox.unpublished(vault, PUBLISHED).await?;
        let (delivered, failed): (Vec<_>, Vec<_>) = done.into_iter().partition(|one| one.failures.is_empty());
        let mut marks = Marks {
            delivered: delivered.into_iter().map(|one| one.sequence).collect(),
            failed: failed.into_iter().map(marked).collect(),
            ..Marks::default()
        };
        for (sequence, event_type) in new {
            let is_wanted = self.subscriptions.iter().any(|one| one.wants(&event_type));
            // Events without subscribers are finished in the same commit.
            if is_wanted { &mut marks.published } else { &mut marks.passed }.push(sequence);
        }
        Ok(marks)
    }

    /// Begins deliveries that are due, as far as the limit allows; returns of how many events.
    async fn begin(self: &Arc<Self>, vault: &GuardedStorage, held: &mut Held) -> Result<usize, Error> {
        let under_way: usize = held.items.values().map(|(_, events)| events).sum();
        let room = STEP.saturating_sub(u32::try_from(under_way).unwrap_or(STEP));
        if room == 0 {
            return Ok(0);
        }
        let mut due = self.due(vault, held).await?;
        due.truncate(room as usize);
        let count = due.len();
        let mut items: IndexMap<Item, Vec<EventRow>> = IndexMap::new();
        for row in due {
            items.entry((row.resource.clone(), row.subject.clone())).or_default().push(row);
        }
        for (item, rows) in items {
            let (relay, events) = (self.clone(), rows.len());
            let task = held.telling.spawn(async move { relay.tell_of_item(rows).await });
            held.items.insert(task.id(), (item, events));
        }
        Ok(count)
    }

    /// The next events that wait for no other event. Waiting events are skipped, however many an item has.
    async fn due(&self, vault: &GuardedStorage, held: &Held) -> Result<Vec<EventRow>, Error> {
        let mut waiting = self.engine.outbox.postponed(vault).await?;
        waiting.extend(held.items.values().map(|(item, _)| item.clone()));
        let mut after = 0;
        loop {
            let pending = self.engine.outbox.pending(vault, after, STEP).await?;
            let Some(last) = pending.last() else { return Ok(Vec::new()) };
            after = last.sequence;
            let due: Vec<_> = pending.into_iter().filter(|row| !waits(row, &waiting)).collect();
            if !due.is_empty() {
                return Ok(due);
            }
        }
    }

    /// Delivers one item's events in order, until one fails.
    async fn tell_of_item(&self, rows: Vec<EventRow>) -> Vec<RelayOutcome> {
        let mut told = Vec::with_capacity(rows.len());
        for row in rows {
            let room = self.room.acquire().await;
            let one = self.tell(&row).await;
            drop(room);
            let failed = !one.failures.is_empty();
            told.push(one);
            if failed {
                // Later events wait for it.
                break;
            }
        }
        told
    }

    /// Delivers an event to all its subscribers that have not handled it yet.
    async fn tell(&self, row: &EventRow) -> RelayOutcome {
        let mut told = RelayOutcome {
            sequence: row.sequence,
            attempts: row.attempts + 1,
            handled: row.handled.clone(),
            failures: Vec::new(),
        };
        let is_to_be_told = |subscription: &&Subscription| {
            subscription.wants(&row.event_type)
                && !row.handled.iter().any(|name| **name == *subscription.name)
        };
        let wanting: Vec<_> = self.subscriptions.iter().filter(is_to_be_told).collect();
        if wanting.is_empty() {
            return told;
        }
        let event = self.engine.outbox.event(row);
        // Concurrently: no subscriber waits for another one.
        let telling = wanting.into_iter().map(async |subscription| {
            (&*subscription.name, self.tell_one(subscription, &event, row.attempts).await)
        });
        for (subscriber, outcome) in join_all(telling).await {
            match outcome {
                Ok(()) => told.handled.push(subscriber.to_owned()),
                Err(reason) => {
                    let event = event.id.to_string();
                    tracing::warn!(subscriber, event, reason, "an event was not handled");
                    told.failures.push(format!("{subscriber}: {reason}"));
                }
            }
        }
        told
    }

    /// Delivers an event to one subscriber, on any free node.
    async fn tell_one(
        &self,
        subscription: &Subscription,
        event: &Event,
        attempts: i64,
    ) -> Result<(), String> {
        let attempt = u32::try_from(attempts + 1).unwrap_or(u32::MAX);
        if let Some(workers) = self.workers.as_ref().filter(|_| !subscription.stays)
            && let Some(outcome) = workers.tell(subscription, event, attempt).await
        {
            return outcome;
        }
        handle(&self.engine, subscription, event, attempt).await
    }
}

/// Whether an event waits: for its own retry time, or for an earlier event of its item.
fn waits(row: &EventRow, waiting: &HashSet<(String, String)>) -> bool {
    waiting.contains(&(row.resource.clone(), row.subject.clone()))
}

/// The mark of a failed event: its next retry, or its end as a dead letter.
fn marked(told: RelayOutcome) -> Marked {
    let RelayOutcome { sequence, attempts, handled, failures } = told;
    let (now, reason) = (Utc::now(), failures.join("; "));
    if attempts >= i64::from(ATTEMPTS) {
        return Marked { sequence, attempts, reason, due_at: None, dead_at: Some(now), handled };
    }
    let doubled = PAUSE.saturating_mul(1 << u32::try_from(attempts - 1).unwrap_or(0).min(20));
    let pause = doubled.min(LONGEST_PAUSE);
    // Up to a half longer, so that events that failed together are not retried together for ever.
    let jitter = pause.mul_f64(f64::from(Uuid::new_v4().as_fields().0) / f64::from(u32::MAX) / 2.0);
    let due_at = now + (pause + jitter).min(LONGEST_RETRY_DELAY);
    Marked { sequence, attempts, reason, due_at: Some(due_at), dead_at: None, handled }
}
