//! Messages on a WebSocket: JSON, each with the id of the subscription that it belongs to.

use serde_json::{Value as Json, json};

use super::feed::{Feed, FeedItem};

/// A message to a client.
#[derive(Debug)]
pub(crate) struct SocketMessage {
    /// `None` where there is nothing to send.
    pub(crate) text: Option<String>,
    /// Set where the subscription with this id ends.
    pub(crate) end: Option<Ending>,
}

/// What the end of a subscription means for its socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The socket stays open.
    Alone,
    /// The credential of the whole socket is not valid any more.
    Unauthenticated,
}

impl SocketMessage {
    /// The message of a feed item.
    pub(crate) fn of(feed: &Feed, id: &str, said: FeedItem) -> Self {
        let at = |kind: &str, place: String| json!({"type": kind, "id": id, "position": place});
        match said {
            FeedItem::Ready(place) => Self::message(&at("ready", place)),
            FeedItem::Notice(notice, own) => {
                let place = own.unwrap_or_else(|| feed.place_of(&notice).to_owned());
                let mut message = at("next", place);
                message["event"] = notice.name().into();
                // The change is serialized already, and the same for all subscribers.
                let mut text = message.to_string();
                text.pop();
                text.push_str(",\"data\":");
                text.push_str(&String::from_utf8_lossy(&notice.json));
                text.push('}');
                Self { text: Some(text), end: None }
            }
            FeedItem::Reset(place) => Self::message(&at("reset", place)),
            FeedItem::Beat(place) => Self::message(&at("position", place)),
            FeedItem::Lagged => Self::ended(id, "lagged"),
            FeedItem::End(why) => Self::ended(id, why),
        }
    }

    /// Any other message.
    pub(crate) fn message(message: &Json) -> Self {
        Self { text: Some(message.to_string()), end: None }
    }

    /// The last message of a subscription.
    pub(crate) fn ended(id: &str, why: &'static str) -> Self {
        let message = json!({"type": "complete", "id": id, "code": why});
        let end = if why == "unauthenticated" { Ending::Unauthenticated } else { Ending::Alone };
        Self { text: Some(message.to_string()), end: Some(end) }
    }
}
