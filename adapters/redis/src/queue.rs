//! Queues over Redis streams: one stream of bounded length for each queue, with consumer groups.

use std::fmt;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::streams::{StreamAutoClaimReply, StreamId, StreamPendingCountReply, StreamReadReply};
use redis::{AsyncConnectionConfig, RedisError, Value, cmd, pipe};
use resourceful_contract::{Answer, Consumer, MAX_DELIVERIES, QueueDelivery};
use tokio::sync::Mutex;

use crate::bus::entry_message;
use crate::{Redis, storage_error};

/// The approximate maximum numbers of messages in a stream and of dead letters.
const MAX_STREAM_LENGTH: usize = 10_000;
const MAX_DEAD_LETTERS: usize = 1_000;
/// How long one read blocks for the next message at most, in milliseconds.
const MAX_BLOCK_MILLIS: usize = 1_000;
/// The response timeout, after which the server counts as unavailable.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
/// The idle time after which a consumer without pending messages is removed, in milliseconds.
const CONSUMER_IDLE_MILLIS: u64 = 3_600_000;
pub(crate) const FIELD: &str = "message";

pub(crate) fn queue_key(queue: &str) -> String {
    format!("resourceful:queue:{queue}")
}

fn dead_letter_key(queue: &str, group: &str) -> String {
    format!("resourceful:dead:{queue}:{group}")
}

pub(crate) async fn send(redis: &Redis, queue: &str, message: Vec<u8>) -> Result<(), RedisError> {
    let mut add = cmd("XADD");
    add.arg(queue_key(queue)).arg("MAXLEN").arg("~").arg(MAX_STREAM_LENGTH).arg("*").arg(FIELD).arg(message);
    add.query_async::<()>(&mut redis.commands.clone()).await
}

pub(crate) async fn dead_letters(
    redis: &Redis,
    queue: &str,
    group: &str,
) -> Result<Vec<Vec<u8>>, RedisError> {
    let mut range = cmd("XRANGE");
    range.arg(dead_letter_key(queue, group)).arg("-").arg("+");
    let dead: redis::streams::StreamRangeReply = range.query_async(&mut redis.commands.clone()).await?;
    dead.ids.iter().map(entry_message).collect()
}

/// A member of a consumer group.
pub(crate) struct RedisConsumer {
    redis: Redis,
    queue: String,
    group: String,
    name: String,
    ack_timeout: Duration,
    /// Held by the task that reads the next message.
    reader: Mutex<Reader>,
}

#[derive(Default)]
struct Reader {
    /// A dedicated connection: a read blocks, and on a shared connection all later commands would wait with it.
    connection: Option<MultiplexedConnection>,
    /// When abandoned messages were last claimed from other consumers.
    reclaimed_at: Option<Instant>,
}

impl RedisConsumer {
    pub(crate) async fn join(
        redis: &Redis,
        queue: &str,
        group: &str,
        ack_timeout: Duration,
    ) -> Result<Self, RedisError> {
        let mut commands = redis.commands.clone();
        // The counter is on the server, so that no two consumers have the same name.
        let number: u64 = cmd("INCR").arg("resourceful:consumers").query_async(&mut commands).await?;
        let consumer = Self {
            redis: redis.clone(),
            queue: queue.to_owned(),
            group: group.to_owned(),
            name: format!("{number}-{}", std::process::id()),
            ack_timeout,
            reader: Mutex::default(),
        };
        consumer.create_group("$").await?;
        consumer.remove_idle_consumers().await?;
        Ok(consumer)
    }

    /// Creates the group if it does not exist, starting after an entry of the stream.
    async fn create_group(&self, after: &str) -> Result<(), RedisError> {
        let mut create = cmd("XGROUP");
        create.arg("CREATE").arg(queue_key(&self.queue)).arg(&self.group).arg(after).arg("MKSTREAM");
        match create.query_async::<()>(&mut self.redis.commands.clone()).await {
            Err(error) if error.code() == Some("BUSYGROUP") => Ok(()),
            outcome => outcome,
        }
    }

    /// Removes consumers of nodes that ended long ago and have no pending messages.
    async fn remove_idle_consumers(&self) -> Result<(), RedisError> {
        let mut commands = self.redis.commands.clone();
        let mut info = cmd("XINFO");
        info.arg("CONSUMERS").arg(queue_key(&self.queue)).arg(&self.group);
        let known: redis::streams::StreamInfoConsumersReply = info.query_async(&mut commands).await?;
        for one in known.consumers {
            if one.pending == 0 && one.idle as u64 > CONSUMER_IDLE_MILLIS {
                let mut removal = cmd("XGROUP");
                removal.arg("DELCONSUMER").arg(queue_key(&self.queue)).arg(&self.group).arg(one.name);
                removal.query_async::<()>(&mut commands).await?;
            }
        }
        Ok(())
    }

    /// Reads one message at a time: a message that waits in one node would wait while others are idle.
    async fn read_message(&self, reader: &mut Reader) -> Result<Option<QueueDelivery>, RedisError> {
        let connection = match &mut reader.connection {
            Some(connection) => connection,
            none => {
                let config = AsyncConnectionConfig::new().set_response_timeout(Some(RESPONSE_TIMEOUT));
                let opened = self.redis.client.get_multiplexed_async_connection_with_config(&config).await?;
                none.insert(opened)
            }
        };
        let is_due = |reclaimed_at: Instant| reclaimed_at.elapsed() >= self.ack_timeout / 2;
        if reader.reclaimed_at.is_none_or(is_due) {
            if let Some(reclaimed) = self.reclaim(connection).await? {
                return Ok(Some(reclaimed));
            }
            reader.reclaimed_at = Some(Instant::now());
        }
        let wait = usize::try_from((self.ack_timeout / 2).as_millis())
            .unwrap_or(MAX_BLOCK_MILLIS)
            .clamp(1, MAX_BLOCK_MILLIS);
        let mut read = cmd("XREADGROUP");
        read.arg("GROUP").arg(&self.group).arg(&self.name).arg("COUNT").arg(1).arg("BLOCK").arg(wait);
        read.arg("STREAMS").arg(queue_key(&self.queue)).arg(">");
        let reply: Option<StreamReadReply> = match read.query_async(connection).await {
            // The server lost its data, so whatever is in the stream by now is new.
            Err(error) if error.code() == Some("NOGROUP") => {
                return self.create_group("0").await.map(|()| None);
            }
            reply => reply?,
        };
        let entry = reply.into_iter().flat_map(|reply| reply.keys).flat_map(|stream| stream.ids).next();
        entry
            .map(|entry| Ok(QueueDelivery { message: entry_message(&entry)?, id: entry.id, times: 1 }))
            .transpose()
    }

    /// Claims one message that another consumer abandoned; a message that was delivered too often becomes a dead letter.
    async fn reclaim(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> Result<Option<QueueDelivery>, RedisError> {
        let mut claim = cmd("XAUTOCLAIM");
        claim.arg(queue_key(&self.queue)).arg(&self.group).arg(&self.name);
        claim.arg(u64::try_from(self.ack_timeout.as_millis()).unwrap_or(u64::MAX)).arg("0-0");
        claim.arg("COUNT").arg(1);
        let claimed: StreamAutoClaimReply = match claim.query_async(connection).await {
            Err(error) if error.code() == Some("NOGROUP") => {
                self.create_group("0").await?;
                return Ok(None);
            }
            claimed => claimed?,
        };
        for entry in claimed.claimed {
            let times = self.delivery_count(&entry, connection).await?;
            let message = entry_message(&entry)?;
            if times <= MAX_DELIVERIES {
                return Ok(Some(QueueDelivery { id: entry.id, message, times }));
            }
            let mut dead_lettering = pipe();
            dead_lettering.atomic();
            dead_lettering.cmd("XADD").arg(dead_letter_key(&self.queue, &self.group));
            dead_lettering.arg("MAXLEN").arg("~").arg(MAX_DEAD_LETTERS).arg("*").arg(FIELD).arg(message);
            dead_lettering.cmd("XACK").arg(queue_key(&self.queue)).arg(&self.group).arg(&entry.id);
            dead_lettering.query_async::<()>(connection).await?;
        }
        Ok(None)
    }

    /// How often a message was delivered.
    async fn delivery_count(
        &self,
        entry: &StreamId,
        connection: &mut MultiplexedConnection,
    ) -> Result<u32, RedisError> {
        let mut info = cmd("XPENDING");
        info.arg(queue_key(&self.queue)).arg(&self.group).arg(&entry.id).arg(&entry.id).arg(1);
        let pending: StreamPendingCountReply = info.query_async(connection).await?;
        Ok(pending.ids.first().map_or(1, |one| u32::try_from(one.times_delivered).unwrap_or(u32::MAX)))
    }
}

impl Consumer for RedisConsumer {
    fn next(&self) -> Answer<'_, QueueDelivery> {
        Box::pin(async move {
            let mut reader = self.reader.lock().await;
            loop {
                match self.read_message(&mut reader).await {
                    Ok(Some(delivery)) => return Ok(delivery),
                    Ok(None) => {}
                    Err(error) => {
                        reader.connection = None;
                        return Err(storage_error(error));
                    }
                }
            }
        })
    }

    fn keep<'a>(&'a self, ids: &'a [String]) -> Answer<'a, ()> {
        Box::pin(async move {
            if ids.is_empty() {
                return Ok(());
            }
            let mut claim = cmd("XCLAIM");
            claim.arg(queue_key(&self.queue)).arg(&self.group).arg(&self.name).arg(0).arg(ids).arg("JUSTID");
            claim
                .query_async::<Value>(&mut self.redis.commands.clone())
                .await
                .map(drop)
                .map_err(storage_error)
        })
    }

    fn acknowledge<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut acknowledge = cmd("XACK");
            acknowledge.arg(queue_key(&self.queue)).arg(&self.group).arg(id);
            acknowledge.query_async::<()>(&mut self.redis.commands.clone()).await.map_err(storage_error)
        })
    }
}

impl fmt::Debug for RedisConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConsumer")
            .field("queue", &self.queue)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
