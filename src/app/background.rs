//! Background work of an application: relays events, seals the audit trail, and purges old data.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use resourceful_contract::{NotificationStream, StorageError};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::App;
use crate::catalog::GuardedStorage;
use crate::engine::Engine;
use crate::error::Error;
use crate::events::{Relay, Step};
use crate::live::Live;
use crate::outbox::{PublishNotifier, Tail};

/// The polling interval of the outbox where no notification arrives, as after a change on another node.
const LOOK: Duration = Duration::from_millis(500);
/// The minimum interval between two notifications by a node.
const RINGS: Duration = Duration::from_millis(20);
/// The notification channels between nodes: new events in the outbox, and newly published events.
const BELL: &str = "resourceful_events";
const PUBLISHED: &str = "resourceful_published";
/// The delay after a storage failed.
const RECOVER: Duration = Duration::from_secs(1);
/// The timeout for closing sockets.
const FAREWELL: Duration = Duration::from_secs(3);
/// The interval between two purges of old data.
const SWEEP: Duration = Duration::from_secs(60);
/// How long delivered events are kept.
const EVENTS_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

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
    pub async fn stop(mut self) {
        if let Some(live) = &self.live {
            live.hub.close();
            // Sockets are closed with a close frame.
            if tokio::time::timeout(FAREWELL, live.hub.left()).await.is_err() {
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
        let live = self.boundary.live.clone();
        if let Some(live) = &live {
            live.hub.open();
        }
        if let Some(workers) = self.relay.workers() {
            workers.join();
            let (hearing, working) = (workers.clone(), workers.clone());
            tasks.spawn(until(stop.clone(), async move { hearing.hear().await }));
            tasks.spawn(until(stop.clone(), working.work()));
        }
        let engine = &self.boundary.engine;
        if let (Some(news), false) = (self.news.clone(), self.tails.is_empty()) {
            let engine = engine.clone();
            tasks.spawn(until(stop.clone(), async move { news.hear(&engine.outbox).await }));
        }
        for position in 0..engine.outbox.storages().len() {
            let work = || Work { engine: engine.clone(), position };
            let (one, relay) = (work(), self.relay());
            tasks.spawn(until(stop.clone(), async move { one.relay(&relay).await }));
            let one = work();
            tasks.spawn(until(stop.clone(), async move { one.ring().await }));
            let one = work();
            tasks.spawn(until(stop.clone(), async move { one.sweep().await }));
            let (one, relay, news) = (work(), self.relay(), self.news.clone());
            tasks.spawn(until(stop.clone(), async move { one.ring_published(&relay, news).await }));
            if !self.tails.is_empty() {
                let one = work();
                tasks.spawn(until(stop.clone(), async move { one.hear_published().await }));
            }
            for tail in &self.tails {
                let (one, tail) = (work(), tail.clone());
                tasks.spawn(until(stop.clone(), async move { one.follow(&tail).await }));
            }
        }
        #[cfg(feature = "webhooks")]
        if let Some(dispatcher) = self.dispatcher.clone() {
            let sweeping = dispatcher.clone();
            tasks.spawn(until(stop.clone(), async move { dispatcher.run().await }));
            tasks.spawn(until(stop.clone(), async move {
                loop {
                    if let Err(error) = sweeping.sweep().await {
                        tracing::warn!(
                            error = format!("{error:#}"),
                            "the log of webhooks could not be cleared"
                        );
                    }
                    tokio::time::sleep(SWEEP).await;
                }
            }));
        }
        Background { tasks, stop, live }
    }

    /// Releases the relay's leases, so that another node can relay at once.
    pub(super) async fn leave(&self) {
        for vault in self.boundary.engine.outbox.storages() {
            let left = self.boundary.engine.outbox.give_up(vault, self.relay.holder());
            if let Ok(Err(error)) = tokio::time::timeout(RECOVER, left).await {
                tracing::debug!(%error, "the relay's lease was not given up");
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
        #[cfg(feature = "webhooks")]
        if let Some(dispatcher) = &self.dispatcher {
            // Webhooks for the events that are delivered below are queued and sent now.
            dispatcher.rest();
        }
        for position in 0..self.boundary.engine.outbox.storages().len() {
            loop {
                match self.relay.step(position).await? {
                    Step::Took(_) => {}
                    Step::Busy => self.relay.one_is_done(position).await,
                    Step::Idle | Step::Elsewhere => break,
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
        for vault in self.boundary.engine.outbox.storages() {
            sweep(&self.boundary.engine, vault).await?;
        }
        #[cfg(feature = "webhooks")]
        if let Some(dispatcher) = &self.dispatcher {
            dispatcher.sweep().await?;
        }
        Ok(())
    }
}

async fn sweep(engine: &Arc<Engine>, vault: &GuardedStorage) -> Result<(), Error> {
    while engine.audit.seal(vault).await? > 0 {}
    engine.purge(vault).await?;
    engine.run_scheduled(vault).await?;
    engine.forget_keys(vault).await?;
    engine.forget_locks(vault).await?;
    engine.outbox.forget_events(vault, EVENTS_KEPT).await?;
    while engine.audit.forget(vault).await? > 0 {}
    Ok(())
}

/// Runs work until the stop signal.
async fn until(stop: Arc<watch::Sender<bool>>, work: impl Future<Output = ()>) {
    let mut told = stop.subscribe();
    tokio::select! {
        () = work => {}
        _ = told.wait_for(|stop| *stop) => {}
    }
}

/// The notifications of a channel, where the database supports them.
async fn heard(vault: &GuardedStorage, bell: &str) -> Option<Box<dyn NotificationStream>> {
    vault.hear(bell).await.unwrap_or_default()
}

/// Completes at the next notification; never where there are none.
async fn rung(bell: &mut Option<Box<dyn NotificationStream>>) -> Result<(), StorageError> {
    match bell {
        Some(bell) => bell.rung().await,
        None => std::future::pending().await,
    }
}

/// Abandons the relay's work under way when it is dropped.
struct Abandoned<'a> {
    relay: &'a Relay,
    position: usize,
}

impl Drop for Abandoned<'_> {
    fn drop(&mut self) {
        self.relay.abandon(self.position);
    }
}

/// The background work for one database.
struct Work {
    engine: Arc<Engine>,
    position: usize,
}

impl Work {
    fn vault(&self) -> Option<&GuardedStorage> {
        self.engine.outbox.storages().get(self.position)
    }

    async fn relay(&self, relay: &Arc<Relay>) {
        let Some(vault) = self.vault() else { return };
        let _abandoned = Abandoned { relay, position: self.position };
        let mut told = self.engine.outbox.appended.subscribe();
        let mut bell = heard(vault, BELL).await;
        loop {
            match relay.step(self.position).await {
                Ok(Step::Took(_)) => {}
                Ok(Step::Idle | Step::Busy | Step::Elsewhere) => tokio::select! {
                    () = relay.one_is_done(self.position) => {}
                    changed = told.changed() => if changed.is_err() { return },
                    rung = rung(&mut bell) => if let Err(error) = rung {
                        tracing::debug!(%error, "the bell is not heard");
                        bell = None;
                    },
                    () = tokio::time::sleep(LOOK) => if bell.is_none() {
                        bell = heard(vault, BELL).await;
                    },
                },
                Err(error) => {
                    tracing::warn!(error = format!("{error:#}"), "the outbox could not be relayed");
                    tokio::time::sleep(RECOVER).await;
                }
            }
        }
    }

    /// Notifies other nodes that there are new events, at a limited rate: writes do not wait for it.
    async fn ring(&self) {
        let Some(vault) = self.vault() else { return };
        let mut told = self.engine.outbox.appended.subscribe();
        while told.changed().await.is_ok() {
            if let Err(error) = vault.ring(BELL).await {
                tracing::debug!(%error, "the bell could not be rung");
            }
            tokio::time::sleep(RINGS).await;
        }
    }

    /// Notifies other nodes that events were published here.
    async fn ring_published(&self, relay: &Relay, news: Option<Arc<PublishNotifier>>) {
        let (Some(vault), Some(mut published)) = (self.vault(), relay.published(self.position)) else {
            return;
        };
        while published.changed().await.is_ok() {
            if let Some(news) = &news {
                news.tell().await;
            }
            if let Err(error) = vault.ring(PUBLISHED).await {
                tracing::debug!(%error, "the bell could not be rung");
            }
            tokio::time::sleep(RINGS).await;
        }
    }

    /// Listens for publications by other nodes, where the database supports notifications.
    async fn hear_published(&self) {
        let Some(vault) = self.vault() else { return };
        loop {
            let mut bell = heard(vault, PUBLISHED).await;
            while let Some(one) = &mut bell {
                match one.rung().await {
                    Ok(()) => self.engine.outbox.published.send_modify(|count| *count += 1),
                    Err(error) => {
                        tracing::debug!(%error, "the bell is not heard");
                        bell = None;
                    }
                }
            }
            tokio::time::sleep(RECOVER).await;
        }
    }

    async fn follow(&self, tail: &Tail) {
        let mut published = self.engine.outbox.published.subscribe();
        loop {
            // A panic in a storage or a rule does not stop the delivery of the next events.
            let step = AssertUnwindSafe(tail.step(self.position)).catch_unwind().await;
            match step.unwrap_or_else(|_| Err(Error::internal("telling of changes panicked"))) {
                Ok(true) => {}
                Ok(false) => tokio::select! {
                    changed = published.changed() => if changed.is_err() { return },
                    () = tokio::time::sleep(LOOK) => {}
                },
                Err(error) => {
                    tracing::warn!(error = format!("{error:#}"), "published events could not be read");
                    tokio::time::sleep(RECOVER).await;
                }
            }
        }
    }

    async fn sweep(&self) {
        let Some(vault) = self.vault() else { return };
        loop {
            if let Err(error) = sweep(&self.engine, vault).await {
                tracing::warn!(error = format!("{error:#}"), "what is old could not be cleared");
            }
            tokio::time::sleep(SWEEP).await;
        }
    }
}
