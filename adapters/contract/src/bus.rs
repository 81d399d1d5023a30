//! Messages between the nodes of an application.

use std::fmt;

use crate::storage::Answer;

/// Carries messages between the nodes of an application: each one that is published is heard by everyone who listens
/// to its channel, in the order of publishing, by the node that published it as well.
///
/// A bus is for what nodes have to know soon, such as that something kept in memory is no longer so. What must not be
/// lost stands in the storage; a listener that may have missed something is told so ([`Heard::Missed`]).
pub trait Bus: fmt::Debug + Send + Sync + 'static {
    /// A word for logs: `memory`, `redis`.
    fn name(&self) -> &'static str;

    /// Sends a message to everyone who listens to a channel.
    fn publish<'a>(&'a self, channel: &'a str, message: Vec<u8>) -> Answer<'a, ()>;

    /// Listens to a channel: to every message that is published after this future is done.
    fn listen<'a>(&'a self, channel: &'a str) -> Answer<'a, Box<dyn Listener>>;
}

/// Someone who listens to one channel of a [`Bus`].
pub trait Listener: fmt::Debug + Send + 'static {
    /// What is heard next. The future may be dropped at any point and loses nothing.
    ///
    /// An error means that the bus is away. Asking again goes on where it stopped, as soon as the bus is back, and is
    /// answered then even where nothing was published meanwhile ([`Heard::Back`]).
    fn heard(&mut self) -> Answer<'_, Heard>;
}

/// What a [`Listener`] hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A message.
    Message(Vec<u8>),
    /// Messages were published that are gone before they were heard: whoever acts on messages now knows too little.
    Missed,
    /// The bus was away and is back; nothing was missed, and nothing is left to be heard of that time.
    Back,
}
