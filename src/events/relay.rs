//! The relay: takes events out of the outbox and tells everyone who wants to know, at least once and for each item in
//! order.
//!
//! Of all nodes one at a time relays a database, whoever holds its lease. Its version is the fence: what was delivered is
//! marked in one commit with it, so that a node which lost the lease, or was stopped for a while, marks nothing. Events
//! are marked one by one and not by a position that moves on, so that a transaction which commits late is never skipped,
//! and one which is long open holds up nobody. An item's own events cannot overtake each other: their numbers are taken
//! while their transaction holds the item's row.

use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use futures::future::OptionFuture;
use futures::{FutureExt as _, StreamExt as _};
use tokio::sync::Mutex;
use uuid::Uuid;

use super::Event;
use super::subscriber::{Delivery, LONGEST, Subscription};
use crate::engine::{Engine, Lease, Marked, Vault};
use crate::error::Error;
use crate::tables::events::EventRow;

/// How many events are taken at once.
const STEP: u32 = 500;
/// How many items are told of at once.
const WIDTH: usize = 64;
/// How often an event is tried before it is a dead letter.
const ATTEMPTS: u32 = 10;
/// The first pause before an event is tried again; each one after is twice as long, up to the longest.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(15 * 60);

/// What relays the outboxes of an application from one node.
#[derive(Debug)]
pub(crate) struct Relay {
    engine: Arc<Engine>,
    subscriptions: Arc<[Subscription]>,
    /// This node, among those who may hold a lease.
    holder: String,
    /// The lease of each database, where this node holds it. Locked while it relays.
    held: Vec<Mutex<Option<Lease>>>,
}

/// What one step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Some were taken, so there may be more.
    Took(usize),
    /// There was nothing to do.
    Idle,
    /// Another node relays.
    Elsewhere,
}

/// What became of one event.
struct Told {
    sequence: i64,
    attempts: i64,
    /// The subscribers that handled it, now or before.
    handled: Vec<String>,
    /// Who did not, and why.
    failures: Vec<String>,
}

impl Relay {
    pub(crate) fn new(engine: Arc<Engine>, subscriptions: Arc<[Subscription]>) -> Self {
        let held = engine.recorded().iter().map(|_| Mutex::default()).collect();
        Self { engine, subscriptions, holder: Uuid::new_v4().to_string(), held }
    }

    /// How this node is called where it holds a lease.
    pub(crate) fn holder(&self) -> &str {
        &self.holder
    }

    /// Takes some events of a database, by its place among those that keep records, and tells everyone of them.
    ///
    /// # Errors
    /// Where the storage fails.
    pub(crate) async fn step(&self, position: usize) -> Result<Step, Error> {
        let recorded = self.engine.recorded();
        let (Some(vault), Some(held)) = (recorded.get(position), self.held.get(position)) else {
            return Ok(Step::Idle);
        };
        let mut held = held.lock().await;
        let lease = match held.take().filter(Lease::is_fresh) {
            Some(lease) => lease,
            // A lease is written down, so it is taken where there is something to do.
            None if self.engine.pending(vault, 0, 1).await?.is_empty() => return Ok(Step::Idle),
            None => match self.engine.lease(vault, &self.holder).await? {
                Some(lease) => lease,
                None => return Ok(Step::Elsewhere),
            },
        };
        let taken = self.due(vault).await?;
        if taken.is_empty() {
            *held = Some(lease);
            return Ok(Step::Idle);
        }
        let count = taken.len();
        let (lease, told) = self.tell_all(vault, lease, taken).await?;
        let mut delivered = Vec::with_capacity(told.len());
        let mut failed = Vec::new();
        for one in told {
            if one.failures.is_empty() {
                delivered.push(one.sequence);
            } else {
                failed.push(marked(one));
            }
        }
        *held = self.engine.mark(vault, lease, delivered, failed).await?;
        if held.is_some() {
            return Ok(Step::Took(count));
        }
        tracing::warn!("another node relays now: what was delivered meanwhile comes once more");
        Ok(Step::Elsewhere)
    }

    /// The next events that wait for nothing. However many of an item wait, they are passed by.
    async fn due(&self, vault: &Vault) -> Result<Vec<EventRow>, Error> {
        let waiting = self.engine.postponed(vault).await?;
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

    /// Tells of events, item by item and many items at once, and keeps the lease meanwhile.
    async fn tell_all(
        &self,
        vault: &Vault,
        mut lease: Lease,
        rows: Vec<EventRow>,
    ) -> Result<(Lease, Vec<Told>), Error> {
        let mut items: Vec<Vec<EventRow>> = Vec::new();
        let mut places: HashMap<(String, String), usize> = HashMap::new();
        for row in rows {
            let place = *places.entry((row.resource.clone(), row.subject.clone())).or_insert(items.len());
            match items.get_mut(place) {
                Some(item) => item.push(row),
                None => items.push(vec![row]),
            }
        }
        let mut telling = futures::stream::iter(items.into_iter().map(|item| self.tell_of_item(item)))
            .buffer_unordered(WIDTH)
            .concat()
            .boxed();
        // Beside the telling and never instead of it: whoever is told may hold the connection that is waited for.
        let mut renewing: OptionFuture<_> = None.into();
        loop {
            tokio::select! {
                told = &mut telling => {
                    return Ok(match renewing.await.transpose()? {
                        None => (lease, told),
                        Some(Some(renewed)) => (renewed, told),
                        Some(None) => (lease, Vec::new()),
                    });
                }
                () = tokio::time::sleep(Lease::RENEWED) => {
                    renewing = Some(self.engine.lease(vault, &self.holder).boxed()).into();
                }
                Some(renewed) = &mut renewing => match renewed? {
                    Some(renewed) => (lease, renewing) = (renewed, None.into()),
                    None => return Ok((lease, Vec::new())),
                }
            }
        }
    }

    /// Tells of one item's events in order, as far as it goes well.
    async fn tell_of_item(&self, rows: Vec<EventRow>) -> Vec<Told> {
        let mut told = Vec::with_capacity(rows.len());
        for row in rows {
            let one = self.tell(&row).await;
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
    async fn tell(&self, row: &EventRow) -> Told {
        let mut told = Told {
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
        for subscription in wanting {
            let subscriber = &*subscription.name;
            match self.tell_one(subscription, &event, row.attempts).await {
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

    async fn tell_one(
        &self,
        subscription: &Subscription,
        event: &Event,
        attempts: i64,
    ) -> Result<(), String> {
        let delivery = Delivery {
            engine: self.engine.clone(),
            subscriber: subscription.name.clone(),
            event: event.clone(),
            attempt: u32::try_from(attempts + 1).unwrap_or(u32::MAX),
        };
        // A subscriber may panic before it has a future.
        let handled = async { subscription.subscriber.handle(event, &delivery).await };
        let handled = AssertUnwindSafe(handled).catch_unwind();
        match tokio::time::timeout(LONGEST, handled).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(error))) => Err(error.to_string()),
            Ok(Err(_)) => Err("it panicked".to_owned()),
            Err(_) => Err(format!("it took longer than {} s", LONGEST.as_secs())),
        }
    }
}

/// Whether an event waits: for its own time, or for an earlier one of its item.
fn waits(row: &EventRow, waiting: &HashSet<(String, String)>) -> bool {
    waiting.contains(&(row.resource.clone(), row.subject.clone()))
}

/// When a failed event is tried again, if ever.
fn marked(told: Told) -> Marked {
    let Told { sequence, attempts, handled, failures } = told;
    let (now, reason) = (Utc::now(), failures.join("; "));
    if attempts >= i64::from(ATTEMPTS) {
        return Marked { sequence, attempts, reason, due_at: None, dead_at: Some(now), handled };
    }
    let doubled = PAUSE.saturating_mul(1 << u32::try_from(attempts - 1).unwrap_or(0).min(20));
    let pause = doubled.min(LONGEST_PAUSE);
    // Up to a half longer, so that what failed together is not tried together for ever.
    let jitter = pause.mul_f64(f64::from(Uuid::new_v4().as_fields().0) / f64::from(u32::MAX) / 2.0);
    Marked { sequence, attempts, reason, due_at: Some(now + pause + jitter), dead_at: None, handled }
}
