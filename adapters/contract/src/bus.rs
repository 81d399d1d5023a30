//! Messages between the nodes of an application.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::storage::Answer;

/// Carries messages between the nodes of an application: each one that is published is heard by everyone who listens
/// to its channel, in the order of publishing, by the node that published it as well.
///
/// A bus is for what nodes have to know soon, such as that something kept in memory is no longer so. What must not be
/// lost stands in the storage; a listener that may have missed something is told so ([`BusEvent::Missed`]).
///
/// It also has queues, by which nodes share work: each message is handled by one consumer of each group, at least once as
/// long as the bus keeps it.
pub trait Bus: fmt::Debug + Send + Sync + 'static {
    /// A word for logs: `memory`, `redis`.
    fn name(&self) -> &'static str;

    /// Sends a message to everyone who listens to a channel.
    fn publish<'a>(&'a self, channel: &'a str, message: Vec<u8>) -> Answer<'a, ()>;

    /// Listens to a channel: to every message that is published after this future is done.
    fn listen<'a>(&'a self, channel: &'a str) -> Answer<'a, Box<dyn Listener>>;

    /// Puts a message into a queue, for every group that consumes it by now. A queue is bounded: what nobody took before
    /// thousands came after it is gone.
    fn send<'a>(&'a self, queue: &'a str, message: Vec<u8>) -> Answer<'a, ()>;

    /// Joins a group that consumes a queue: each message goes to one consumer of each group. Who takes one acknowledges it,
    /// or keeps saying that it is still at it; what was taken and not heard of for as long as `abandoned` goes to another
    /// consumer. What was taken [`MOST_TAKEN`] times and never acknowledged is a dead letter.
    fn consume<'a>(
        &'a self,
        queue: &'a str,
        group: &'a str,
        abandoned: Duration,
    ) -> Answer<'a, Arc<dyn Consumer>>;

    /// The last dead letters of a group, the oldest first.
    fn dead_letters<'a>(&'a self, queue: &'a str, group: &'a str) -> Answer<'a, Vec<Vec<u8>>>;
}

/// How often a message is given to a consumer before it is a dead letter: whatever it does to those who take it, it is not
/// done for ever.
pub const MAX_DELIVERIES: u32 = 5;

/// One of those who consume a queue as a group; see [`Bus::consume`].
pub trait Consumer: fmt::Debug + Send + Sync + 'static {
    /// The next message, as soon as there is one: new, or abandoned by another consumer. Where the future is dropped it may
    /// have taken a message, which is abandoned then.
    ///
    /// An error means that the bus is away; asking again goes on as soon as it is back.
    fn next(&self) -> Answer<'_, QueueDelivery>;

    /// Says that these messages are still being handled.
    fn keep<'a>(&'a self, ids: &'a [String]) -> Answer<'a, ()>;

    /// Says that a message was handled.
    fn acknowledge<'a>(&'a self, id: &'a str) -> Answer<'a, ()>;
}

/// A message that a [`Consumer`] took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueDelivery {
    /// What to acknowledge it by.
    pub id: String,
    /// The message.
    pub message: Vec<u8>,
    /// How often it was taken, this time included.
    pub times: u32,
}

/// Someone who listens to one channel of a [`Bus`].
pub trait Listener: fmt::Debug + Send + 'static {
    /// What is heard next. The future may be dropped at any point and loses nothing.
    ///
    /// An error means that the bus is away. Asking again goes on where it stopped, as soon as the bus is back, and is
    /// answered then even where nothing was published meanwhile ([`BusEvent::Back`]).
    fn heard(&mut self) -> Answer<'_, BusEvent>;
}

/// What a [`Listener`] hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BusEvent {
    /// A message.
    Message(Vec<u8>),
    /// Messages were published that are gone before they were heard: whoever acts on messages now knows too little.
    Missed,
    /// The bus was away and is back; nothing was missed, and nothing is left to be heard of that time.
    Back,
}
