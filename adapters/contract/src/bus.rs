//! The bus contract: messages between the nodes of an application.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::storage::Answer;

/// A message bus between the nodes of an application, with publish and subscribe and with queues. Each published message is
/// delivered to all listeners of its channel, in the order of publishing, including those on the publishing node.
///
/// The bus is for what nodes have to learn soon, such as that a value cached in memory is out of date. What must not be lost
/// is kept in the storage; a listener that may have missed messages is notified of that ([`BusEvent::Missed`]).
///
/// A bus also has queues, by which nodes share work: each message is handled by one consumer of each group, at least once as
/// long as the bus keeps it.
pub trait Bus: fmt::Debug + Send + Sync + 'static {
    /// The adapter's name for logs: `memory`, `redis`.
    fn name(&self) -> &'static str;

    /// Publishes a message to all listeners of a channel.
    fn publish<'a>(&'a self, channel: &'a str, message: Vec<u8>) -> Answer<'a, ()>;

    /// Subscribes to a channel: the listener receives every message that is published after this future is done.
    fn listen<'a>(&'a self, channel: &'a str) -> Answer<'a, Box<dyn Listener>>;

    /// Sends a message to a queue, for every consumer group that exists by now. A queue is bounded: a message that no
    /// consumer took before thousands came after it is dropped.
    fn send<'a>(&'a self, queue: &'a str, message: Vec<u8>) -> Answer<'a, ()>;

    /// Joins a consumer group of a queue: each message is delivered to one consumer of each group. A consumer acknowledges a
    /// message, or keeps extending its claim while it works on it; a message without either for as long as `abandoned` is
    /// redelivered to another consumer. A message that was delivered [`MAX_DELIVERIES`] times and never acknowledged becomes
    /// a dead letter.
    fn consume<'a>(
        &'a self,
        queue: &'a str,
        group: &'a str,
        ack_timeout: Duration,
    ) -> Answer<'a, Arc<dyn Consumer>>;

    /// The latest dead letters of a group, oldest first.
    fn dead_letters<'a>(&'a self, queue: &'a str, group: &'a str) -> Answer<'a, Vec<Vec<u8>>>;
}

/// How often a message is delivered before it becomes a dead letter, so that a message that crashes its consumers is not
/// redelivered for ever.
pub const MAX_DELIVERIES: u32 = 5;

/// One member of a consumer group; see [`Bus::consume`].
pub trait Consumer: fmt::Debug + Send + Sync + 'static {
    /// The next message, as soon as there is one: a new one, or one that another consumer abandoned. A dropped future may
    /// have taken a message, which then counts as abandoned.
    ///
    /// An error means that the bus is unavailable; further calls succeed as soon as it is back.
    fn next(&self) -> Answer<'_, QueueDelivery>;

    /// Extends the claim on these messages, which are still being handled.
    fn keep<'a>(&'a self, ids: &'a [String]) -> Answer<'a, ()>;

    /// Acknowledges a message as handled.
    fn acknowledge<'a>(&'a self, id: &'a str) -> Answer<'a, ()>;
}

/// A message delivered to a [`Consumer`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueDelivery {
    /// The id to acknowledge the message by.
    pub id: String,
    /// The message.
    pub message: Vec<u8>,
    /// How often the message was delivered, including this time.
    pub times: u32,
}

/// A subscription to one channel of a [`Bus`].
pub trait Listener: fmt::Debug + Send + 'static {
    /// The next event. The future may be dropped at any point without losing any.
    ///
    /// An error means that the bus is unavailable. Further calls resume where it stopped, as soon as the bus is back, and
    /// then return even if nothing was published meanwhile ([`BusEvent::Back`]).
    fn recv(&mut self) -> Answer<'_, BusEvent>;
}

/// An event that a [`Listener`] receives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BusEvent {
    /// A message.
    Message(Vec<u8>),
    /// Messages were lost before they were received, so state that was built from messages is incomplete.
    Missed,
    /// The bus was unavailable and is back; no message was missed, and none of that time is still to come.
    Back,
}
