//! An in-process message bus.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use resourceful_contract::{Answer, Bus, BusEvent, Consumer, Listener};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::queue::{MemoryConsumer, Queue};

/// The number of messages that a channel buffers for slow listeners.
const CHANNEL_CAPACITY: usize = 1_024;

/// An in-process bus for the nodes of one process, such as those of a test. Clones share it.
///
/// ```
/// # use resourceful_contract::{Bus as _, BusEvent, StorageError};
/// use resourceful_memory::MemoryBus;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), StorageError> {
/// let bus = MemoryBus::new();
/// let mut listener = bus.listen("news").await?;
/// bus.publish("news", b"hello".to_vec()).await?;
/// assert_eq!(listener.recv().await?, BusEvent::Message(b"hello".to_vec()));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
pub struct MemoryBus {
    channels: Arc<Mutex<HashMap<String, broadcast::Sender<Vec<u8>>>>>,
    queues: Arc<Mutex<HashMap<String, Arc<Queue>>>>,
}

impl MemoryBus {
    /// A bus without listeners.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn queue(&self, name: &str) -> Arc<Queue> {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.entry(name.to_owned()).or_default().clone()
    }
}

impl Bus for MemoryBus {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn publish<'a>(&'a self, channel: &'a str, message: Vec<u8>) -> Answer<'a, ()> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        // A channel without listeners is removed.
        if channels.get(channel).is_some_and(|sender| sender.send(message).is_err()) {
            channels.remove(channel);
        }
        Box::pin(std::future::ready(Ok(())))
    }

    fn listen<'a>(&'a self, channel: &'a str) -> Answer<'a, Box<dyn Listener>> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let sender =
            channels.entry(channel.to_owned()).or_insert_with(|| broadcast::Sender::new(CHANNEL_CAPACITY));
        let listener: Box<dyn Listener> = Box::new(MemoryListener(sender.subscribe(), self.clone()));
        Box::pin(std::future::ready(Ok(listener)))
    }

    fn send<'a>(&'a self, queue: &'a str, message: Vec<u8>) -> Answer<'a, ()> {
        self.queue(queue).send(&message);
        Box::pin(std::future::ready(Ok(())))
    }

    fn consume<'a>(
        &'a self,
        queue: &'a str,
        group: &'a str,
        ack_timeout: Duration,
    ) -> Answer<'a, Arc<dyn Consumer>> {
        let consumer: Arc<dyn Consumer> =
            Arc::new(MemoryConsumer::join(self.queue(queue), group.to_owned(), ack_timeout));
        Box::pin(std::future::ready(Ok(consumer)))
    }

    fn dead_letters<'a>(&'a self, queue: &'a str, group: &'a str) -> Answer<'a, Vec<Vec<u8>>> {
        Box::pin(std::future::ready(Ok(self.queue(queue).dead_letters(group))))
    }
}

/// A listener holds the bus, so that its channel stays open while the listener exists.
#[derive(Debug)]
struct MemoryListener(broadcast::Receiver<Vec<u8>>, #[expect(dead_code, reason = "it is held")] MemoryBus);

impl Listener for MemoryListener {
    fn recv(&mut self) -> Answer<'_, BusEvent> {
        Box::pin(async move {
            match self.0.recv().await {
                Ok(message) => Ok(BusEvent::Message(message)),
                Err(RecvError::Lagged(_)) => Ok(BusEvent::Missed),
                // The listener holds the bus, and with it the channel's sender.
                Err(RecvError::Closed) => std::future::pending().await,
            }
        })
    }
}
