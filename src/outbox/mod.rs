//! The outbox: events that are stored with the change that they describe, published in order, and read by every node.

mod cache_follower;
mod event;
mod lease;
mod notifier;
mod publish;
mod published_events;
mod queue;
mod tail;

pub use event::Event;
pub(crate) use event::matches;
pub(crate) use lease::Lease;
pub(crate) use notifier::PublishNotifier;
pub(crate) use publish::{EventUpdates, FailedDelivery};
pub(crate) use published_events::CommittedEvents;
pub(crate) use queue::{MAX_RETRY_DELAY, Outbox};
pub(crate) use tail::{CHECK_INTERVAL, Follower, Tail};
