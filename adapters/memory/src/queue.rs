//! In-process queues.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use resourceful_contract::{Answer, Consumer, MAX_DELIVERIES, QueueDelivery};
use tokio::sync::Notify;

/// The maximum number of waiting messages and of dead letters of a group.
const KEPT: usize = 10_000;
const DEAD: usize = 1_000;

/// A queue, and the groups that consume it.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    groups: Mutex<HashMap<String, Group>>,
    rung: Notify,
}

#[derive(Debug, Default)]
struct Group {
    last: u64,
    waiting: VecDeque<Entry>,
    /// Delivered messages, each with the time of its delivery or last keep-alive.
    taken: BTreeMap<u64, (Entry, Instant)>,
    dead: VecDeque<Vec<u8>>,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    message: Vec<u8>,
    times: u32,
}

impl Queue {
    fn groups(&self) -> MutexGuard<'_, HashMap<String, Group>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn send(&self, message: &[u8]) {
        for group in self.groups().values_mut() {
            group.last += 1;
            group.waiting.push_back(Entry { number: group.last, message: message.to_vec(), times: 0 });
            if group.waiting.len() > KEPT {
                group.waiting.pop_front();
            }
        }
        self.rung.notify_waiters();
    }

    pub(crate) fn dead_letters(&self, group: &str) -> Vec<Vec<u8>> {
        self.groups().get(group).map(|group| group.dead.iter().cloned().collect()).unwrap_or_default()
    }
}

impl Group {
    /// The next message; if there is none, the time until the oldest delivered one counts as abandoned.
    fn next(&mut self, abandoned: Duration) -> Result<QueueDelivery, Option<Duration>> {
        let now = Instant::now();
        let is_old = |heard: Instant| now.saturating_duration_since(heard) >= abandoned;
        while let Some(number) =
            self.taken.iter().find(|(_, (_, heard))| is_old(*heard)).map(|(number, _)| *number)
        {
            let Some((entry, _)) = self.taken.remove(&number) else { break };
            if entry.times < MAX_DELIVERIES {
                return Ok(self.take(entry));
            }
            self.dead.push_back(entry.message);
            if self.dead.len() > DEAD {
                self.dead.pop_front();
            }
        }
        if let Some(entry) = self.waiting.pop_front() {
            return Ok(self.take(entry));
        }
        let oldest = self.taken.values().map(|(_, heard)| *heard).min();
        Err(oldest.map(|heard| abandoned.saturating_sub(now.saturating_duration_since(heard))))
    }

    fn take(&mut self, mut entry: Entry) -> QueueDelivery {
        entry.times += 1;
        let taken = QueueDelivery {
            id: entry.number.to_string(),
            message: entry.message.clone(),
            times: entry.times,
        };
        self.taken.insert(entry.number, (entry, Instant::now()));
        taken
    }
}

/// A member of a consumer group.
#[derive(Debug)]
pub(crate) struct MemoryConsumer {
    queue: Arc<Queue>,
    group: String,
    abandoned: Duration,
}

impl MemoryConsumer {
    pub(crate) fn join(queue: Arc<Queue>, group: String, abandoned: Duration) -> Self {
        queue.groups().entry(group.clone()).or_default();
        Self { queue, group, abandoned }
    }

    fn group<T>(&self, work: impl FnOnce(&mut Group) -> T) -> T {
        work(self.queue.groups().entry(self.group.clone()).or_default())
    }
}

impl Consumer for MemoryConsumer {
    fn next(&self) -> Answer<'_, QueueDelivery> {
        Box::pin(async move {
            loop {
                // Registered before the check, so that no notification is missed between the check and the wait.
                let rung = self.queue.rung.notified();
                let pause = match self.group(|group| group.next(self.abandoned)) {
                    Ok(taken) => return Ok(taken),
                    Err(pause) => pause,
                };
                let Some(pause) = pause else {
                    rung.await;
                    continue;
                };
                tokio::select! {
                    () = rung => {}
                    () = tokio::time::sleep(pause) => {}
                }
            }
        })
    }

    fn keep<'a>(&'a self, ids: &'a [String]) -> Answer<'a, ()> {
        let now = Instant::now();
        self.group(|group| {
            for id in ids.iter().filter_map(|id| id.parse().ok()) {
                if let Some((_, heard)) = group.taken.get_mut(&id) {
                    *heard = now;
                }
            }
        });
        Box::pin(std::future::ready(Ok(())))
    }

    fn acknowledge<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        if let Ok(id) = id.parse() {
            self.group(|group| group.taken.remove(&id));
        }
        Box::pin(std::future::ready(Ok(())))
    }
}
