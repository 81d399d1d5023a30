//! What a client says on a socket: JSON objects, told apart by their `type`.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json};

use crate::error::{Error, ErrorKind, Fault};
use crate::http::strict_json::{self, ParseFailure};
use crate::nearest::suggest;
use crate::resource::pointer_of;

/// The largest message, in bytes.
pub(super) const MOST_BYTES: usize = 64 * 1024;
/// The longest id that a client may give, in bytes.
const MOST_ID: usize = 128;
/// What there is to say.
const TYPES: [&str; 7] = ["subscribe", "join", "members", "complete", "authenticate", "ping", "pong"];
/// The longest that a member may say of themselves, in bytes as JSON.
const MOST_STATE: usize = 1_024;

/// How deep it may nest.
const DEEPEST: usize = 8;

fn depth(json: &Json) -> usize {
    match json {
        Json::Array(items) => 1 + items.iter().map(depth).max().unwrap_or_default(),
        Json::Object(members) => 1 + members.values().map(depth).max().unwrap_or_default(),
        _ => 0,
    }
}

/// A message that was understood.
#[derive(Debug)]
pub(super) enum Message {
    /// From here on the client is told of changes, under this id.
    Subscribe(String, Box<Subscribe>),
    /// From here on the client is in a room, and told who else is, under this id.
    Join(String, Join),
    /// Who is there?
    Members(String),
    /// Nothing more under this id.
    Complete(String),
    /// From here on the client is whom this vouches for.
    Authenticate(String),
    Ping,
    Pong,
}

/// Which changes: of one resource, or of all.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Subscribe {
    #[serde(default)]
    pub(super) resource: Option<String>,
    /// Types of events, where it is of all.
    #[serde(default)]
    pub(super) types: Option<Vec<String>>,
    #[serde(default)]
    pub(super) filter: Option<Json>,
    #[serde(default)]
    pub(super) q: Option<Json>,
    #[serde(default)]
    pub(super) fields: Option<Json>,
    /// Where to go on.
    #[serde(default)]
    pub(super) after: Option<String>,
}

impl Subscribe {
    /// What is asked of a resource, as the body of a query.
    pub(super) fn body(&mut self) -> Json {
        let members = [("filter", self.filter.take()), ("q", self.q.take()), ("fields", self.fields.take())];
        Json::Object(
            members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect(),
        )
    }
}

/// Which room: that of an item, or of a resource as a whole.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Join {
    pub(super) resource: String,
    #[serde(default)]
    pub(super) item: Option<String>,
    /// What the client says of themselves to the others.
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
struct Nothing {}

/// Reads a message; answers the id as well that it names, for an answer to name it too.
pub(super) fn read(text: &str) -> (Option<String>, Result<Message, Error>) {
    let mut members = match strict_json::read(text.as_bytes()) {
        Ok(Json::Object(members)) => members,
        Ok(_) => return (None, Err(invalid("", "type", "A message is an object: {\"type\": …}."))),
        Err(ParseFailure::Json(error)) => {
            return (None, Err(invalid("", "json", format!("Not JSON: {error}."))));
        }
        Err(ParseFailure::Numbers(faults)) => return (None, Err(not_understood(faults))),
    };
    let id = members.remove("id");
    let named = id.as_ref().and_then(Json::as_str).map(str::to_owned);
    (named, understood(members, id))
}

fn understood(mut members: Map<String, Json>, id: Option<Json>) -> Result<Message, Error> {
    let kind = match members.remove("type") {
        Some(Json::String(kind)) => kind,
        Some(_) => return Err(invalid("/type", "type", "Must be a string.")),
        None => return Err(invalid("/type", "required", format!("One of {}.", TYPES.join(", ")))),
    };
    match kind.as_str() {
        "subscribe" => Ok(Message::Subscribe(required(id)?, Box::new(rest(members)?))),
        "join" => {
            let join: Join = rest(members)?;
            if join.state.to_string().len() > MOST_STATE {
                return Err(invalid("/state", "length", format!("May have {MOST_STATE} bytes as JSON.")));
            }
            if depth(&join.state) > DEEPEST {
                return Err(invalid("/state", "limit", format!("Nests at most {DEEPEST} deep.")));
            }
            Ok(Message::Join(required(id)?, join))
        }
        "members" => {
            let Nothing {} = rest(members)?;
            Ok(Message::Members(required(id)?))
        }
        "complete" => {
            let Nothing {} = rest(members)?;
            Ok(Message::Complete(required(id)?))
        }
        "authenticate" => {
            let Authenticate { authorization } = rest(members)?;
            Ok(Message::Authenticate(authorization))
        }
        // Whatever else a client says with these is its own.
        "ping" => Ok(Message::Ping),
        "pong" => Ok(Message::Pong),
        _ => Err(invalid("/type", "unknown", suggest(format!("`{kind}` is no message."), &kind, TYPES))),
    }
}

fn required(id: Option<Json>) -> Result<String, Error> {
    match id {
        Some(Json::String(id)) if (1..=MOST_ID).contains(&id.len()) => Ok(id),
        Some(Json::String(_)) => Err(invalid("/id", "length", format!("Must have 1 to {MOST_ID} bytes."))),
        Some(_) => Err(invalid("/id", "type", "Must be a string.")),
        None => Err(invalid("/id", "required", "Name it, so that its answers can name it.")),
    }
}

fn rest<T: DeserializeOwned>(members: Map<String, Json>) -> Result<T, Error> {
    serde_path_to_error::deserialize(Json::Object(members)).map_err(|error| {
        invalid(&pointer_of(error.path()), "type", format!("Not readable: {}.", error.inner()))
    })
}

pub(super) fn invalid(pointer: &str, code: &'static str, detail: impl Into<String>) -> Error {
    not_understood(vec![Fault::pointer(pointer, code, detail)])
}

fn not_understood(faults: Vec<Fault>) -> Error {
    let whole = "The message is not one that is understood here: see `errors`.";
    Error::new(ErrorKind::BadRequest, "invalid-message", whole).with_faults(faults)
}
