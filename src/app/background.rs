//! What an application does beside answering: it tells of changes, seals the audit trail, and clears what is old.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use resourceful_contract::{NotificationStream, StorageError};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::App;
use crate::engine::{Engine, GuardedStorage};
use crate::error::Error;
use crate::events::{PublishNotifier, Relay, Step, Tail};
use crate::live::Live;

/// How often the outbox is looked at where nobody says that there is something new, as after a change on another node.
const LOOK: Duration = Duration::from_millis(500);
/// How often a node rings at most.
const RINGS: Duration = Duration::from_millis(20);
/// What nodes listen to: there is something in the outbox, and something was published.
const BELL: &str = "resourceful_events";
const PUBLISHED: &str = "resourceful_published";
/// How long to wait after a storage failed.
const RECOVER: Duration = Duration::from_secs(1);
/// How long sockets may take to close.
const FAREWELL: Duration = Duration::from_secs(3);
/// How often what is old is cleared.
const SWEEP: Duration = Duration::from_secs(60);
/// How long delivered events are kept.
const EVENTS_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// An application's work in the background, until it is dropped; streams end with it.
#[derive(Debug)]
#[must_use = "the work ends when this is dropped"]
pub struct Background {
    tasks: JoinSet<()>,
    stop: Arc<watch::Sender<bool>>,
    live: Option<Arc<Live>>,
}

impl Background {
    /// Ends the work, and every stream. What is being delivered comes once more, to whoever goes on.
    pub async fn stop(mut self) {
        if let Some(live) = &self.live {
            live.hub.close();
            // They are closed as sockets are, with a word.
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
        // Nobody brings what happens any more: whoever waits for it is told so.
        if let Some(live) = &self.live {
            live.hub.close();
        }
    }
}

impl App {
    /// Starts to tell subscribers of changes, and everything else that is done beside answering.
    ///
    /// [`serve`](Self::serve) does so by itself; call it where the [`router`](Self::router) is served by something else.
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
            tasks.spawn(until(stop.clone(), async move { news.hear(&engine).await }));
        }
        for position in 0..engine.recorded().len() {
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

    /// Lets another node relay at once.
    pub(super) async fn leave(&self) {
        for vault in self.boundary.engine.recorded() {
            let left = self.boundary.engine.give_up(vault, self.relay.holder());
            if let Ok(Err(error)) = tokio::time::timeout(RECOVER, left).await {
                tracing::debug!(%error, "the relay's lease was not given up");
            }
        }
    }

    pub(crate) fn relay(&self) -> Arc<Relay> {
        self.relay.clone()
    }

    /// Tells subscribers of every event that is due, sends the webhooks that are due, and comes back when there is none
    /// left: for tests, and for programs that end.
    ///
    /// # Errors
    /// Where a storage fails.
    pub async fn deliver(&self) -> Result<(), Error> {
        #[cfg(feature = "webhooks")]
        if let Some(dispatcher) = &self.dispatcher {
            // What is told now is queued to be sent now.
            dispatcher.rest();
        }
        for position in 0..self.boundary.engine.recorded().len() {
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

    /// Clears what is old, as is done every minute in the background: items that were deleted long enough ago, idempotency
    /// keys that have expired, events that were delivered a week ago, audit entries and the log of webhooks that were kept
    /// long enough, locks that nobody has taken for a day.
    ///
    /// # Errors
    /// Where a storage fails.
    pub async fn sweep(&self) -> Result<(), Error> {
        for vault in self.boundary.engine.recorded() {
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
    while engine.seal(vault).await? > 0 {}
    engine.purge(vault).await?;
    engine.forget_keys(vault).await?;
    engine.forget_locks(vault).await?;
    engine.forget_events(vault, EVENTS_KEPT).await?;
    while engine.forget_audit(vault).await? > 0 {}
    Ok(())
}

/// Runs work until it is to stop.
async fn until(stop: Arc<watch::Sender<bool>>, work: impl Future<Output = ()>) {
    let mut told = stop.subscribe();
    tokio::select! {
        () = work => {}
        _ = told.wait_for(|stop| *stop) => {}
    }
}

/// A bell of a database that has one.
async fn heard(vault: &GuardedStorage, bell: &str) -> Option<Box<dyn NotificationStream>> {
    vault.hear(bell).await.unwrap_or_default()
}

/// Done when a bell is rung; never where there is none.
async fn rung(bell: &mut Option<Box<dyn NotificationStream>>) -> Result<(), StorageError> {
    match bell {
        Some(bell) => bell.rung().await,
        None => std::future::pending().await,
    }
}

/// Gives up what is under way when it is dropped.
struct Abandoned<'a> {
    relay: &'a Relay,
    position: usize,
}

impl Drop for Abandoned<'_> {
    fn drop(&mut self) {
        self.relay.abandon(self.position);
    }
}

/// The work for one database.
struct Work {
    engine: Arc<Engine>,
    position: usize,
}

impl Work {
    fn vault(&self) -> Option<&GuardedStorage> {
        self.engine.recorded().get(self.position).copied()
    }

    async fn relay(&self, relay: &Arc<Relay>) {
        let Some(vault) = self.vault() else { return };
        let _abandoned = Abandoned { relay, position: self.position };
        let mut told = self.engine.told.subscribe();
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

    /// Tells other nodes that there is something new, however much there is: writes do not wait for it.
    async fn ring(&self) {
        let Some(vault) = self.vault() else { return };
        let mut told = self.engine.told.subscribe();
        while told.changed().await.is_ok() {
            if let Err(error) = vault.ring(BELL).await {
                tracing::debug!(%error, "the bell could not be rung");
            }
            tokio::time::sleep(RINGS).await;
        }
    }

    /// Tells other nodes that something was published here.
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

    /// Hears of what other nodes published, where the database has bells.
    async fn hear_published(&self) {
        let Some(vault) = self.vault() else { return };
        loop {
            let mut bell = heard(vault, PUBLISHED).await;
            while let Some(one) = &mut bell {
                match one.rung().await {
                    Ok(()) => self.engine.published.send_modify(|count| *count += 1),
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
        let mut published = self.engine.published.subscribe();
        loop {
            // Whatever a storage or a rule does, the next events are told.
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
