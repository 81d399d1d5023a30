//! What is said on a socket: messages of JSON, each with the id of the subscription that it belongs to.

use serde_json::{Value as Json, json};

use super::feed::{Feed, FeedItem};

/// A message to a client.
#[derive(Debug)]
pub(crate) struct SocketMessage {
    /// Nothing where there is nothing to say.
    pub(crate) text: Option<String>,
    /// Where nothing more comes under its id.
    pub(crate) end: Option<Ending>,
}

/// What the end of a subscription means for its socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It goes on.
    Alone,
    /// The credential that all of them have is not good any more.
    Unauthenticated,
}

impl SocketMessage {
    /// What a feed says.
    pub(crate) fn of(feed: &Feed, id: &str, said: FeedItem) -> Self {
        let at = |kind: &str, place: String| json!({"type": kind, "id": id, "position": place});
        match said {
            FeedItem::Ready(place) => Self::message(&at("ready", place)),
            FeedItem::Notice(notice, own) => {
                let place = own.unwrap_or_else(|| feed.place_of(&notice).to_owned());
                let mut message = at("next", place);
                message["event"] = notice.name().into();
                // What it says of the change is written already, and the same for everyone.
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

    /// Something else that is said.
    pub(crate) fn message(message: &Json) -> Self {
        Self { text: Some(message.to_string()), end: None }
    }

    /// The last that is said.
    pub(crate) fn ended(id: &str, why: &'static str) -> Self {
        let message = json!({"type": "complete", "id": id, "code": why});
        let end = if why == "unauthenticated" { Ending::Unauthenticated } else { Ending::Alone };
        Self { text: Some(message.to_string()), end: Some(end) }
    }
}
