//! Live changes of one application.

use std::sync::Arc;

use tokio::sync::watch;

use super::hub::{Hub, Subscription, SubscriptionSpec};
use super::limits::Streams;
use super::position::StreamScope;
use super::presence::Presence;
use crate::access::GrantsWatcher;
use crate::engine::Engine;
use crate::error::Error;
use crate::outbox::Tail;
use crate::tables::events::Position;

/// The live subscriptions of an application, and the tail that supplies them with changes.
#[derive(Debug)]
pub(crate) struct Live {
    pub(super) engine: Arc<Engine>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) tail: Arc<Tail>,
    /// Incremented when rights may have changed.
    pub(crate) rights: Arc<watch::Sender<u64>>,
    pub(crate) presence: Arc<Presence>,
}

impl GrantsWatcher for Live {
    fn rights_changed(&self) {
        self.rights.send_modify(|count| *count += 1);
        self.hub.request_recheck();
    }
}

impl Live {
    pub(crate) fn new(engine: &Arc<Engine>, limits: Streams, presence: Arc<Presence>) -> Self {
        let interval = limits.heartbeat;
        let hub = Arc::new(Hub::new(engine, limits));
        let tail = Arc::new(Tail::new(engine.outbox.clone(), hub.clone(), interval));
        Self { engine: engine.clone(), hub, tail, rights: Arc::default(), presence }
    }

    /// Adds a subscriber; returns the positions after which it receives every change.
    ///
    /// # Errors
    /// Where there are too many streams, or a storage fails.
    pub(super) async fn join(&self, spec: SubscriptionSpec) -> Result<(Subscription, Vec<Position>), Error> {
        let databases = spec.scope.databases.clone();
        let subscription = self.hub.join(spec)?;
        let mut joined_at = Vec::with_capacity(databases.len());
        // It has joined, so it receives everything after the positions seen by now.
        for database in databases {
            if self.hub.observed(&[database])[0].is_none() {
                // Boxed: it is made once, and the futures of later subscribers do not carry its size.
                Box::pin(self.tail.step(database)).await?;
            }
            let position = self.hub.observed(&[database])[0];
            joined_at.push(position.ok_or_else(|| Error::internal("a database is not followed"))?);
        }
        Ok((subscription, joined_at))
    }

    /// Whether everything after these positions can still be read.
    pub(super) async fn can_replay_from(&self, scope: &StreamScope, at: &[Position]) -> Result<bool, Error> {
        let storages = self.engine.outbox.storages();
        for (database, at) in scope.databases.iter().zip(at) {
            let Some(storage) = storages.get(*database) else { return Ok(false) };
            if !self.engine.outbox.bounds(storage).await?.covers(*at) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
