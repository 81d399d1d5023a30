//! What tells others of changes: events, and how they get to whom they are for.

mod event;
mod relay;
mod subscriber;

pub use event::Event;
pub use subscriber::{Delivery, Subscriber};

pub(crate) use relay::{Relay, Step};
pub(crate) use subscriber::{On, Subscription};
