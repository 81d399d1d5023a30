//! Background work of an application: relays events, seals the audit trail, and purges old data.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use resourceful_contract::{NotificationStream, StorageError};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::App;
use crate::catalog::GuardedStorage;
use crate::engine::Engine;
use crate::error::Error;
use crate::events::{Relay, RelayStep};
use crate::live::Live;
use crate::outbox::{PublishNotifier, Tail};

/// The polling interval of the outbox where no notification arrives, as after a change on another node.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// The minimum interval between two notifications by a node.
const MIN_NOTIFY_INTERVAL: Duration = Duration::from_millis(20);
/// The notification channels between nodes: new events in the outbox, and newly published events.
const EVENTS_CHANNEL: &str = "resourceful_events";
const PUBLISHED_CHANNEL: &str = "resourceful_published";
/// The delay after a storage failed.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// The timeout for closing sockets.
const SOCKET_CLOSE_TIMEOUT: Duration = Duration::from_secs(3);
/// The interval between two purges of old data.
const PURGE_INTERVAL: Duration = Duration::from_secs(60);
/// How long delivered events are kept.
const EVENT_RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);

/// An application's background work, until it is dropped; streams end with it.
#[derive(Debug)]
#[must_use = "the work ends when this is dropped"]
pub struct Background {
    tasks: JoinSet<()>,
    stop: Arc<watch::Sender<bool>>,
    live: Option<Arc<Live>>,
}

impl Background {
    /// Stops the work and closes every stream. Deliveries under way are repeated wherever the work continues.
    pub async fn stop(self) {
        self.stop_boxed().await;
    }

    #[inline(never)]
    fn stop_boxed(self) -> BoxFuture<'static, ()> {
        Box::pin(self.close())
    }

    async fn close(mut self) {
        if let Some(live) = &self.live {
            live.hub.close();
            // Sockets are closed with a close frame.
            if tokio::time::timeout(SOCKET_CLOSE_TIMEOUT, live.hub.wait_until_drained()).await.is_err() {
                tracing::debug!("some sockets did not close in time");
            }
        }
        self.stop.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // No more changes arrive: streams that wait for them are closed.
        if let Some(live) = &self.live {
            live.hub.close();
        }
    }
}

impl App {
    /// Starts to deliver events to subscribers, and all other background work.
    ///
    /// [`serve`](Self::serve) does so by itself; call it where the [`router`](Self::router) is served by another server.
    pub fn background(&self) -> Background {
        let stop = Arc::new(watch::Sender::new(false));
        let mut tasks = JoinSet::new();
        let live = self.state.live.clone();
        if let Some(live) = &live {
            live.hub.open();
        }
        if let Some(workers) = self.relay.workers() {
            workers.mark_connecting();
            let (hearing, working) = (workers.clone(), workers.clone());
            tasks.spawn(run_until_stopped(stop.clone(), async move { hearing.receive_outcomes().await }));
            tasks.spawn(run_until_stopped(stop.clone(), working.process_tasks()));
        }
        let engine = &self.state.engine;
        if let (Some(notifier), false) = (self.notifier.clone(), self.tails.is_empty()) {
            let engine = engine.clone();
            tasks
                .spawn(run_until_stopped(stop.clone(), async move { notifier.listen(&engine.outbox).await }));
        }
        for position in 0..engine.outbox.storages().len() {
            let work = || StorageWorker { engine: engine.clone(), position };
            let (one, relay) = (work(), self.relay());
            tasks.spawn(run_until_stopped(stop.clone(), async move { one.relay(&relay).await }));
            let one = work();
            tasks.spawn(run_until_stopped(stop.clone(), async move { one.notify_appended().await }));
            let one = work();
            tasks.spawn(run_until_stopped(stop.clone(), async move { one.sweep().await }));
            let (one, relay, notifier) = (work(), self.relay(), self.notifier.clone());
            tasks.spawn(run_until_stopped(stop.clone(), async move {
                one.notify_published(&relay, notifier).await;
            }));
            if !self.tails.is_empty() {
                let one = work();
                tasks.spawn(run_until_stopped(stop.clone(), async move { one.listen_published().await }));
            }
            for tail in &self.tails {
                let (one, tail) = (work(), tail.clone());
                tasks.spawn(run_until_stopped(stop.clone(), async move { one.run_tail(&tail).await }));
            }
        }
        #[cfg(feature = "webhooks")]
        if let Some(dispatcher) = self.dispatcher.clone() {
            let sweeping = dispatcher.clone();
            tasks.spawn(run_until_stopped(stop.clone(), async move { dispatcher.run().await }));
            tasks.spawn(run_until_stopped(stop.clone(), async move {
                loop {
                    if let Err(error) = sweeping.delete_expired().await {
                        tracing::warn!(
                            error = format!("{error:#}"),
                            "expired webhook deliveries could not be deleted"
                        );
                    }
                    tokio::time::sleep(PURGE_INTERVAL).await;
                }
            }));
        }
        Background { tasks, stop, live }
    }

    /// Releases the relay's leases, so that another node can relay at once.
    pub(super) async fn release_leases(&self) {
        for storage in self.state.engine.outbox.storages() {
            let release = self.state.engine.outbox.release_lease(storage, self.relay.holder());
            if let Ok(Err(error)) = tokio::time::timeout(RETRY_DELAY, release).await {
                tracing::debug!(%error, "the relay's lease could not be released");
            }
        }
    }

    pub(crate) fn relay(&self) -> Arc<Relay> {
        self.relay.clone()
    }

    /// Delivers every due event to its subscribers, sends the webhooks that are due, and returns when none is left: for
    /// tests, and for programs that end.
    ///
    /// # Errors
    /// Where a storage fails.
    pub async fn deliver(&self) -> Result<(), Error> {
        self.deliver_boxed().await
    }

    #[inline(never)]
    fn deliver_boxed(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.deliver_all())
    }

    async fn deliver_all(&self) -> Result<(), Error> {
        #[cfg(feature = "webhooks")]
        if let Some(dispatcher) = &self.dispatcher {
            // Webhooks for the events that are delivered below are queued and sent now.
            dispatcher.reset_throttles();
        }
        for position in 0..self.state.engine.outbox.storages().len() {
            loop {
                match self.relay.step(position).await? {
                    RelayStep::Progressed(_) => {}
                    RelayStep::Busy => self.relay.wait_for_delivery(position).await,
                    RelayStep::Idle | RelayStep::NotHolder => break,
                }
            }
            for tail in &self.tails {
                while tail.step(position).await? {}
            }
        }
        #[cfg(feature = "webhooks")]
        if let Some(dispatcher) = &self.dispatcher {
            dispatcher.drain().await?;
        }
        Ok(())
    }

    /// Purges old data, as the background work does every minute: items that were soft-deleted long enough ago, expired
    /// idempotency keys, events that were delivered a week ago, audit entries and webhook log entries that were kept long
    /// enough, locks that were not taken for a day.
    ///
    /// # Errors
    /// Where a storage fails.
    pub async fn sweep(&self) -> Result<(), Error> {
        self.sweep_boxed().await
    }

    #[inline(never)]
    fn sweep_boxed(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.sweep_all())
    }

    async fn sweep_all(&self) -> Result<(), Error> {
        for storage in self.state.engine.outbox.storages() {
            sweep(&self.state.engine, storage).await?;
        }
        #[cfg(feature = "webhooks")]
        if let Some(dispatcher) = &self.dispatcher {
            dispatcher.delete_expired().await?;
        }
        Ok(())
    }
}

async fn sweep(engine: &Arc<Engine>, storage: &GuardedStorage) -> Result<(), Error> {
    while engine.audit.seal(storage).await? > 0 {}
    engine.purge(storage).await?;
    engine.run_scheduled(storage).await?;
    engine.purge_keys(storage).await?;
    engine.purge_locks(storage).await?;
    engine.outbox.remove_expired_events(storage, EVENT_RETENTION).await?;
    while engine.audit.empty_expired(storage).await? > 0 {}
    Ok(())
}

/// Runs work until the stop signal.
async fn run_until_stopped(stop: Arc<watch::Sender<bool>>, work: impl Future<Output = ()>) {
    let mut receiver = stop.subscribe();
    tokio::select! {
        () = work => {}
        _ = receiver.wait_for(|stop| *stop) => {}
    }
}

/// The notifications of a channel, where the database supports them.
async fn listen(storage: &GuardedStorage, notifications: &str) -> Option<Box<dyn NotificationStream>> {
    storage.listen(notifications).await.unwrap_or_default()
}

/// Completes at the next notification; never where there are none.
async fn next_notification(
    notifications: &mut Option<Box<dyn NotificationStream>>,
) -> Result<(), StorageError> {
    match notifications {
        Some(notifications) => notifications.notified().await,
        None => std::future::pending().await,
    }
}

/// Abandons the relay's work under way when it is dropped.
struct AbandonGuard<'a> {
    relay: &'a Relay,
    position: usize,
}

impl Drop for AbandonGuard<'_> {
    fn drop(&mut self) {
        self.relay.abandon(self.position);
    }
}

/// The background work for one database.
struct StorageWorker {
    engine: Arc<Engine>,
    position: usize,
}

impl StorageWorker {
    fn outbox_storage(&self) -> Option<&GuardedStorage> {
        self.engine.outbox.storages().get(self.position)
    }

    async fn relay(&self, relay: &Arc<Relay>) {
        let Some(storage) = self.outbox_storage() else { return };
        let _guard = AbandonGuard { relay, position: self.position };
        let mut receiver = self.engine.outbox.appended.subscribe();
        let mut notifications = listen(storage, EVENTS_CHANNEL).await;
        loop {
            match relay.step(self.position).await {
                Ok(RelayStep::Progressed(_)) => {}
                Ok(RelayStep::Idle | RelayStep::Busy | RelayStep::NotHolder) => tokio::select! {
                    () = relay.wait_for_delivery(self.position) => {}
                    changed = receiver.changed() => if changed.is_err() { return },
                    notified = next_notification(&mut notifications) => if let Err(error) = notified {
                        tracing::debug!(%error, "listening for notifications failed");
                        notifications = None;
                    },
                    () = tokio::time::sleep(POLL_INTERVAL) => if notifications.is_none() {
                        notifications = listen(storage, EVENTS_CHANNEL).await;
                    },
                },
                Err(error) => {
                    tracing::warn!(error = format!("{error:#}"), "the outbox could not be relayed");
                    tokio::time::sleep(RETRY_DELAY).await;
                }
            }
        }
    }

    /// Notifies other nodes that there are new events, at a limited rate: writes do not wait for it.
    async fn notify_appended(&self) {
        let Some(storage) = self.outbox_storage() else { return };
        let mut receiver = self.engine.outbox.appended.subscribe();
        while receiver.changed().await.is_ok() {
            if let Err(error) = storage.notify(EVENTS_CHANNEL).await {
                tracing::debug!(%error, "a notification could not be sent");
            }
            tokio::time::sleep(MIN_NOTIFY_INTERVAL).await;
        }
    }

    /// Notifies other nodes that events were published here.
    async fn notify_published(&self, relay: &Relay, notifier: Option<Arc<PublishNotifier>>) {
        let (Some(storage), Some(mut published)) = (self.outbox_storage(), relay.published(self.position))
        else {
            return;
        };
        while published.changed().await.is_ok() {
            if let Some(notifier) = &notifier {
                notifier.notify().await;
            }
            if let Err(error) = storage.notify(PUBLISHED_CHANNEL).await {
                tracing::debug!(%error, "a notification could not be sent");
            }
            tokio::time::sleep(MIN_NOTIFY_INTERVAL).await;
        }
    }

    /// Listens for publications by other nodes, where the database supports notifications.
    async fn listen_published(&self) {
        let Some(storage) = self.outbox_storage() else { return };
        loop {
            let mut notifications = listen(storage, PUBLISHED_CHANNEL).await;
            while let Some(one) = &mut notifications {
                match one.notified().await {
                    Ok(()) => self.engine.outbox.published.send_modify(|count| *count += 1),
                    Err(error) => {
                        tracing::debug!(%error, "listening for notifications failed");
                        notifications = None;
                    }
                }
            }
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }

    async fn run_tail(&self, tail: &Tail) {
        let mut published = self.engine.outbox.published.subscribe();
        loop {
            // A panic in a storage or a rule does not stop the delivery of the next events.
            let step = AssertUnwindSafe(tail.step(self.position)).catch_unwind().await;
            match step.unwrap_or_else(|_| Err(Error::internal("delivering changes to subscribers panicked")))
            {
                Ok(true) => {}
                Ok(false) => tokio::select! {
                    changed = published.changed() => if changed.is_err() { return },
                    () = tokio::time::sleep(POLL_INTERVAL) => {}
                },
                Err(error) => {
                    tracing::warn!(error = format!("{error:#}"), "published events could not be read");
                    tokio::time::sleep(RETRY_DELAY).await;
                }
            }
        }
    }

    async fn sweep(&self) {
        let Some(storage) = self.outbox_storage() else { return };
        loop {
            if let Err(error) = sweep(&self.engine, storage).await {
                tracing::warn!(error = format!("{error:#}"), "expired records could not be deleted");
            }
            tokio::time::sleep(PURGE_INTERVAL).await;
        }
    }
}
