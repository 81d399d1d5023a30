//! Change events and their delivery: the relay, subscribers, the tail and webhooks.

mod cache_follower;
mod event;
mod notifier;
mod relay;
mod subscriber;
mod tail;
#[cfg(feature = "webhooks")]
mod webhook;
mod workers;

pub use event::Event;
pub use subscriber::{Delivery, Subscriber};

#[cfg(feature = "webhooks")]
pub use webhook::Webhooks;

pub(crate) use notifier::PublishNotifier;
pub(crate) use relay::{Relay, Step};
pub(crate) use subscriber::{On, Subscription};
pub(crate) use tail::{Follower, LOOK, Tail};
#[cfg(feature = "webhooks")]
pub(crate) use webhook::{Dispatcher, Queue};
pub(crate) use workers::Workers;
