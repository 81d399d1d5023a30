//! Change events and their delivery: the relay, subscribers, the tail and webhooks.

#[cfg(any(feature = "testing", feature = "webhooks"))]
mod event_visibility;
mod relay;
mod subscriber;
#[cfg(feature = "webhooks")]
mod webhook;
mod workers;

pub use crate::outbox::Event;
pub use subscriber::{Delivery, Subscriber};

#[cfg(feature = "webhooks")]
pub use webhook::Webhooks;

pub(crate) use relay::{Relay, RelayStep};
pub(crate) use subscriber::{FnSubscriber, RegisteredSubscriber};
#[cfg(feature = "webhooks")]
pub(crate) use webhook::{Dispatcher, WebhookSubscriber};
pub(crate) use workers::Workers;
