//! Live changes: subscriptions, the notices that each receives, presence, and their transport.

mod concurrency;
mod feed;
mod hub;
mod index;
mod limits;
mod notification;
mod position;
mod presence;
mod presence_sync;
mod sse;
mod streams;
mod subscriber_queue;
mod subscriber_view;
mod ws;

pub use limits::Streams;

pub(crate) use feed::{Feed, SubscriptionRequest};
pub(crate) use hub::{SubscriberIdentity, Subscription, SubscriptionSpec};
pub(crate) use position::{StreamPosition, StreamScope};
pub(crate) use presence::{LocalMember as Present, Presence, PresenceEvent, RoomId};
pub(crate) use presence_sync::follow as follow_presence;
pub(crate) use sse::sse_response as events_of;
pub(crate) use streams::Live;
pub(crate) use subscriber_view::SubscriberView;
pub(crate) use ws::{SocketMessage, SubscriptionEnd};
