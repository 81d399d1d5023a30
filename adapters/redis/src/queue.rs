//! Queues over Redis streams: one stream of bounded length for each queue, with consumer groups.

use std::fmt;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::streams::{StreamAutoClaimReply, StreamId, StreamPendingCountReply, StreamReadReply};
use redis::{AsyncConnectionConfig, RedisError, Value, cmd, pipe};
use resourceful_contract::{Answer, Consumer, MAX_DELIVERIES, QueueDelivery};
use tokio::sync::Mutex;

use crate::bus::message;
use crate::{Redis, failed};

/// The approximate maximum numbers of messages in a stream and of dead letters.
const KEPT: usize = 10_000;
const DEAD: usize = 1_000;
/// How long one read blocks for the next message at most, in milliseconds.
const WAIT: usize = 1_000;
/// The response timeout, after which the server counts as unavailable.
const LATE: Duration = Duration::from_secs(5);
/// The idle time after which a consumer without pending messages is removed, in milliseconds.
const FORGOTTEN: u64 = 3_600_000;
pub(crate) const FIELD: &str = "message";

pub(crate) fn key(queue: &str) -> String {
    format!("resourceful:queue:{queue}")
}

fn dead_key(queue: &str, group: &str) -> String {
    format!("resourceful:dead:{queue}:{group}")
}

pub(crate) async fn send(redis: &Redis, queue: &str, message: Vec<u8>) -> Result<(), RedisError> {
    let mut add = cmd("XADD");
    add.arg(key(queue)).arg("MAXLEN").arg("~").arg(KEPT).arg("*").arg(FIELD).arg(message);
    add.query_async::<()>(&mut redis.commands.clone()).await
}

pub(crate) async fn dead_letters(
    redis: &Redis,
    queue: &str,
    group: &str,
) -> Result<Vec<Vec<u8>>, RedisError> {
    let mut range = cmd("XRANGE");
    range.arg(dead_key(queue, group)).arg("-").arg("+");
    let dead: redis::streams::StreamRangeReply = range.query_async(&mut redis.commands.clone()).await?;
    dead.ids.iter().map(message).collect()
}

/// A member of a consumer group.
pub(crate) struct RedisConsumer {
    redis: Redis,
    queue: String,
    group: String,
    name: String,
    abandoned: Duration,
    /// Held by the task that reads the next message.
    looking: Mutex<Looking>,
}

#[derive(Default)]
struct Looking {
    /// A dedicated connection: a read blocks, and on a shared connection all later commands would wait with it.
    connection: Option<MultiplexedConnection>,
    /// When abandoned messages were last claimed from other consumers.
    looked: Option<Instant>,
}

impl RedisConsumer {
    pub(crate) async fn join(
        redis: &Redis,
        queue: &str,
        group: &str,
        abandoned: Duration,
    ) -> Result<Self, RedisError> {
        let mut commands = redis.commands.clone();
        // The counter is on the server, so that no two consumers have the same name.
        let number: u64 = cmd("INCR").arg("resourceful:consumers").query_async(&mut commands).await?;
        let consumer = Self {
            redis: redis.clone(),
            queue: queue.to_owned(),
            group: group.to_owned(),
            name: format!("{number}-{}", std::process::id()),
            abandoned,
            looking: Mutex::default(),
        };
        consumer.make_group("$").await?;
        consumer.forget_others().await?;
        Ok(consumer)
    }

    /// Creates the group if it does not exist, starting after an entry of the stream.
    async fn make_group(&self, after: &str) -> Result<(), RedisError> {
        let mut create = cmd("XGROUP");
        create.arg("CREATE").arg(key(&self.queue)).arg(&self.group).arg(after).arg("MKSTREAM");
        match create.query_async::<()>(&mut self.redis.commands.clone()).await {
            Err(error) if error.code() == Some("BUSYGROUP") => Ok(()),
            made => made,
        }
    }

    /// Removes consumers of nodes that ended long ago and have no pending messages.
    async fn forget_others(&self) -> Result<(), RedisError> {
        let mut commands = self.redis.commands.clone();
        let mut ask = cmd("XINFO");
        ask.arg("CONSUMERS").arg(key(&self.queue)).arg(&self.group);
        let known: redis::streams::StreamInfoConsumersReply = ask.query_async(&mut commands).await?;
        for one in known.consumers {
            if one.pending == 0 && one.idle as u64 > FORGOTTEN {
                let mut forget = cmd("XGROUP");
                forget.arg("DELCONSUMER").arg(key(&self.queue)).arg(&self.group).arg(one.name);
                forget.query_async::<()>(&mut commands).await?;
            }
        }
        Ok(())
    }

    /// Reads one message at a time: a message that waits in one node would wait while others are idle.
    async fn look(&self, looking: &mut Looking) -> Result<Option<QueueDelivery>, RedisError> {
        let connection = match &mut looking.connection {
            Some(connection) => connection,
            none => {
                let config = AsyncConnectionConfig::new().set_response_timeout(Some(LATE));
                let opened = self.redis.client.get_multiplexed_async_connection_with_config(&config).await?;
                none.insert(opened)
            }
        };
        let is_due = |looked: Instant| looked.elapsed() >= self.abandoned / 2;
        if looking.looked.is_none_or(is_due) {
            if let Some(reclaimed) = self.reclaim(connection).await? {
                return Ok(Some(reclaimed));
            }
            looking.looked = Some(Instant::now());
        }
        let wait = usize::try_from((self.abandoned / 2).as_millis()).unwrap_or(WAIT).clamp(1, WAIT);
        let mut read = cmd("XREADGROUP");
        read.arg("GROUP").arg(&self.group).arg(&self.name).arg("COUNT").arg(1).arg("BLOCK").arg(wait);
        read.arg("STREAMS").arg(key(&self.queue)).arg(">");
        let came: Option<StreamReadReply> = match read.query_async(connection).await {
            // The server lost its data, so whatever is in the stream by now is new.
            Err(error) if error.code() == Some("NOGROUP") => {
                return self.make_group("0").await.map(|()| None);
            }
            came => came?,
        };
        let entry = came.into_iter().flat_map(|came| came.keys).flat_map(|stream| stream.ids).next();
        entry.map(|entry| Ok(QueueDelivery { message: message(&entry)?, id: entry.id, times: 1 })).transpose()
    }

    /// Claims one message that another consumer abandoned; a message that was delivered too often becomes a dead letter.
    async fn reclaim(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> Result<Option<QueueDelivery>, RedisError> {
        let mut claim = cmd("XAUTOCLAIM");
        claim.arg(key(&self.queue)).arg(&self.group).arg(&self.name);
        claim.arg(u64::try_from(self.abandoned.as_millis()).unwrap_or(u64::MAX)).arg("0-0");
        claim.arg("COUNT").arg(1);
        let claimed: StreamAutoClaimReply = match claim.query_async(connection).await {
            Err(error) if error.code() == Some("NOGROUP") => {
                self.make_group("0").await?;
                return Ok(None);
            }
            claimed => claimed?,
        };
        for entry in claimed.claimed {
            let times = self.times(&entry, connection).await?;
            let message = message(&entry)?;
            if times <= MAX_DELIVERIES {
                return Ok(Some(QueueDelivery { id: entry.id, message, times }));
            }
            let mut bury = pipe();
            bury.atomic();
            bury.cmd("XADD").arg(dead_key(&self.queue, &self.group));
            bury.arg("MAXLEN").arg("~").arg(DEAD).arg("*").arg(FIELD).arg(message);
            bury.cmd("XACK").arg(key(&self.queue)).arg(&self.group).arg(&entry.id);
            bury.query_async::<()>(connection).await?;
        }
        Ok(None)
    }

    /// How often a message was delivered.
    async fn times(
        &self,
        entry: &StreamId,
        connection: &mut MultiplexedConnection,
    ) -> Result<u32, RedisError> {
        let mut ask = cmd("XPENDING");
        ask.arg(key(&self.queue)).arg(&self.group).arg(&entry.id).arg(&entry.id).arg(1);
        let pending: StreamPendingCountReply = ask.query_async(connection).await?;
        Ok(pending.ids.first().map_or(1, |one| u32::try_from(one.times_delivered).unwrap_or(u32::MAX)))
    }
}

impl Consumer for RedisConsumer {
    fn next(&self) -> Answer<'_, QueueDelivery> {
        Box::pin(async move {
            let mut looking = self.looking.lock().await;
            loop {
                match self.look(&mut looking).await {
                    Ok(Some(taken)) => return Ok(taken),
                    Ok(None) => {}
                    Err(error) => {
                        looking.connection = None;
                        return Err(failed(error));
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
            claim.arg(key(&self.queue)).arg(&self.group).arg(&self.name).arg(0).arg(ids).arg("JUSTID");
            claim.query_async::<Value>(&mut self.redis.commands.clone()).await.map(drop).map_err(failed)
        })
    }

    fn acknowledge<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut acknowledge = cmd("XACK");
            acknowledge.arg(key(&self.queue)).arg(&self.group).arg(id);
            acknowledge.query_async::<()>(&mut self.redis.commands.clone()).await.map_err(failed)
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
