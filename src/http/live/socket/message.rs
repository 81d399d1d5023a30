//! Client messages on a socket: JSON objects, distinguished by their `type`.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json};

use crate::error::{Error, ErrorKind, Fault};
use crate::http::strict_json;
use crate::http::strict_json::ParseFailure;
use crate::nearest::suggest;
use crate::resource::pointer_of;

/// The largest message, in bytes.
pub(super) const MAX_MESSAGE_BYTES: usize = 64 * 1024;
/// The longest id that a client may give, in bytes.
const MAX_ID_BYTES: usize = 128;
/// The types of messages.
const MESSAGE_TYPES: [&str; 7] = ["subscribe", "join", "members", "complete", "authenticate", "ping", "pong"];
/// The maximum size of a member's state, in bytes as JSON.
const MAX_STATE_BYTES: usize = 1_024;

/// The maximum nesting depth of a member's state.
const MAX_STATE_DEPTH: usize = 8;

fn depth(json: &Json) -> usize {
    match json {
        Json::Array(items) => 1 + items.iter().map(depth).max().unwrap_or_default(),
        Json::Object(members) => 1 + members.values().map(depth).max().unwrap_or_default(),
        _ => 0,
    }
}

/// A parsed message.
#[derive(Debug)]
pub(super) enum ClientMessage {
    /// Begins a subscription to changes, under this id.
    Subscribe(String, Box<Subscribe>),
    /// Enters a room, whose members are reported under this id.
    Join(String, Join),
    /// Requests the members of a room.
    Members(String),
    /// Ends what runs under this id.
    Complete(String),
    /// Authenticates the client by another credential from here on.
    Authenticate(String),
    Ping,
    Pong,
}

/// The changes to subscribe to: of one resource, or of all.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Subscribe {
    #[serde(default)]
    pub(super) resource: Option<String>,
    /// Types of events, for a subscription to all resources.
    #[serde(default)]
    pub(super) types: Option<Vec<String>>,
    #[serde(default)]
    pub(super) filter: Option<Json>,
    #[serde(default)]
    pub(super) q: Option<Json>,
    #[serde(default)]
    pub(super) fields: Option<Json>,
    /// The position after which to continue.
    #[serde(default)]
    pub(super) after: Option<String>,
}

impl Subscribe {
    /// The query on a resource, in its body form.
    pub(super) fn body(&mut self) -> Json {
        let members = [("filter", self.filter.take()), ("q", self.q.take()), ("fields", self.fields.take())];
        Json::Object(
            members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect(),
        )
    }
}

/// The room to join: that of an item, or of a resource as a whole.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Join {
    pub(super) resource: String,
    #[serde(default)]
    pub(super) item: Option<String>,
    /// The state that the client shows to the other members.
    #[serde(default)]
    pub(super) state: Json,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Authenticate {
    authorization: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EmptyMessage {}

/// Reads a message; also returns the id that it names, so that a reply can name it too.
pub(super) fn parse(text: &str) -> (Option<String>, Result<ClientMessage, Error>) {
    let mut members = match strict_json::parse(text.as_bytes()) {
        Ok(Json::Object(members)) => members,
        Ok(_) => return (None, Err(invalid("", "type", "A message is an object: {\"type\": …}."))),
        Err(ParseFailure::Json(error)) => {
            return (None, Err(invalid("", "json", format!("Not JSON: {error}."))));
        }
        Err(ParseFailure::Numbers(faults)) => return (None, Err(invalid_message(faults))),
    };
    let id = members.remove("id");
    let id_text = id.as_ref().and_then(Json::as_str).map(str::to_owned);
    (id_text, parse_members(members, id))
}

fn parse_members(mut members: Map<String, Json>, id: Option<Json>) -> Result<ClientMessage, Error> {
    let kind = match members.remove("type") {
        Some(Json::String(kind)) => kind,
        Some(_) => return Err(invalid("/type", "type", "Must be a string.")),
        None => return Err(invalid("/type", "required", format!("One of {}.", MESSAGE_TYPES.join(", ")))),
    };
    match kind.as_str() {
        "subscribe" => Ok(ClientMessage::Subscribe(required_id(id)?, Box::new(parse_rest(members)?))),
        "join" => {
            let join: Join = parse_rest(members)?;
            if join.state.to_string().len() > MAX_STATE_BYTES {
                return Err(invalid(
                    "/state",
                    "length",
                    format!("May have {MAX_STATE_BYTES} bytes as JSON."),
                ));
            }
            if depth(&join.state) > MAX_STATE_DEPTH {
                return Err(invalid("/state", "limit", format!("Nests at most {MAX_STATE_DEPTH} deep.")));
            }
            Ok(ClientMessage::Join(required_id(id)?, join))
        }
        "members" => {
            let EmptyMessage {} = parse_rest(members)?;
            Ok(ClientMessage::Members(required_id(id)?))
        }
        "complete" => {
            let EmptyMessage {} = parse_rest(members)?;
            Ok(ClientMessage::Complete(required_id(id)?))
        }
        "authenticate" => {
            let Authenticate { authorization } = parse_rest(members)?;
            Ok(ClientMessage::Authenticate(authorization))
        }
        // Other members of these messages are the client's own, and ignored.
        "ping" => Ok(ClientMessage::Ping),
        "pong" => Ok(ClientMessage::Pong),
        _ => Err(invalid(
            "/type",
            "unknown",
            suggest(format!("`{kind}` is no message."), &kind, MESSAGE_TYPES),
        )),
    }
}

fn required_id(id: Option<Json>) -> Result<String, Error> {
    match id {
        Some(Json::String(id)) if (1..=MAX_ID_BYTES).contains(&id.len()) => Ok(id),
        Some(Json::String(_)) => {
            Err(invalid("/id", "length", format!("Must have 1 to {MAX_ID_BYTES} bytes.")))
        }
        Some(_) => Err(invalid("/id", "type", "Must be a string.")),
        None => Err(invalid("/id", "required", "An id is required: the responses refer to it.")),
    }
}

fn parse_rest<T: DeserializeOwned>(members: Map<String, Json>) -> Result<T, Error> {
    serde_path_to_error::deserialize(Json::Object(members)).map_err(|error| {
        invalid(&pointer_of(error.path()), "type", format!("Not readable: {}.", error.inner()))
    })
}

pub(super) fn invalid(pointer: &str, code: &'static str, detail: impl Into<String>) -> Error {
    invalid_message(vec![Fault::pointer(pointer, code, detail)])
}

fn invalid_message(faults: Vec<Fault>) -> Error {
    let whole = "The message is invalid: see `errors`.";
    Error::new(ErrorKind::BadRequest, "invalid-message", whole).with_faults(faults)
}
