//! Distributes the work of subscribers over the nodes of an application, through its bus.
//!
//! The relay alone knows which events are to be delivered, in which order, and their outcomes: it puts each event for each
//! subscriber into a queue, a free node takes it, and reports the outcome. So nothing depends on what the bus keeps: an
//! event that it loses is delivered again, and while the bus is away the relay calls subscribers itself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use resourceful_contract::{Bus, BusEvent, Consumer, QueueDelivery, StorageError};
use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::subscriber::{LONGEST, Subscription, handle};
use crate::engine::Engine;
use crate::outbox::Event;

/// How many events a node handles at once for other nodes.
const WIDTH: usize = 16;
/// Time limit for starting a task; later it is not started any more, since the relay may have moved on by then.
const BEGUN: Duration = Duration::from_secs(20);
/// After what time a task goes to another node, where the node that took it is silent.
const ABANDONED: Duration = Duration::from_secs(5);
/// How long the first events wait for the connection to the bus.
const JOINED: Duration = Duration::from_secs(2);
/// How long to wait after the bus failed.
const RECOVER: Duration = Duration::from_secs(1);
const GROUP: &str = "subscribers";

/// A queued event for one subscriber.
#[derive(Debug, Serialize, Deserialize)]
struct Task {
    id: Uuid,
    subscriber: String,
    event: Event,
    attempt: u32,
    begun_by: DateTime<Utc>,
    /// The channel that the outcome is reported on.
    relay: String,
}

/// The reported outcome of a task.
#[derive(Debug, Serialize, Deserialize)]
struct Done {
    id: Uuid,
    outcome: Outcome,
}

#[derive(Debug, Serialize, Deserialize)]
enum Outcome {
    Handled,
    Failed(String),
    /// The node has no such subscriber, for example because it runs another version.
    Unknown,
}

/// The state of a node's connection to its channel or to the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Link {
    #[default]
    Away,
    Joining,
    Joined,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Links {
    hears: Link,
    works: Link,
}

/// Drop guard that calls a function when a task ends, however it ends.
struct Left<F: Fn()>(F);

impl<F: Fn()> Drop for Left<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Distributes the work of one node's relay, and works for the relays of other nodes.
#[derive(Debug)]
pub(crate) struct Workers {
    engine: Arc<Engine>,
    subscriptions: Arc<[Subscription]>,
    bus: Arc<dyn Bus>,
    queue: String,
    /// The channel on which this node receives outcomes.
    channel: String,
    links: watch::Sender<Links>,
    waiting: Mutex<HashMap<Uuid, oneshot::Sender<Outcome>>>,
}

impl Workers {
    /// `application` is a name that all nodes of an application share and no other application has.
    pub(crate) fn new(
        engine: Arc<Engine>,
        subscriptions: Arc<[Subscription]>,
        bus: Arc<dyn Bus>,
        application: &str,
    ) -> Self {
        Self {
            engine,
            subscriptions,
            bus,
            queue: format!("events.{application}"),
            channel: format!("told.{application}.{}", Uuid::new_v4().simple()),
            links: watch::Sender::default(),
            waiting: Mutex::default(),
        }
    }

    /// Has a node call a subscriber; `None` where no node could, so that it is to be called here.
    pub(crate) async fn tell(
        &self,
        subscription: &Subscription,
        event: &Event,
        attempt: u32,
    ) -> Option<Result<(), String>> {
        if !self.is_joined().await {
            return None;
        }
        let task = Task {
            id: Uuid::now_v7(),
            subscriber: subscription.name.to_string(),
            event: event.clone(),
            attempt,
            begun_by: Utc::now() + BEGUN,
            relay: self.channel.clone(),
        };
        let message = serde_json::to_vec(&task).ok()?;
        let answer = Waiting::of(self, task.id);
        if let Err(error) = self.bus.send(&self.queue, message).await {
            tracing::debug!(%error, "the bus is unavailable: subscribers are called on this node");
            return None;
        }
        match tokio::time::timeout(BEGUN + LONGEST + ABANDONED, answer).await {
            Ok(Some(Outcome::Handled)) => Some(Ok(())),
            Ok(Some(Outcome::Failed(reason))) => Some(Err(reason)),
            Ok(Some(Outcome::Unknown)) => None,
            Ok(None) | Err(_) => Some(Err("no node said what became of it".to_owned())),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<Uuid, oneshot::Sender<Outcome>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks both connections as being made, so that events wait for them instead of bypassing the queue.
    pub(crate) fn join(&self) {
        self.links.send_replace(Links { hears: Link::Joining, works: Link::Joining });
    }

    /// Whether tasks can be queued: that takes a connection to the queue and one to the channel of outcomes.
    async fn is_joined(&self) -> bool {
        let mut links = self.links.subscribe();
        let decided = links.wait_for(|links| links.hears != Link::Joining && links.works != Link::Joining);
        match tokio::time::timeout(JOINED, decided).await {
            Ok(Ok(links)) => *links == Links { hears: Link::Joined, works: Link::Joined },
            _ => false,
        }
    }

    /// Receives outcomes, for as long as the application runs.
    pub(crate) async fn hear(&self) {
        let hears = |link| self.links.send_modify(|links| links.hears = link);
        let _left = Left(|| hears(Link::Away));
        loop {
            if let Err(error) = self.hear_on().await {
                tracing::debug!(%error, "the bus is unavailable: subscribers are called on the relay's node");
            }
            hears(Link::Away);
            self.waiting().clear();
            tokio::time::sleep(RECOVER).await;
        }
    }

    async fn hear_on(&self) -> Result<(), StorageError> {
        let mut listener = self.bus.listen(&self.channel).await?;
        self.links.send_modify(|links| links.hears = Link::Joined);
        loop {
            match listener.heard().await? {
                BusEvent::Message(message) => {
                    if let Ok(done) = serde_json::from_slice::<Done>(&message)
                        && let Some(waiting) = self.waiting().remove(&done.id)
                    {
                        // The receiver may have given up.
                        let _ = waiting.send(done.outcome);
                    }
                }
                // Outcomes were missed, and it is unknown of which tasks.
                BusEvent::Missed => self.waiting().clear(),
                BusEvent::Back => {}
            }
        }
    }

    /// Handles tasks that relays queue, for as long as the application runs.
    pub(crate) async fn work(self: Arc<Self>) {
        let works = |link| self.links.send_modify(|links| links.works = link);
        let _left = Left(|| works(Link::Away));
        loop {
            if let Err(error) = self.clone().work_on().await {
                tracing::debug!(%error, "the bus is away");
            }
            works(Link::Away);
            tokio::time::sleep(RECOVER).await;
        }
    }

    async fn work_on(self: Arc<Self>) -> Result<(), StorageError> {
        let consumer = self.bus.consume(&self.queue, GROUP, ABANDONED).await?;
        self.links.send_modify(|links| links.works = Link::Joined);
        let mut under_way: JoinSet<()> = JoinSet::new();
        let mut ids: HashMap<tokio::task::Id, String> = HashMap::new();
        let mut keeping = tokio::time::interval(ABANDONED / 4);
        // Kept across iterations: a future that is dropped may have taken a task.
        let mut next = consumer.next();
        loop {
            tokio::select! {
                taken = &mut next, if under_way.len() < WIDTH => {
                    let taken = taken?;
                    next = consumer.next();
                    let id = taken.id.clone();
                    let task = under_way.spawn(self.clone().handle(consumer.clone(), taken));
                    ids.insert(task.id(), id);
                }
                Some(done) = under_way.join_next_with_id() => {
                    let task = match done {
                        Ok((task, ())) => task,
                        Err(error) => error.id(),
                    };
                    ids.remove(&task);
                }
                _ = keeping.tick() => {
                    let ids: Vec<_> = ids.values().cloned().collect();
                    consumer.keep(&ids).await?;
                }
            }
        }
    }

    /// Handles one task and reports its outcome.
    async fn handle(self: Arc<Self>, consumer: Arc<dyn Consumer>, taken: QueueDelivery) {
        if let Ok(task) = serde_json::from_slice::<Task>(&taken.message)
            && task.begun_by > Utc::now()
        {
            let subscription = self.subscriptions.iter().find(|one| *one.name == *task.subscriber);
            let outcome = match subscription {
                Some(subscription) => {
                    match handle(&self.engine, subscription, &task.event, task.attempt).await {
                        Ok(()) => Outcome::Handled,
                        Err(reason) => Outcome::Failed(reason),
                    }
                }
                None => Outcome::Unknown,
            };
            let done = serde_json::to_vec(&Done { id: task.id, outcome }).unwrap_or_default();
            if let Err(error) = self.bus.publish(&task.relay, done).await {
                tracing::debug!(%error, "the outcome of an event could not be reported: it is delivered again");
            }
        }
        if let Err(error) = consumer.acknowledge(&taken.id).await {
            tracing::debug!(%error, "an event could not be acknowledged");
        }
    }
}

/// Waits for an outcome; dropping it removes its entry.
struct Waiting<'a> {
    workers: &'a Workers,
    id: Uuid,
    answer: oneshot::Receiver<Outcome>,
}

impl<'a> Waiting<'a> {
    fn of(workers: &'a Workers, id: Uuid) -> Self {
        let (sender, answer) = oneshot::channel();
        workers.waiting().insert(id, sender);
        Self { workers, id, answer }
    }
}

impl Future for Waiting<'_> {
    type Output = Option<Outcome>;

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Outcome>> {
        std::pin::Pin::new(&mut self.answer).poll(context).map(Result::ok)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.workers.waiting().remove(&self.id);
    }
}
