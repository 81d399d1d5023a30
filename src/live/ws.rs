//! Messages on a WebSocket: JSON, each with the id of the subscription that it belongs to.

use serde_json::{Value as Json, json};

use super::feed::{Feed, FeedItem};

/// A message to a client.
#[derive(Debug)]
pub(crate) struct SocketMessage {
    /// `None` where there is nothing to send.
    pub(crate) text: Option<String>,
    /// Set where the subscription with this id ends.
    pub(crate) end: Option<SubscriptionEnd>,
}

/// What the end of a subscription means for its socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SubscriptionEnd {
    /// The socket stays open.
    KeepSocket,
    /// The credential of the whole socket is not valid any more.
    Unauthenticated,
}

impl SocketMessage {
    /// The message of a feed item.
    pub(crate) fn of(feed: &Feed, id: &str, item: FeedItem) -> Self {
        let at = |kind: &str, position: String| json!({"type": kind, "id": id, "position": position});
        match item {
            FeedItem::Ready(position) => Self::from_json(&at("ready", position)),
            FeedItem::Notice(notice, own_position) => {
                let position = own_position.unwrap_or_else(|| feed.shared_position(&notice).to_owned());
                let mut message = at("next", position);
                message["event"] = notice.event_name().into();
                // The change is serialized already, and the same for all subscribers.
                let mut text = message.to_string();
                text.pop();
                text.push_str(",\"data\":");
                text.push_str(&String::from_utf8_lossy(&notice.json));
                text.push('}');
                Self { text: Some(text), end: None }
            }
            FeedItem::Reset(position) => Self::from_json(&at("reset", position)),
            FeedItem::Heartbeat(position) => Self::from_json(&at("position", position)),
            FeedItem::Lagged => Self::complete(id, "lagged"),
            FeedItem::End(reason) => Self::complete(id, reason),
        }
    }

    /// Any other message.
    pub(crate) fn from_json(message: &Json) -> Self {
        Self { text: Some(message.to_string()), end: None }
    }

    /// The last message of a subscription.
    pub(crate) fn complete(id: &str, reason: &'static str) -> Self {
        let message = json!({"type": "complete", "id": id, "code": reason});
        let end = if reason == "unauthenticated" {
            SubscriptionEnd::Unauthenticated
        } else {
            SubscriptionEnd::KeepSocket
        };
        Self { text: Some(message.to_string()), end: Some(end) }
    }
}
