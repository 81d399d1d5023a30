//! A bus that can be taken away.

use std::sync::Arc;
use std::time::Duration;

use resourceful::adapter::{Bus, MemoryBus};
use resourceful_contract::{Answer, BusEvent, Consumer, ErrorKind, Listener, StorageError};
use tokio::sync::watch;

/// Over a bus in memory, as long as it is said to be there.
#[derive(Debug)]
pub(crate) struct UnreliableBus(pub(crate) MemoryBus, pub(crate) watch::Receiver<bool>);

#[derive(Debug)]
struct UnreliableListener {
    listener: Box<dyn Listener>,
    is_available: watch::Receiver<bool>,
    was_available: bool,
}

impl UnreliableBus {
    /// Such a bus, and what takes it away and brings it back.
    pub(crate) fn new() -> (Arc<Self>, watch::Sender<bool>) {
        let (switch, is_available) = watch::channel(true);
        (Arc::new(Self(MemoryBus::new(), is_available)), switch)
    }

    fn available_bus(&self) -> Result<&MemoryBus, StorageError> {
        if *self.1.borrow() { Ok(&self.0) } else { Err(unavailable()) }
    }
}

fn unavailable() -> StorageError {
    StorageError::new(ErrorKind::Unavailable)
}

impl Bus for UnreliableBus {
    fn name(&self) -> &'static str {
        "frail"
    }

    fn publish<'a>(&'a self, channel: &'a str, message: Vec<u8>) -> Answer<'a, ()> {
        Box::pin(async move { self.available_bus()?.publish(channel, message).await })
    }

    fn listen<'a>(&'a self, channel: &'a str) -> Answer<'a, Box<dyn Listener>> {
        Box::pin(async move {
            let listener = self.available_bus()?.listen(channel).await?;
            let is_available = self.1.clone();
            Ok(Box::new(UnreliableListener { listener, is_available, was_available: true })
                as Box<dyn Listener>)
        })
    }

    fn send<'a>(&'a self, queue: &'a str, message: Vec<u8>) -> Answer<'a, ()> {
        Box::pin(async move { self.available_bus()?.send(queue, message).await })
    }

    fn consume<'a>(
        &'a self,
        queue: &'a str,
        group: &'a str,
        abandoned: Duration,
    ) -> Answer<'a, Arc<dyn Consumer>> {
        Box::pin(async move { self.available_bus()?.consume(queue, group, abandoned).await })
    }

    fn dead_letters<'a>(&'a self, queue: &'a str, group: &'a str) -> Answer<'a, Vec<Vec<u8>>> {
        Box::pin(async move { self.available_bus()?.dead_letters(queue, group).await })
    }
}

impl Listener for UnreliableListener {
    fn recv(&mut self) -> Answer<'_, BusEvent> {
        Box::pin(async move {
            if !self.was_available {
                self.is_available.wait_for(|available| *available).await.unwrap();
                self.was_available = true;
                return Ok(BusEvent::Back);
            }
            tokio::select! {
                event = self.listener.recv() => event,
                _ = self.is_available.wait_for(|available| !available) => {
                    self.was_available = false;
                    Err(unavailable())
                }
            }
        })
    }
}
