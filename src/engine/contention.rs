//! Retries of changes that met concurrent ones.
//!
//! A change is decided on the item as it was read, and its commit is guarded by that version. Where another change came
//! between and the request asked for no version, it is decided again on the new state. Of many changes of one item at
//! once, one commit succeeds in each round and all the others lose, so that the last of n would lose n − 1 times. A
//! change that has lost therefore waits in a queue for its items: on one node the losers come one after the other, in
//! the order in which they lost. Only the first tries of others, and the heads of the queues of other nodes, are
//! still met; pauses of a random length keep them apart.

use std::collections::BTreeSet;
use std::hash::BuildHasher as _;
use std::time::Duration;

use foldhash::fast::FixedState;
use futures::future::BoxFuture;
use resourceful_contract::Value;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, sleep, timeout};

use super::record::spelled;
use super::{Call, Engine};
use crate::error::Error;

/// How many queues there are. Items that share one only wait for each other.
const QUEUES: usize = 1_024;
/// How long a change is tried again after it first lost.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest that a change waits in queues before it goes on without its turn. A hook may change other items while
/// its own is queued for, so that two of them could wait for each other.
const TURN: Duration = Duration::from_secs(1);
/// The longest pause between two tries, in milliseconds.
const LONGEST: u64 = 64;

/// The queues of an application's contended items.
#[derive(Debug)]
pub(crate) struct Contention(Box<[Mutex<()>]>);

impl Default for Contention {
    fn default() -> Self {
        Self((0..QUEUES).map(|_| Mutex::new(())).collect())
    }
}

/// The tries of one change.
#[derive(Default)]
pub(super) struct ConflictRetry<'a> {
    lost: u32,
    until: Option<Instant>,
    turns: Vec<MutexGuard<'a, ()>>,
}

impl<'a> ConflictRetry<'a> {
    /// Waits for the next try of a change of these items.
    ///
    /// # Errors
    /// Where it has been tried for long enough.
    pub(super) fn lost<'s>(
        &'s mut self,
        engine: &'a Engine,
        items: Vec<QueueIndex>,
    ) -> BoxFuture<'s, Result<(), Error>>
    where
        'a: 's,
    {
        // Boxed: a change that meets no other does not carry the room that this takes.
        Box::pin(async move {
            self.lost += 1;
            let until = *self.until.get_or_insert_with(|| Instant::now() + PATIENCE);
            if Instant::now() > until {
                return Err(Error::concurrent_change());
            }
            if self.lost == 1 {
                self.queue(engine, items).await;
                return Ok(());
            }
            let most = LONGEST.min(1 << self.lost.min(16));
            let (random, _) = uuid::Uuid::new_v4().as_u64_pair();
            sleep(Duration::from_millis(random % (most + 1))).await;
            Ok(())
        })
    }

    async fn queue(&mut self, engine: &'a Engine, items: Vec<QueueIndex>) {
        // In one order, so that two changes of many items do not wait for each other.
        let queues: BTreeSet<usize> = items.into_iter().map(|item| item.0).collect();
        let turns = async {
            for queue in queues {
                self.turns.push(engine.contention.0[queue].lock().await);
            }
        };
        let _ = timeout(TURN, turns).await;
    }
}

/// The queue of an item.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueueIndex(usize);

impl Call<'_> {
    /// The queue of an item of this resource.
    pub(super) fn contended(&self, id: &Value) -> QueueIndex {
        self.queue_of(&spelled(id))
    }

    /// The queue of a change whose items are not known: it waits for others of its resource.
    pub(super) fn contended_resource(&self) -> QueueIndex {
        self.queue_of("")
    }

    fn queue_of(&self, id: &str) -> QueueIndex {
        let hash = FixedState::default().hash_one((self.entry.position, id));
        QueueIndex(usize::try_from(hash % QUEUES as u64).unwrap_or_default())
    }
}
