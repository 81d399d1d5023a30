//! In-process queues.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use resourceful_contract::{Answer, Consumer, MAX_DELIVERIES, QueueDelivery};
use tokio::sync::Notify;

/// The maximum number of waiting messages and of dead letters of a group.
const MAX_WAITING: usize = 10_000;
const MAX_DEAD_LETTERS: usize = 1_000;

/// A queue, and the groups that consume it.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    groups: Mutex<HashMap<String, Group>>,
    arrival: Notify,
}

#[derive(Debug, Default)]
struct Group {
    last_number: u64,
    waiting: VecDeque<Entry>,
    /// Delivered messages, each with the time of its delivery or last keep-alive.
    delivered: BTreeMap<u64, (Entry, Instant)>,
    dead_letters: VecDeque<Vec<u8>>,
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
            group.last_number += 1;
            group.waiting.push_back(Entry { number: group.last_number, message: message.to_vec(), times: 0 });
            if group.waiting.len() > MAX_WAITING {
                group.waiting.pop_front();
            }
        }
        self.arrival.notify_waiters();
    }

    pub(crate) fn dead_letters(&self, group: &str) -> Vec<Vec<u8>> {
        self.groups().get(group).map(|group| group.dead_letters.iter().cloned().collect()).unwrap_or_default()
    }
}

impl Group {
    /// The next message; if there is none, the time until the oldest delivered one counts as abandoned.
    fn next(&mut self, ack_timeout: Duration) -> Result<QueueDelivery, Option<Duration>> {
        let now = Instant::now();
        let is_old = |last_active: Instant| now.saturating_duration_since(last_active) >= ack_timeout;
        while let Some(number) = self
            .delivered
            .iter()
            .find(|(_, (_, last_active))| is_old(*last_active))
            .map(|(number, _)| *number)
        {
            let Some((entry, _)) = self.delivered.remove(&number) else { break };
            if entry.times < MAX_DELIVERIES {
                return Ok(self.deliver(entry));
            }
            self.dead_letters.push_back(entry.message);
            if self.dead_letters.len() > MAX_DEAD_LETTERS {
                self.dead_letters.pop_front();
            }
        }
        if let Some(entry) = self.waiting.pop_front() {
            return Ok(self.deliver(entry));
        }
        let oldest = self.delivered.values().map(|(_, last_active)| *last_active).min();
        Err(oldest.map(|last_active| ack_timeout.saturating_sub(now.saturating_duration_since(last_active))))
    }

    fn deliver(&mut self, mut entry: Entry) -> QueueDelivery {
        entry.times += 1;
        let delivered = QueueDelivery {
            id: entry.number.to_string(),
            message: entry.message.clone(),
            times: entry.times,
        };
        self.delivered.insert(entry.number, (entry, Instant::now()));
        delivered
    }
}

/// A member of a consumer group.
#[derive(Debug)]
pub(crate) struct MemoryConsumer {
    queue: Arc<Queue>,
    group: String,
    ack_timeout: Duration,
}

impl MemoryConsumer {
    pub(crate) fn join(queue: Arc<Queue>, group: String, ack_timeout: Duration) -> Self {
        queue.groups().entry(group.clone()).or_default();
        Self { queue, group, ack_timeout }
    }

    fn with_group<T>(&self, work: impl FnOnce(&mut Group) -> T) -> T {
        work(self.queue.groups().entry(self.group.clone()).or_default())
    }
}

impl Consumer for MemoryConsumer {
    fn next(&self) -> Answer<'_, QueueDelivery> {
        Box::pin(async move {
            loop {
                // Registered before the check, so that no notification is missed between the check and the wait.
                let arrival = self.queue.arrival.notified();
                let pause = match self.with_group(|group| group.next(self.ack_timeout)) {
                    Ok(delivered) => return Ok(delivered),
                    Err(pause) => pause,
                };
                let Some(pause) = pause else {
                    arrival.await;
                    continue;
                };
                tokio::select! {
                    () = arrival => {}
                    () = tokio::time::sleep(pause) => {}
                }
            }
        })
    }

    fn keep<'a>(&'a self, ids: &'a [String]) -> Answer<'a, ()> {
        let now = Instant::now();
        self.with_group(|group| {
            for id in ids.iter().filter_map(|id| id.parse().ok()) {
                if let Some((_, last_active)) = group.delivered.get_mut(&id) {
                    *last_active = now;
                }
            }
        });
        Box::pin(std::future::ready(Ok(())))
    }

    fn acknowledge<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        if let Ok(id) = id.parse() {
            self.with_group(|group| group.delivered.remove(&id));
        }
        Box::pin(std::future::ready(Ok(())))
    }
}
