//! A bus that can be taken away.

use std::sync::Arc;
use std::time::Duration;

use resourceful::adapter::{Bus, MemoryBus};
use resourceful_contract::{Answer, BusEvent, Consumer, ErrorKind, Listener, StorageError};
use tokio::sync::watch;

/// Over a bus in memory, as long as it is said to be there.
#[derive(Debug)]
pub(crate) struct Frail(pub(crate) MemoryBus, pub(crate) watch::Receiver<bool>);

#[derive(Debug)]
struct FrailListener {
    listener: Box<dyn Listener>,
    is_there: watch::Receiver<bool>,
    was_there: bool,
}

impl Frail {
    /// Such a bus, and what takes it away and brings it back.
    pub(crate) fn new() -> (Arc<Self>, watch::Sender<bool>) {
        let (switch, is_there) = watch::channel(true);
        (Arc::new(Self(MemoryBus::new(), is_there)), switch)
    }

    fn there(&self) -> Result<&MemoryBus, StorageError> {
        if *self.1.borrow() { Ok(&self.0) } else { Err(away()) }
    }
}

fn away() -> StorageError {
    StorageError::new(ErrorKind::Unavailable)
}

impl Bus for Frail {
    fn name(&self) -> &'static str {
        "frail"
    }

    fn publish<'a>(&'a self, channel: &'a str, message: Vec<u8>) -> Answer<'a, ()> {
        Box::pin(async move { self.there()?.publish(channel, message).await })
    }

    fn listen<'a>(&'a self, channel: &'a str) -> Answer<'a, Box<dyn Listener>> {
        Box::pin(async move {
            let listener = self.there()?.listen(channel).await?;
            let is_there = self.1.clone();
            Ok(Box::new(FrailListener { listener, is_there, was_there: true }) as Box<dyn Listener>)
        })
    }

    fn send<'a>(&'a self, queue: &'a str, message: Vec<u8>) -> Answer<'a, ()> {
        Box::pin(async move { self.there()?.send(queue, message).await })
    }

    fn consume<'a>(
        &'a self,
        queue: &'a str,
        group: &'a str,
        abandoned: Duration,
    ) -> Answer<'a, Arc<dyn Consumer>> {
        Box::pin(async move { self.there()?.consume(queue, group, abandoned).await })
    }

    fn dead_letters<'a>(&'a self, queue: &'a str, group: &'a str) -> Answer<'a, Vec<Vec<u8>>> {
        Box::pin(async move { self.there()?.dead_letters(queue, group).await })
    }
}

impl Listener for FrailListener {
    fn heard(&mut self) -> Answer<'_, BusEvent> {
        Box::pin(async move {
            if !self.was_there {
                self.is_there.wait_for(|there| *there).await.unwrap();
                self.was_there = true;
                return Ok(BusEvent::Back);
            }
            tokio::select! {
                heard = self.listener.heard() => heard,
                _ = self.is_there.wait_for(|there| !there) => {
                    self.was_there = false;
                    Err(away())
                }
            }
        })
    }
}
