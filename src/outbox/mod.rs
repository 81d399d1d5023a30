//! The outbox: events that are stored with the change that they describe, published in order, and read by every node.

mod cache_follower;
mod event;
mod lease;
mod notifier;
mod published;
mod queue;
mod tail;

pub use event::Event;
pub(crate) use event::matches;
pub(crate) use lease::Lease;
pub(crate) use notifier::PublishNotifier;
pub(crate) use published::CommittedEvents;
pub(crate) use queue::{EventUpdates, FailedDelivery, MAX_RETRY_DELAY, Outbox};
pub(crate) use tail::{CHECK_INTERVAL, Follower, Tail};
