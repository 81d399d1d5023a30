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

use super::subscriber::{HANDLER_TIMEOUT, RegisteredSubscriber, handle};
use crate::engine::Engine;
use crate::outbox::Event;

/// How many events a node handles at once for other nodes.
const MAX_CONCURRENT: usize = 16;
/// Time limit for starting a task; later it is not started any more, since the relay may have moved on by then.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// After what time a task goes to another node, where the node that took it is silent.
const REDELIVERY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the first events wait for the connection to the bus.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long to wait after the bus failed.
const RETRY_DELAY: Duration = Duration::from_secs(1);
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
struct TaskResult {
    id: Uuid,
    outcome: TaskOutcome,
}

#[derive(Debug, Serialize, Deserialize)]
enum TaskOutcome {
    Handled,
    Failed(String),
    /// The node has no such subscriber, for example because it runs another version.
    Unknown,
}

/// The state of a node's connection to its channel or to the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum ConnectionState {
    #[default]
    Disconnected,
    Connecting,
    Connected,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct BusConnections {
    outcomes: ConnectionState,
    tasks: ConnectionState,
}

/// Drop guard that calls a function when a task ends, however it ends.
struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Distributes the work of one node's relay, and works for the relays of other nodes.
#[derive(Debug)]
pub(crate) struct Workers {
    engine: Arc<Engine>,
    subscribers: Arc<[RegisteredSubscriber]>,
    bus: Arc<dyn Bus>,
    queue: String,
    /// The channel on which this node receives outcomes.
    channel: String,
    connections: watch::Sender<BusConnections>,
    waiters: Mutex<HashMap<Uuid, oneshot::Sender<TaskOutcome>>>,
}

impl Workers {
    /// `application` is a name that all nodes of an application share and no other application has.
    pub(crate) fn new(
        engine: Arc<Engine>,
        subscribers: Arc<[RegisteredSubscriber]>,
        bus: Arc<dyn Bus>,
        application: &str,
    ) -> Self {
        Self {
            engine,
            subscribers,
            bus,
            queue: format!("events.{application}"),
            channel: format!("delivered.{application}.{}", Uuid::new_v4().simple()),
            connections: watch::Sender::default(),
            waiters: Mutex::default(),
        }
    }

    /// Has a node call a subscriber; `None` where no node could, so that it is to be called here.
    pub(crate) async fn dispatch(
        &self,
        registered: &RegisteredSubscriber,
        event: &Event,
        attempt: u32,
    ) -> Option<Result<(), String>> {
        if !self.is_connected().await {
            return None;
        }
        let task = Task {
            id: Uuid::now_v7(),
            subscriber: registered.name.to_string(),
            event: event.clone(),
            attempt,
            begun_by: Utc::now() + START_TIMEOUT,
            relay: self.channel.clone(),
        };
        let message = serde_json::to_vec(&task).ok()?;
        let receiver = OutcomeWaiter::of(self, task.id);
        if let Err(error) = self.bus.send(&self.queue, message).await {
            tracing::debug!(%error, "the bus is unavailable: subscribers are called on this node");
            return None;
        }
        match tokio::time::timeout(START_TIMEOUT + HANDLER_TIMEOUT + REDELIVERY_TIMEOUT, receiver).await {
            Ok(Some(TaskOutcome::Handled)) => Some(Ok(())),
            Ok(Some(TaskOutcome::Failed(reason))) => Some(Err(reason)),
            Ok(Some(TaskOutcome::Unknown)) => None,
            Ok(None) | Err(_) => Some(Err("no node reported the outcome of the event".to_owned())),
        }
    }

    fn lock_waiters(&self) -> MutexGuard<'_, HashMap<Uuid, oneshot::Sender<TaskOutcome>>> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks both connections as being made, so that events wait for them instead of bypassing the queue.
    pub(crate) fn mark_connecting(&self) {
        self.connections.send_replace(BusConnections {
            outcomes: ConnectionState::Connecting,
            tasks: ConnectionState::Connecting,
        });
    }

    /// Whether tasks can be queued: that takes a connection to the queue and one to the channel of outcomes.
    async fn is_connected(&self) -> bool {
        let mut connections = self.connections.subscribe();
        let decided = connections.wait_for(|connections| {
            connections.outcomes != ConnectionState::Connecting
                && connections.tasks != ConnectionState::Connecting
        });
        match tokio::time::timeout(CONNECT_TIMEOUT, decided).await {
            Ok(Ok(connections)) => {
                *connections
                    == BusConnections {
                        outcomes: ConnectionState::Connected,
                        tasks: ConnectionState::Connected,
                    }
            }
            _ => false,
        }
    }

    /// Receives outcomes, for as long as the application runs.
    pub(crate) async fn receive_outcomes(&self) {
        let hears = |link| self.connections.send_modify(|connections| connections.outcomes = link);
        let _guard = OnDrop(|| hears(ConnectionState::Disconnected));
        loop {
            if let Err(error) = self.receive_until_error().await {
                tracing::debug!(%error, "the bus is unavailable: subscribers are called on the relay's node");
            }
            hears(ConnectionState::Disconnected);
            self.lock_waiters().clear();
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }

    async fn receive_until_error(&self) -> Result<(), StorageError> {
        let mut listener = self.bus.listen(&self.channel).await?;
        self.connections.send_modify(|connections| connections.outcomes = ConnectionState::Connected);
        loop {
            match listener.recv().await? {
                BusEvent::Message(message) => {
                    if let Ok(result) = serde_json::from_slice::<TaskResult>(&message)
                        && let Some(waiting) = self.lock_waiters().remove(&result.id)
                    {
                        // The receiver may have given up.
                        let _ = waiting.send(result.outcome);
                    }
                }
                // Outcomes were missed, and it is unknown of which tasks.
                BusEvent::Missed => self.lock_waiters().clear(),
                BusEvent::Back => {}
            }
        }
    }

    /// Handles tasks that relays queue, for as long as the application runs.
    pub(crate) async fn process_tasks(self: Arc<Self>) {
        let works = |link| self.connections.send_modify(|connections| connections.tasks = link);
        let _guard = OnDrop(|| works(ConnectionState::Disconnected));
        loop {
            if let Err(error) = self.clone().process_until_error().await {
                tracing::debug!(%error, "the bus is away");
            }
            works(ConnectionState::Disconnected);
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }

    async fn process_until_error(self: Arc<Self>) -> Result<(), StorageError> {
        let consumer = self.bus.consume(&self.queue, GROUP, REDELIVERY_TIMEOUT).await?;
        self.connections.send_modify(|connections| connections.tasks = ConnectionState::Connected);
        let mut in_progress: JoinSet<()> = JoinSet::new();
        let mut ids: HashMap<tokio::task::Id, String> = HashMap::new();
        let mut heartbeat = tokio::time::interval(REDELIVERY_TIMEOUT / 4);
        // Kept across iterations: a future that is dropped may have taken a task.
        let mut next = consumer.next();
        loop {
            tokio::select! {
                delivery = &mut next, if in_progress.len() < MAX_CONCURRENT => {
                    let delivery = delivery?;
                    next = consumer.next();
                    let id = delivery.id.clone();
                    let task = in_progress.spawn(self.clone().handle(consumer.clone(), delivery));
                    ids.insert(task.id(), id);
                }
                Some(result) = in_progress.join_next_with_id() => {
                    let task = match result {
                        Ok((task, ())) => task,
                        Err(error) => error.id(),
                    };
                    ids.remove(&task);
                }
                _ = heartbeat.tick() => {
                    let ids: Vec<_> = ids.values().cloned().collect();
                    consumer.keep(&ids).await?;
                }
            }
        }
    }

    /// Handles one task and reports its outcome.
    async fn handle(self: Arc<Self>, consumer: Arc<dyn Consumer>, delivery: QueueDelivery) {
        if let Ok(task) = serde_json::from_slice::<Task>(&delivery.message)
            && task.begun_by > Utc::now()
        {
            let registered = self.subscribers.iter().find(|one| *one.name == *task.subscriber);
            let outcome = match registered {
                Some(registered) => match handle(&self.engine, registered, &task.event, task.attempt).await {
                    Ok(()) => TaskOutcome::Handled,
                    Err(reason) => TaskOutcome::Failed(reason),
                },
                None => TaskOutcome::Unknown,
            };
            let result = serde_json::to_vec(&TaskResult { id: task.id, outcome }).unwrap_or_default();
            if let Err(error) = self.bus.publish(&task.relay, result).await {
                tracing::debug!(%error, "the outcome of an event could not be reported: it is delivered again");
            }
        }
        if let Err(error) = consumer.acknowledge(&delivery.id).await {
            tracing::debug!(%error, "an event could not be acknowledged");
        }
    }
}

/// Waits for an outcome; dropping it removes its entry.
struct OutcomeWaiter<'a> {
    workers: &'a Workers,
    id: Uuid,
    receiver: oneshot::Receiver<TaskOutcome>,
}

impl<'a> OutcomeWaiter<'a> {
    fn of(workers: &'a Workers, id: Uuid) -> Self {
        let (sender, receiver) = oneshot::channel();
        workers.lock_waiters().insert(id, sender);
        Self { workers, id, receiver }
    }
}

impl Future for OutcomeWaiter<'_> {
    type Output = Option<TaskOutcome>;

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<TaskOutcome>> {
        std::pin::Pin::new(&mut self.receiver).poll(context).map(Result::ok)
    }
}

impl Drop for OutcomeWaiter<'_> {
    fn drop(&mut self) {
        self.workers.lock_waiters().remove(&self.id);
    }
}
