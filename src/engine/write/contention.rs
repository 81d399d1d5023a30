//! Retries of writes that met a conflict.
//!
//! A write is computed from the item that was read, and its commit is guarded by that version. Where a concurrent write
//! came between and the request expected no version, the write is computed again from the new state. Of n concurrent
//! writes of one item, one commit succeeds in each round and the others conflict, so the last would conflict n − 1 times.
//! A write that conflicted therefore waits in a queue for its items: on one node, such writes run one after the other, in
//! the order of their conflicts. Only first attempts of other requests, and the heads of other nodes' queues, can still
//! conflict with it; random delays keep these apart.

use std::collections::BTreeSet;
use std::hash::BuildHasher as _;
use std::time::Duration;

use foldhash::fast::FixedState;
use futures::future::BoxFuture;
use resourceful_contract::Value;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, sleep, timeout};

use crate::engine::{Call, Engine};
use crate::error::Error;
use crate::resource::id_text;

/// Number of queues. Items that share one only wait for each other.
const QUEUES: usize = 1_024;
/// How long a write is retried after its first conflict.
const RETRY_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest that a write waits in queues before it continues without its turn. A hook may change other items while its
/// own item is queued for, so two of them could wait for each other.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(1);
/// Upper bound of the delay between two attempts, in milliseconds.
const MAX_BACKOFF_MS: u64 = 64;

/// The queues of an application's contended items.
#[derive(Debug)]
pub(crate) struct Contention(Box<[Mutex<()>]>);

impl Default for Contention {
    fn default() -> Self {
        Self((0..QUEUES).map(|_| Mutex::new(())).collect())
    }
}

/// The attempts of one write.
#[derive(Default)]
pub(in crate::engine) struct ConflictRetry<'a> {
    conflicts: u32,
    deadline: Option<Instant>,
    guards: Vec<MutexGuard<'a, ()>>,
}

impl<'a> ConflictRetry<'a> {
    /// Waits for the next attempt of a write of these items.
    ///
    /// # Errors
    /// Where the time for retries is over.
    pub(in crate::engine) fn wait<'s>(
        &'s mut self,
        engine: &'a Engine,
        items: Vec<QueueIndex>,
    ) -> BoxFuture<'s, Result<(), Error>>
    where
        'a: 's,
    {
        // Boxed: a write without conflicts does not pay for the size of this future.
        Box::pin(async move {
            self.conflicts += 1;
            let deadline = *self.deadline.get_or_insert_with(|| Instant::now() + RETRY_TIMEOUT);
            if Instant::now() > deadline {
                return Err(Error::concurrent_change());
            }
            if self.conflicts == 1 {
                self.enter_queues(engine, items).await;
                return Ok(());
            }
            let max_delay = MAX_BACKOFF_MS.min(1 << self.conflicts.min(16));
            let (random, _) = uuid::Uuid::new_v4().as_u64_pair();
            sleep(Duration::from_millis(random % (max_delay + 1))).await;
            Ok(())
        })
    }

    async fn enter_queues(&mut self, engine: &'a Engine, items: Vec<QueueIndex>) {
        // In one order, so that two writes of many items do not wait for each other.
        let queues: BTreeSet<usize> = items.into_iter().map(|item| item.0).collect();
        let acquisition = async {
            for queue in queues {
                self.guards.push(engine.contention.0[queue].lock().await);
            }
        };
        let _ = timeout(QUEUE_TIMEOUT, acquisition).await;
    }
}

/// The queue of an item.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct QueueIndex(usize);

impl Call<'_> {
    /// The queue of an item of this resource.
    pub(in crate::engine) fn item_queue(&self, id: &Value) -> QueueIndex {
        self.queue_of(&id_text(id))
    }

    /// The queue of a write whose items are not known: it waits for others of its resource.
    pub(in crate::engine) fn resource_queue(&self) -> QueueIndex {
        self.queue_of("")
    }

    fn queue_of(&self, id: &str) -> QueueIndex {
        let hash = FixedState::default().hash_one((self.entry.position, id));
        QueueIndex(usize::try_from(hash % QUEUES as u64).unwrap_or_default())
    }
}
