//! What is said on a socket: messages of JSON, each with the id of the subscription that it belongs to.

use serde_json::{Value as Json, json};

use super::body::{Feed, Said};

/// A message to a client.
#[derive(Debug)]
pub(crate) struct Told {
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

impl Told {
    /// What a feed says.
    pub(crate) fn of(feed: &Feed, id: &str, said: Said) -> Self {
        let at = |kind: &str, place: String| json!({"type": kind, "id": id, "position": place});
        match said {
            Said::Ready(place) => Self::message(&at("ready", place)),
            Said::Notice(notice, own) => {
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
            Said::Reset(place) => Self::message(&at("reset", place)),
            Said::Beat(place) => Self::message(&at("position", place)),
            Said::Lagged => Self::ended(id, "lagged"),
            Said::End(why) => Self::ended(id, why),
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
