//! The relay: takes events out of the outbox and tells everyone who wants to know, at least once and for each item in
//! order.
//!
//! Of all nodes one at a time relays a database, whoever holds its lease. Its version is the fence: what was delivered is
//! marked in one commit with it, so that a node which lost the lease, or was stopped for a while, marks nothing. Events
//! are marked one by one and not by a position that moves on, so that a transaction which commits late is never skipped,
//! and one which is long open holds up nobody. An item's own events cannot overtake each other: their numbers are taken
//! while their transaction holds the item's row.
//!
//! First of all an event is published: it gets its position, which is the fence of that commit, whether or not somebody
//! subscribes and however those are. Who follows by position (streams, caches) waits for no subscriber.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use futures::future::join_all;
use indexmap::IndexMap;
use tokio::sync::{Mutex, Semaphore, watch};
use tokio::task::{self, JoinSet};
use uuid::Uuid;

use super::Event;
use super::Workers;
use super::subscriber::{Subscription, handle};
use crate::engine::{Engine, GuardedStorage, LONGEST_RETRY_DELAY, Lease, Marked, Marks};
use crate::error::Error;
use crate::tables::events::EventRow;

/// How many events are published at once.
const PUBLISHED: u32 = 500;
/// How many events are under way at most.
const STEP: u32 = 500;
/// How many events are told of at once.
const WIDTH: usize = 64;
/// How often an event is tried before it is a dead letter.
const ATTEMPTS: u32 = 10;
/// The first pause before an event is tried again; each one after is twice as long, up to the longest. Jitter adds up to
/// a half.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(15 * 60);

/// What relays the outboxes of an application from one node.
#[derive(Debug)]
pub(crate) struct Relay {
    engine: Arc<Engine>,
    subscriptions: Arc<[Subscription]>,
    /// Where there are other nodes to do the work, too.
    workers: Option<Arc<Workers>>,
    /// This node, among those who may hold a lease.
    holder: String,
    /// Of each database, locked while it relays.
    held: Vec<Mutex<Held>>,
    /// Of each database, goes up when this node published something.
    published: Vec<watch::Sender<u64>>,
    /// How many are told at once.
    room: Semaphore,
}

/// A resource and the id of an item.
type Item = (String, String);

/// What this node has in hand of one database.
#[derive(Debug, Default)]
struct Held {
    /// Where this node holds it.
    lease: Option<Lease>,
    telling: JoinSet<Vec<RelayOutcome>>,
    /// The items that are told of, and by how many events.
    items: HashMap<task::Id, (Item, usize)>,
    /// What is to be written down.
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

    /// Another node goes on from here, or this one later.
    fn lost(&mut self) -> Step {
        if !self.is_empty() {
            tracing::warn!("another node relays now: what was told of meanwhile comes once more");
        }
        *self = Self::default();
        Step::Elsewhere
    }
}

/// What one step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Some were written down or begun, so there may be more.
    Took(usize),
    /// There was nothing to do until something that is under way ends.
    Busy,
    /// There was nothing to do.
    Idle,
    /// Another node relays.
    Elsewhere,
}

/// What became of one event.
#[derive(Debug)]
struct RelayOutcome {
    sequence: i64,
    attempts: i64,
    /// The subscribers that handled it, now or before.
    handled: Vec<String>,
    /// Who did not, and why.
    failures: Vec<String>,
}

impl Relay {
    pub(crate) fn new(
        engine: Arc<Engine>,
        subscriptions: Arc<[Subscription]>,
        workers: Option<Arc<Workers>>,
    ) -> Self {
        let held = engine.recorded().iter().map(|_| Mutex::default()).collect();
        let published = engine.recorded().iter().map(|_| watch::Sender::default()).collect();
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

    /// What spreads the work, where that is done.
    pub(crate) const fn workers(&self) -> Option<&Arc<Workers>> {
        self.workers.as_ref()
    }

    /// Goes up when this node published something of a database.
    pub(crate) fn published(&self, position: usize) -> Option<watch::Receiver<u64>> {
        self.published.get(position).map(watch::Sender::subscribe)
    }

    /// How this node is called where it holds a lease.
    pub(crate) fn holder(&self) -> &str {
        &self.holder
    }

    /// Publishes the new events of a database, by its place among those that keep records, writes down what became of
    /// others, and begins to tell of those that are due. What is under way is not waited for, so that whoever takes long
    /// holds up nobody.
    ///
    /// # Errors
    /// Where the storage fails.
    pub(crate) async fn step(self: &Arc<Self>, position: usize) -> Result<Step, Error> {
        let recorded = self.engine.recorded();
        let (Some(vault), Some(held)) = (recorded.get(position), self.held.get(position)) else {
            return Ok(Step::Idle);
        };
        let mut held = held.lock().await;
        while let Some(done) = held.telling.try_join_next_with_id() {
            held.note(done);
        }
        let lease = match held.lease.take().filter(Lease::is_fresh) {
            Some(lease) => lease,
            // A lease is written down, so it is taken where there is something to do.
            None if held.is_empty() && self.is_quiet(vault).await? => return Ok(Step::Idle),
            None => match self.engine.lease(vault, &self.holder).await? {
                Some(lease) => lease,
                None => return Ok(held.lost()),
            },
        };
        let marks = self.marks(vault, std::mem::take(&mut held.done)).await?;
        let (marked, publishes) = (marks.len(), marks.publishes());
        held.lease = Some(if marks.is_empty() {
            lease
        } else {
            match self.engine.mark(vault, lease, marks).await? {
                Some(lease) => lease,
                None => return Ok(held.lost()),
            }
        });
        if publishes {
            self.published[position].send_modify(|count| *count += 1);
            self.engine.published.send_modify(|count| *count += 1);
        }
        let began = self.begin(vault, &mut held).await?;
        Ok(match marked + began {
            0 if held.telling.is_empty() => Step::Idle,
            0 => Step::Busy,
            some => Step::Took(some),
        })
    }

    /// Done when something that is under way has come to an end; never where nothing is.
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

    /// Gives up what is under way: it comes once more, to whoever goes on.
    pub(crate) fn abandon(&self, position: usize) {
        if let Some(mut held) = self.held.get(position).and_then(|held| held.try_lock().ok()) {
            *held = Held::default();
        }
    }

    /// Whether there is nothing to publish and nothing to tell.
    async fn is_quiet(&self, vault: &GuardedStorage) -> Result<bool, Error> {
        Ok(self.engine.unpublished(vault, 1).await?.is_empty()
            && self.engine.pending(vault, 0, 1).await?.is_empty())
    }

    /// What is to be written down: what became of those that were told of, and what is new.
    async fn marks(&self, vault: &GuardedStorage, done: Vec<RelayOutcome>) -> Result<Marks, Error> {
        let new = self.engine.unpublished(vault, PUBLISHED).await?;
        let (delivered, failed): (Vec<_>, Vec<_>) = done.into_iter().partition(|one| one.failures.is_empty());
        let mut marks = Marks {
            delivered: delivered.into_iter().map(|one| one.sequence).collect(),
            failed: failed.into_iter().map(marked).collect(),
            ..Marks::default()
        };
        for (sequence, event_type) in new {
            let is_wanted = self.subscriptions.iter().any(|one| one.wants(&event_type));
            // What nobody subscribes to is done with in the same commit.
            if is_wanted { &mut marks.published } else { &mut marks.passed }.push(sequence);
        }
        Ok(marks)
    }

    /// Begins to tell of what is due, as far as there is room; answers of how many events.
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

    /// The next events that wait for nothing. However many of an item wait, they are passed by.
    async fn due(&self, vault: &GuardedStorage, held: &Held) -> Result<Vec<EventRow>, Error> {
        let mut waiting = self.engine.postponed(vault).await?;
        waiting.extend(held.items.values().map(|(item, _)| item.clone()));
        let mut after = 0;
        loop {
            let pending = self.engine.pending(vault, after, STEP).await?;
            let Some(last) = pending.last() else { return Ok(Vec::new()) };
            after = last.sequence;
            let due: Vec<_> = pending.into_iter().filter(|row| !waits(row, &waiting)).collect();
            if !due.is_empty() {
                return Ok(due);
            }
        }
    }

    /// Tells of one item's events in order, as far as it goes well.
    async fn tell_of_item(&self, rows: Vec<EventRow>) -> Vec<RelayOutcome> {
        let mut told = Vec::with_capacity(rows.len());
        for row in rows {
            let room = self.room.acquire().await;
            let one = self.tell(&row).await;
            drop(room);
            let failed = !one.failures.is_empty();
            told.push(one);
            if failed {
                // Those after it wait for it.
                break;
            }
        }
        told
    }

    /// Tells everyone who wants to know and was not told yet.
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
        let event = self.engine.event(row);
        // Side by side: none waits for another one.
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

    /// Has a subscriber told, on whichever node is free.
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

/// Whether an event waits: for its own time, or for an earlier one of its item.
fn waits(row: &EventRow, waiting: &HashSet<(String, String)>) -> bool {
    waiting.contains(&(row.resource.clone(), row.subject.clone()))
}

/// When a failed event is tried again, if ever.
fn marked(told: RelayOutcome) -> Marked {
    let RelayOutcome { sequence, attempts, handled, failures } = told;
    let (now, reason) = (Utc::now(), failures.join("; "));
    if attempts >= i64::from(ATTEMPTS) {
        return Marked { sequence, attempts, reason, due_at: None, dead_at: Some(now), handled };
    }
    let doubled = PAUSE.saturating_mul(1 << u32::try_from(attempts - 1).unwrap_or(0).min(20));
    let pause = doubled.min(LONGEST_PAUSE);
    // Up to a half longer, so that what failed together is not tried together for ever.
    let jitter = pause.mul_f64(f64::from(Uuid::new_v4().as_fields().0) / f64::from(u32::MAX) / 2.0);
    let due_at = now + (pause + jitter).min(LONGEST_RETRY_DELAY);
    Marked { sequence, attempts, reason, due_at: Some(due_at), dead_at: None, handled }
}
