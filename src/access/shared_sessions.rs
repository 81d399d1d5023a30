//! Sessions in a store that all nodes share.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use resourceful_contract::CacheStore;
use serde_json::json;

use super::check::CheckError;
use super::{Actor, Session, SessionDigest, SessionStore};

/// Sessions in a cache store that all nodes share, such as [`Redis::cache`](crate::adapter::Redis::cache).
///
/// A session is kept for 30 days at most, which [`keep`](Self::keep) changes; [`Sessions`](super::Sessions) ends it
/// earlier by its own timeouts. A store that evicts values for want of memory signs users out: give it enough memory, or
/// a server of its own.
///
/// ```
/// use resourceful::prelude::*;
/// use resourceful::access::{Sessions, SharedSessions};
/// use resourceful::adapter::MemoryCache;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// # let store = std::sync::Arc::new(MemoryCache::new());
/// // let store = Redis::connect("redis://127.0.0.1").await?.cache();
/// let sessions = Sessions::new("0123456789abcdef0123456789abcdef", SharedSessions::new(store));
/// assert!(sessions.start(Actor::user("ada")).await?.to_str()?.starts_with("__Host-session="));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct SharedSessions {
    store: Arc<dyn CacheStore>,
    retention: Duration,
}

impl SharedSessions {
    /// Sessions in this store.
    #[must_use]
    pub fn new(store: Arc<dyn CacheStore>) -> Self {
        Self { store, retention: Duration::from_secs(30 * 24 * 60 * 60) }
    }

    /// The maximum time for which the store keeps a session.
    #[must_use]
    pub const fn keep(mut self, time: Duration) -> Self {
        self.retention = time;
        self
    }

    async fn read(&self, digest: &SessionDigest) -> Result<Option<Session>, CheckError> {
        let Some(value) = self.store.get(&key("session", digest)).await? else { return Ok(None) };
        let mut value: serde_json::Value = serde_json::from_slice(&value)?;
        // An ended session is null until its key expires.
        if value.is_null() {
            return Ok(None);
        }
        let actor = Actor::from_json(value["actor"].take())?;
        let created_at = serde_json::from_value(value["created_at"].take())?;
        let seen_at = match self.store.get(&key("session-seen", digest)).await? {
            Some(seen_at) => serde_json::from_slice(&seen_at)?,
            None => created_at,
        };
        Ok(Some(Session { actor, created_at, seen_at }))
    }
}

/// The key of a session's value in the store. The time of last use has a key of its own: written together with the
/// session, it could restore a session that has ended in the meantime.
fn key(kind: &str, digest: &SessionDigest) -> String {
    digest.iter().fold(format!("{kind}:"), |mut key, byte| {
        // Writing to a String cannot fail.
        let _ = write!(key, "{byte:02x}");
        key
    })
}

impl SessionStore for SharedSessions {
    fn insert<'a>(
        &'a self,
        digest: SessionDigest,
        session: Session,
    ) -> BoxFuture<'a, Result<(), CheckError>> {
        Box::pin(async move {
            let Session { actor, created_at, seen_at } = session;
            self.seen(&digest, seen_at).await?;
            let value = json!({"actor": actor.to_json(), "created_at": created_at}).to_string();
            Ok(self.store.put(&key("session", &digest), value.into_bytes(), self.retention).await?)
        })
    }

    fn find<'a>(&'a self, digest: &'a SessionDigest) -> BoxFuture<'a, Result<Option<Session>, CheckError>> {
        Box::pin(self.read(digest))
    }

    fn seen<'a>(
        &'a self,
        digest: &'a SessionDigest,
        at: DateTime<Utc>,
    ) -> BoxFuture<'a, Result<(), CheckError>> {
        Box::pin(async move {
            let at = serde_json::to_vec(&at)?;
            Ok(self.store.put(&key("session-seen", digest), at, self.retention).await?)
        })
    }

    fn remove<'a>(&'a self, digest: &'a SessionDigest) -> BoxFuture<'a, Result<(), CheckError>> {
        Box::pin(async move {
            Ok(self.store.put(&key("session", digest), b"null".to_vec(), self.retention).await?)
        })
    }

    fn purge<'a>(&'a self, _: DateTime<Utc>, _: DateTime<Utc>) -> BoxFuture<'a, Result<(), CheckError>> {
        // Keys expire by themselves.
        Box::pin(async { Ok(()) })
    }
}
