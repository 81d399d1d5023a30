//! Redis (7 or newer) adapters of `resourceful`: bus, queues and cache store.

mod bus;
mod cache;
mod queue;

use std::fmt;
use std::sync::Arc;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, RedisError};
use resourceful_contract::{Bus, CacheStore, ErrorKind, StorageError};

/// A connection to a Redis server. Clones share it.
#[derive(Clone)]
pub struct Redis {
    client: Client,
    /// For commands that do not block; it reconnects by itself after a restart of the server.
    commands: ConnectionManager,
}

/// Boxed here, so that the crate of the application does not compile the driver's futures again.
#[inline(never)]
fn connect_boxed(url: String) -> resourceful_contract::Answer<'static, Redis> {
    Box::pin(Redis::open(url))
}

impl Redis {
    /// Connects to a server: `redis://host:port/database`, or `rediss://` with TLS.
    ///
    /// # Errors
    /// If the URL cannot be parsed or the server does not respond.
    pub async fn connect(url: &str) -> Result<Self, StorageError> {
        connect_boxed(url.to_owned()).await
    }

    async fn open(url: String) -> Result<Self, StorageError> {
        let client = Client::open(url).map_err(storage_error)?;
        let config = ConnectionManagerConfig::new();
        let commands =
            ConnectionManager::new_with_config(client.clone(), config).await.map_err(storage_error)?;
        Ok(Self { client, commands })
    }

    /// A bus over streams of this server.
    #[must_use]
    pub fn bus(&self) -> Arc<dyn Bus> {
        Arc::new(bus::RedisBus(self.clone()))
    }

    /// A cache store that all nodes share. It contains responses to callers: protect this server like the database.
    #[must_use]
    pub fn cache(&self) -> Arc<dyn CacheStore> {
        Arc::new(cache::RedisCache(self.clone()))
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").finish_non_exhaustive()
    }
}

fn storage_error(error: RedisError) -> StorageError {
    let is_unavailable = error.is_io_error() || error.is_connection_dropped() || error.is_timeout();
    let kind = if is_unavailable { ErrorKind::Unavailable } else { ErrorKind::Internal };
    StorageError::new(kind).with_context("below", "redis").with_source(error)
}
