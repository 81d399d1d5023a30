//! The shared cache: responses that one node has computed, in a store from which the other nodes reuse them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use resourceful_contract::{Answer, CacheStore};
use serde::{Deserialize, Serialize};

use super::cached_response::Content;
use super::responses::Key;
use crate::resource::Freshness;
use crate::tables::events::Position;

/// Timeout of calls to the store: querying the database is faster than waiting for an unreachable store.
const LATE: Duration = Duration::from_millis(250);
/// For how long a store that failed is not called.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a claim holds if its node is killed meanwhile.
const CLAIM: Duration = Duration::from_secs(5);

/// The store that nodes share, and its health.
#[derive(Debug)]
pub(super) struct Shared {
    store: Arc<dyn CacheStore>,
    /// Key prefix that all nodes of an application have, and no other application.
    application: String,
    began: Instant,
    /// Until when the store is not called, in milliseconds since `began`.
    rests_until: AtomicU64,
    pub(super) failures: AtomicU64,
}

/// A response that another node has computed.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) content: Content,
    pub(super) stamp: Position,
    pub(super) age: Duration,
}

/// The metadata before the body.
#[derive(Serialize, Deserialize)]
struct Head {
    at: (i64, i64),
    /// When its computation began, in milliseconds since 1970.
    made: u64,
    /// `None` if there is no such item.
    headers: Option<Vec<(String, String)>>,
    tag: String,
}

/// A claim to compute a response for all nodes, until it is dropped.
#[derive(Debug)]
pub(super) struct Claimed {
    shared: Arc<Shared>,
    key: String,
}

impl Drop for Claimed {
    fn drop(&mut self) {
        let (shared, key) = (self.shared.clone(), std::mem::take(&mut self.key));
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { shared.asked(shared.store.release(&key)).await });
        }
    }
}

impl Shared {
    pub(super) fn new(store: Arc<dyn CacheStore>, application: String) -> Self {
        let (rests_until, failures) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { store, application, began: Instant::now(), rests_until, failures }
    }

    fn name(&self, key: &Key) -> String {
        format!("{}:{}", self.application, key.digest().to_hex())
    }

    /// Calls the store; `None` if it fails or times out, or did so a moment ago.
    async fn asked<T>(&self, question: Answer<'_, T>) -> Option<T> {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        if now < self.rests_until.load(Ordering::Relaxed) {
            return None;
        }
        let why = match tokio::time::timeout(LATE, question).await {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(error)) => error.to_string(),
            Err(late) => late.to_string(),
        };
        self.failures.fetch_add(1, Ordering::Relaxed);
        let until = now.saturating_add(u64::try_from(PAUSE.as_millis()).unwrap_or(u64::MAX));
        let rested_until = self.rests_until.swap(until, Ordering::Relaxed);
        if rested_until == 0 || rested_until + 10_000 < now {
            let store = self.store.name();
            tracing::warn!(why, store, "responses are not shared between nodes until the store is back");
        }
        None
    }

    pub(super) async fn find(&self, key: &Key) -> Option<Found> {
        let name = self.name(key);
        read(&self.asked(self.store.get(&name)).await??)
    }

    /// Stores a response for other nodes, if it can be encoded.
    pub(super) async fn keep(
        &self,
        key: &Key,
        content: &Content,
        stamp: Position,
        made: Instant,
        life: Freshness,
    ) {
        let age = made.elapsed();
        let left = life.total().saturating_sub(age);
        if let (Some(bytes), false) = (written(content, stamp, age), left.is_zero()) {
            let name = self.name(key);
            self.asked(self.store.put(&name, bytes, left)).await;
        }
    }

    /// Claims the computation of a response for all nodes: `Err` if another node holds the claim, `None` if the store
    /// does not answer.
    pub(super) async fn claim(self: &Arc<Self>, key: &Key) -> Option<Result<Claimed, ()>> {
        let name = self.name(key);
        let is_free = self.asked(self.store.claim(&name, CLAIM)).await?;
        Some(if is_free { Ok(Claimed { shared: self.clone(), key: name }) } else { Err(()) })
    }
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

fn written(content: &Content, stamp: Position, age: Duration) -> Option<Vec<u8>> {
    let made = now().saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
    let text = |value: &HeaderValue| value.to_str().ok().map(str::to_owned);
    let (headers, tag, body) = match content {
        Content::Found { headers, tag, body } => {
            let headers = headers.iter().map(|(name, value)| Some((name.as_str().to_owned(), text(value)?)));
            (Some(headers.collect::<Option<Vec<_>>>()?), text(tag)?, body.clone())
        }
        Content::Absent => (None, String::new(), Bytes::new()),
    };
    let head = Head { at: (stamp.batch, stamp.sequence), made, headers, tag };
    let head = serde_json::to_vec(&head).ok()?;
    let length = u32::try_from(head.len()).ok()?;
    Some([&length.to_le_bytes()[..], &head, &body].concat())
}

/// Decodes an entry; an unreadable one counts as absent.
fn read(bytes: &[u8]) -> Option<Found> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (head, body) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    let head: Head = serde_json::from_slice(head).ok()?;
    let content = match head.headers {
        None => Content::Absent,
        Some(named) => {
            let mut headers = HeaderMap::with_capacity(named.len());
            for (name, value) in named {
                headers.append(HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?);
            }
            let tag = HeaderValue::try_from(head.tag).ok()?;
            Content::Found { headers, tag, body: Bytes::copy_from_slice(body) }
        }
    };
    let (batch, sequence) = head.at;
    let age = Duration::from_millis(now().saturating_sub(head.made));
    Some(Found { content, stamp: Position { batch, sequence }, age })
}
