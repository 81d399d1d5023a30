//! A message bus over Redis streams: one stream of bounded length for each channel.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::streams::{StreamId, StreamReadReply};
use redis::{AsyncConnectionConfig, FromRedisValue as _, RedisError, Value, cmd, pipe};
use resourceful_contract::{Answer, Bus, BusEvent, Consumer, Listener};

use crate::queue::{self, FIELD, RedisConsumer};
use crate::{Redis, failed};

/// The approximate number of messages that a stream keeps for slow listeners.
const KEPT: usize = 10_000;
/// The maximum number of messages in one read.
const BATCH: usize = 256;
/// How long one read blocks for the next message, in milliseconds.
const WAIT: usize = 2_000;
/// The response timeout, after which the server counts as unavailable.
const LATE: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub(crate) struct RedisBus(pub(crate) Redis);

fn key(channel: &str) -> String {
    format!("resourceful:bus:{channel}")
}

impl Bus for RedisBus {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn publish<'a>(&'a self, channel: &'a str, message: Vec<u8>) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut add = cmd("XADD");
            add.arg(key(channel)).arg("MAXLEN").arg("~").arg(KEPT).arg("*").arg(FIELD).arg(message);
            let mut commands = self.0.commands.clone();
            add.query_async::<()>(&mut commands).await.map_err(failed)
        })
    }

    fn listen<'a>(&'a self, channel: &'a str) -> Answer<'a, Box<dyn Listener>> {
        Box::pin(async move {
            let mut listener = RedisListener {
                redis: self.0.clone(),
                key: key(channel),
                connection: None,
                place: Place::default(),
                heard: VecDeque::new(),
            };
            listener.place = listener.end().await.map_err(failed)?;
            Ok(Box::new(listener) as Box<dyn Listener>)
        })
    }

    fn send<'a>(&'a self, queue: &'a str, message: Vec<u8>) -> Answer<'a, ()> {
        Box::pin(async move { queue::send(&self.0, queue, message).await.map_err(failed) })
    }

    fn consume<'a>(
        &'a self,
        queue: &'a str,
        group: &'a str,
        abandoned: Duration,
    ) -> Answer<'a, Arc<dyn Consumer>> {
        Box::pin(async move {
            let consumer = RedisConsumer::join(&self.0, queue, group, abandoned).await.map_err(failed)?;
            Ok(Arc::new(consumer) as Arc<dyn Consumer>)
        })
    }

    fn dead_letters<'a>(&'a self, queue: &'a str, group: &'a str) -> Answer<'a, Vec<Vec<u8>>> {
        Box::pin(async move { queue::dead_letters(&self.0, queue, group).await.map_err(failed) })
    }
}

/// The id of a stream entry: milliseconds, and a sequence number within them.
type Id = (u64, u64);

/// A listener's position in a stream.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    /// The last entry that was read.
    last: Id,
    /// How many entries were ever added up to that one.
    added: u64,
}

/// The state of a stream, from XINFO.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    last: Id,
    added: u64,
    first: Option<Id>,
    length: u64,
}

struct RedisListener {
    redis: Redis,
    key: String,
    /// A dedicated connection: a read blocks, and on a shared connection all later commands would wait with it.
    connection: Option<MultiplexedConnection>,
    place: Place,
    heard: VecDeque<BusEvent>,
}

impl RedisListener {
    async fn connection(&mut self) -> Result<&mut MultiplexedConnection, RedisError> {
        if self.connection.is_none() {
            // A read blocks for a limited time; a server that answers later than this timeout counts as unavailable.
            let config = AsyncConnectionConfig::new().set_response_timeout(Some(LATE));
            let opened = self.redis.client.get_multiplexed_async_connection_with_config(&config).await?;
            self.connection = Some(opened);
        }
        self.connection.as_mut().ok_or_else(|| RedisError::from((redis::ErrorKind::Io, "no connection")))
    }

    /// The current end of the stream.
    async fn end(&mut self) -> Result<Place, RedisError> {
        let key = self.key.clone();
        let is_there: bool = cmd("EXISTS").arg(&key).query_async(self.connection().await?).await?;
        if !is_there {
            return Ok(Place::default());
        }
        let state = cmd("XINFO").arg("STREAM").arg(&key).query_async(self.connection().await?).await?;
        let state = State::read(&state)?;
        Ok(Place { last: state.last, added: state.added })
    }

    /// Blocks until there is an entry to read, or for a limited time.
    async fn wait(&mut self) -> Result<(), RedisError> {
        let mut read = cmd("XREAD");
        read.arg("COUNT").arg(1).arg("BLOCK").arg(WAIT).arg("STREAMS");
        read.arg(&self.key).arg(spelled(self.place.last));
        read.query_async::<Value>(self.connection().await?).await.map(drop)
    }

    /// Reads new entries, and the state of the stream at the same moment.
    async fn look(&mut self) -> Result<(), RedisError> {
        let (key, from) = (self.key.clone(), spelled(self.place.last));
        let is_there: bool = cmd("EXISTS").arg(&key).query_async(self.connection().await?).await?;
        if !is_there {
            if self.place.added > 0 {
                self.heard.push_back(BusEvent::Missed);
                self.place = Place::default();
            }
            return Ok(());
        }
        let mut both = pipe();
        both.atomic();
        both.cmd("XINFO").arg("STREAM").arg(&key);
        both.cmd("XREAD").arg("COUNT").arg(BATCH).arg("STREAMS").arg(&key).arg(from);
        let (state, came): (HashMap<String, Value>, Option<StreamReadReply>) =
            both.query_async(self.connection().await?).await?;
        let state = State::read(&state)?;
        if self.place.has_lost(&state) {
            self.heard.push_back(BusEvent::Missed);
            self.place = Place { last: (0, 0), added: state.added.saturating_sub(state.length) };
            if state.first.is_some() {
                // The remaining entries are read from the beginning by the next read.
                return Ok(());
            }
        }
        for entry in came.into_iter().flat_map(|came| came.keys).flat_map(|stream| stream.ids) {
            self.place = Place { last: id(&entry.id)?, added: self.place.added + 1 };
            self.heard.push_back(BusEvent::Message(message(&entry)?));
        }
        Ok(())
    }
}

impl Place {
    /// Whether entries after this position were lost.
    fn has_lost(&self, state: &State) -> bool {
        if state.last < self.last {
            return true;
        }
        // While an entry up to this position exists, so do all after it: streams are trimmed from their beginning.
        match state.first {
            Some(first) if first <= self.last => false,
            _ => state.added.checked_sub(self.added) != Some(state.length),
        }
    }
}

impl State {
    fn read(state: &HashMap<String, Value>) -> Result<Self, RedisError> {
        let number = |name: &str| state.get(name).and_then(|value| u64::from_redis_value_ref(value).ok());
        let text = |name: &str| state.get(name).and_then(|value| String::from_redis_value_ref(value).ok());
        let missing =
            || RedisError::from((redis::ErrorKind::UnexpectedReturnType, "Redis 7 or newer is needed"));
        Ok(Self {
            last: id(&text("last-generated-id").ok_or_else(missing)?)?,
            added: number("entries-added").ok_or_else(missing)?,
            first: match state.get("first-entry") {
                Some(Value::Array(entry)) => match entry.first() {
                    Some(first) => Some(id(&String::from_redis_value_ref(first)?)?),
                    None => None,
                },
                _ => None,
            },
            length: number("length").ok_or_else(missing)?,
        })
    }
}

fn id(text: &str) -> Result<Id, RedisError> {
    let parts =
        text.split_once('-').and_then(|(time, number)| Some((time.parse().ok()?, number.parse().ok()?)));
    parts.ok_or_else(|| RedisError::from((redis::ErrorKind::UnexpectedReturnType, "an entry has no id")))
}

fn spelled((time, number): Id) -> String {
    format!("{time}-{number}")
}

pub(crate) fn message(entry: &StreamId) -> Result<Vec<u8>, RedisError> {
    let missing = || RedisError::from((redis::ErrorKind::UnexpectedReturnType, "an entry holds no message"));
    let value = entry.map.get(FIELD).ok_or_else(missing)?;
    Ok(Vec::from_redis_value_ref(value)?)
}

impl Listener for RedisListener {
    fn heard(&mut self) -> Answer<'_, BusEvent> {
        Box::pin(async move {
            loop {
                if let Some(heard) = self.heard.pop_front() {
                    return Ok(heard);
                }
                let was_away = self.connection.is_none();
                let looked = match if was_away { Ok(()) } else { self.wait().await } {
                    Ok(()) => self.look().await,
                    Err(error) => Err(error),
                };
                match looked {
                    Ok(()) if was_away && self.heard.is_empty() => return Ok(BusEvent::Back),
                    Ok(()) => {}
                    Err(error) => {
                        self.connection = None;
                        return Err(failed(error));
                    }
                }
            }
        })
    }
}

impl fmt::Debug for RedisListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisListener")
            .field("key", &self.key)
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}
