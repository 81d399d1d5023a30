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
use crate::{Redis, storage_error};

/// The approximate number of messages that a stream keeps for slow listeners.
const MAX_STREAM_LENGTH: usize = 10_000;
/// The maximum number of messages in one read.
const READ_BATCH: usize = 256;
/// How long one read blocks for the next message, in milliseconds.
const MAX_BLOCK_MILLIS: usize = 2_000;
/// The response timeout, after which the server counts as unavailable.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub(crate) struct RedisBus(pub(crate) Redis);

fn stream_key(channel: &str) -> String {
    format!("resourceful:bus:{channel}")
}

impl Bus for RedisBus {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn publish<'a>(&'a self, channel: &'a str, message: Vec<u8>) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut add = cmd("XADD");
            add.arg(stream_key(channel))
                .arg("MAXLEN")
                .arg("~")
                .arg(MAX_STREAM_LENGTH)
                .arg("*")
                .arg(FIELD)
                .arg(message);
            let mut commands = self.0.commands.clone();
            add.query_async::<()>(&mut commands).await.map_err(storage_error)
        })
    }

    fn listen<'a>(&'a self, channel: &'a str) -> Answer<'a, Box<dyn Listener>> {
        Box::pin(async move {
            let mut listener = RedisListener {
                redis: self.0.clone(),
                key: stream_key(channel),
                connection: None,
                position: StreamPosition::default(),
                pending: VecDeque::new(),
            };
            listener.position = listener.stream_end().await.map_err(storage_error)?;
            Ok(Box::new(listener) as Box<dyn Listener>)
        })
    }

    fn send<'a>(&'a self, queue: &'a str, message: Vec<u8>) -> Answer<'a, ()> {
        Box::pin(async move { queue::send(&self.0, queue, message).await.map_err(storage_error) })
    }

    fn consume<'a>(
        &'a self,
        queue: &'a str,
        group: &'a str,
        ack_timeout: Duration,
    ) -> Answer<'a, Arc<dyn Consumer>> {
        Box::pin(async move {
            let consumer =
                RedisConsumer::join(&self.0, queue, group, ack_timeout).await.map_err(storage_error)?;
            Ok(Arc::new(consumer) as Arc<dyn Consumer>)
        })
    }

    fn dead_letters<'a>(&'a self, queue: &'a str, group: &'a str) -> Answer<'a, Vec<Vec<u8>>> {
        Box::pin(async move { queue::dead_letters(&self.0, queue, group).await.map_err(storage_error) })
    }
}

/// The id of a stream entry: milliseconds, and a sequence number within them.
type EntryId = (u64, u64);

/// A listener's position in a stream.
#[derive(Clone, Copy, Debug, Default)]
struct StreamPosition {
    /// The last entry that was read.
    last: EntryId,
    /// How many entries were ever added up to that one.
    added: u64,
}

/// The state of a stream, from XINFO.
#[derive(Clone, Copy, Debug, Default)]
struct StreamState {
    last: EntryId,
    added: u64,
    first: Option<EntryId>,
    length: u64,
}

struct RedisListener {
    redis: Redis,
    key: String,
    /// A dedicated connection: a read blocks, and on a shared connection all later commands would wait with it.
    connection: Option<MultiplexedConnection>,
    position: StreamPosition,
    pending: VecDeque<BusEvent>,
}

impl RedisListener {
    async fn connection(&mut self) -> Result<&mut MultiplexedConnection, RedisError> {
        if self.connection.is_none() {
            // A read blocks for a limited time; a server that answers later than this timeout counts as unavailable.
            let config = AsyncConnectionConfig::new().set_response_timeout(Some(RESPONSE_TIMEOUT));
            let opened = self.redis.client.get_multiplexed_async_connection_with_config(&config).await?;
            self.connection = Some(opened);
        }
        self.connection.as_mut().ok_or_else(|| RedisError::from((redis::ErrorKind::Io, "no connection")))
    }

    /// The current end of the stream.
    async fn stream_end(&mut self) -> Result<StreamPosition, RedisError> {
        let key = self.key.clone();
        let has_stream: bool = cmd("EXISTS").arg(&key).query_async(self.connection().await?).await?;
        if !has_stream {
            return Ok(StreamPosition::default());
        }
        let state = cmd("XINFO").arg("STREAM").arg(&key).query_async(self.connection().await?).await?;
        let state = StreamState::parse(&state)?;
        Ok(StreamPosition { last: state.last, added: state.added })
    }

    /// Blocks until there is an entry to read, or for a limited time.
    async fn wait_for_entry(&mut self) -> Result<(), RedisError> {
        let mut read = cmd("XREAD");
        read.arg("COUNT").arg(1).arg("BLOCK").arg(MAX_BLOCK_MILLIS).arg("STREAMS");
        read.arg(&self.key).arg(format_id(self.position.last));
        read.query_async::<Value>(self.connection().await?).await.map(drop)
    }

    /// Reads new entries, and the state of the stream at the same moment.
    async fn read_entries(&mut self) -> Result<(), RedisError> {
        let (key, from) = (self.key.clone(), format_id(self.position.last));
        let has_stream: bool = cmd("EXISTS").arg(&key).query_async(self.connection().await?).await?;
        if !has_stream {
            if self.position.added > 0 {
                self.pending.push_back(BusEvent::Missed);
                self.position = StreamPosition::default();
            }
            return Ok(());
        }
        let mut transaction = pipe();
        transaction.atomic();
        transaction.cmd("XINFO").arg("STREAM").arg(&key);
        transaction.cmd("XREAD").arg("COUNT").arg(READ_BATCH).arg("STREAMS").arg(&key).arg(from);
        let (state, reply): (HashMap<String, Value>, Option<StreamReadReply>) =
            transaction.query_async(self.connection().await?).await?;
        let state = StreamState::parse(&state)?;
        if self.position.has_lost(&state) {
            self.pending.push_back(BusEvent::Missed);
            self.position = StreamPosition { last: (0, 0), added: state.added.saturating_sub(state.length) };
            if state.first.is_some() {
                // The remaining entries are read from the beginning by the next read.
                return Ok(());
            }
        }
        for entry in reply.into_iter().flat_map(|reply| reply.keys).flat_map(|stream| stream.ids) {
            self.position = StreamPosition { last: parse_id(&entry.id)?, added: self.position.added + 1 };
            self.pending.push_back(BusEvent::Message(entry_message(&entry)?));
        }
        Ok(())
    }
}

impl StreamPosition {
    /// Whether entries after this position were lost.
    fn has_lost(&self, state: &StreamState) -> bool {
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

impl StreamState {
    fn parse(state: &HashMap<String, Value>) -> Result<Self, RedisError> {
        let number = |name: &str| state.get(name).and_then(|value| u64::from_redis_value_ref(value).ok());
        let text = |name: &str| state.get(name).and_then(|value| String::from_redis_value_ref(value).ok());
        let missing =
            || RedisError::from((redis::ErrorKind::UnexpectedReturnType, "Redis 7 or newer is needed"));
        Ok(Self {
            last: parse_id(&text("last-generated-id").ok_or_else(missing)?)?,
            added: number("entries-added").ok_or_else(missing)?,
            first: match state.get("first-entry") {
                Some(Value::Array(entry)) => match entry.first() {
                    Some(first) => Some(parse_id(&String::from_redis_value_ref(first)?)?),
                    None => None,
                },
                _ => None,
            },
            length: number("length").ok_or_else(missing)?,
        })
    }
}

fn parse_id(text: &str) -> Result<EntryId, RedisError> {
    let parts =
        text.split_once('-').and_then(|(time, number)| Some((time.parse().ok()?, number.parse().ok()?)));
    parts.ok_or_else(|| RedisError::from((redis::ErrorKind::UnexpectedReturnType, "an entry has no id")))
}

fn format_id((time, number): EntryId) -> String {
    format!("{time}-{number}")
}

pub(crate) fn entry_message(entry: &StreamId) -> Result<Vec<u8>, RedisError> {
    let missing = || RedisError::from((redis::ErrorKind::UnexpectedReturnType, "an entry holds no message"));
    let value = entry.map.get(FIELD).ok_or_else(missing)?;
    Ok(Vec::from_redis_value_ref(value)?)
}

impl Listener for RedisListener {
    fn recv(&mut self) -> Answer<'_, BusEvent> {
        Box::pin(async move {
            loop {
                if let Some(pending) = self.pending.pop_front() {
                    return Ok(pending);
                }
                let was_disconnected = self.connection.is_none();
                let outcome = match if was_disconnected { Ok(()) } else { self.wait_for_entry().await } {
                    Ok(()) => self.read_entries().await,
                    Err(error) => Err(error),
                };
                match outcome {
                    Ok(()) if was_disconnected && self.pending.is_empty() => return Ok(BusEvent::Back),
                    Ok(()) => {}
                    Err(error) => {
                        self.connection = None;
                        return Err(storage_error(error));
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
            .field("place", &self.position)
            .finish_non_exhaustive()
    }
}
