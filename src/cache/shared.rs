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
const STORE_TIMEOUT: Duration = Duration::from_millis(250);
/// For how long a store that failed is not called.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// How long a claim holds if its node is killed meanwhile.
const CLAIM_TTL: Duration = Duration::from_secs(5);

/// The store that nodes share, and its health.
#[derive(Debug)]
pub(super) struct SharedStore {
    store: Arc<dyn CacheStore>,
    /// Key prefix that all nodes of an application have, and no other application.
    application: String,
    started: Instant,
    /// Until when the store is not called, in milliseconds since `began`.
    paused_until: AtomicU64,
    pub(super) failures: AtomicU64,
}

/// A response that another node has computed.
#[derive(Debug)]
pub(super) struct SharedResponse {
    pub(super) content: Content,
    pub(super) stamp: Position,
    pub(super) age: Duration,
}

/// The metadata before the body.
#[derive(Serialize, Deserialize)]
struct EntryHeader {
    at: (i64, i64),
    /// When its computation began, in milliseconds since 1970.
    made: u64,
    /// `None` if there is no such item.
    headers: Option<Vec<(String, String)>>,
    tag: String,
}

/// A claim to compute a response for all nodes, until it is dropped.
#[derive(Debug)]
pub(super) struct ClaimGuard {
    shared: Arc<SharedStore>,
    key: String,
}

impl Drop for ClaimGuard {
    fn drop(&mut self) {
        let (shared, key) = (self.shared.clone(), std::mem::take(&mut self.key));
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { shared.call(shared.store.release(&key)).await });
        }
    }
}

impl SharedStore {
    pub(super) fn new(store: Arc<dyn CacheStore>, application: String) -> Self {
        let (paused_until, failures) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { store, application, started: Instant::now(), paused_until, failures }
    }

    fn store_key(&self, key: &Key) -> String {
        format!("{}:{}", self.application, key.digest().to_hex())
    }

    /// Calls the store; `None` if it fails or times out, or did so a moment ago.
    async fn call<T>(&self, future: Answer<'_, T>) -> Option<T> {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        if now < self.paused_until.load(Ordering::Relaxed) {
            return None;
        }
        let reason = match tokio::time::timeout(STORE_TIMEOUT, future).await {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(error)) => error.to_string(),
            Err(elapsed) => elapsed.to_string(),
        };
        self.failures.fetch_add(1, Ordering::Relaxed);
        let until = now.saturating_add(u64::try_from(RETRY_DELAY.as_millis()).unwrap_or(u64::MAX));
        let previous_pause = self.paused_until.swap(until, Ordering::Relaxed);
        if previous_pause == 0 || previous_pause + 10_000 < now {
            let store = self.store.name();
            tracing::warn!(reason, store, "responses are not shared between nodes until the store is back");
        }
        None
    }

    pub(super) async fn find(&self, key: &Key) -> Option<SharedResponse> {
        let name = self.store_key(key);
        decode(&self.call(self.store.get(&name)).await??)
    }

    /// Stores a response for other nodes, if it can be encoded.
    pub(super) async fn put(
        &self,
        key: &Key,
        content: &Content,
        stamp: Position,
        made: Instant,
        freshness: Freshness,
    ) {
        let age = made.elapsed();
        let ttl = freshness.total().saturating_sub(age);
        if let (Some(bytes), false) = (encode(content, stamp, age), ttl.is_zero()) {
            let name = self.store_key(key);
            self.call(self.store.put(&name, bytes, ttl)).await;
        }
    }

    /// Claims the computation of a response for all nodes: `Err` if another node holds the claim, `None` if the store
    /// does not answer.
    pub(super) async fn claim(self: &Arc<Self>, key: &Key) -> Option<Result<ClaimGuard, ()>> {
        let name = self.store_key(key);
        let is_acquired = self.call(self.store.claim(&name, CLAIM_TTL)).await?;
        Some(if is_acquired { Ok(ClaimGuard { shared: self.clone(), key: name }) } else { Err(()) })
    }
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

fn encode(content: &Content, stamp: Position, age: Duration) -> Option<Vec<u8>> {
    let made = now().saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
    let text = |value: &HeaderValue| value.to_str().ok().map(str::to_owned);
    let (headers, tag, body) = match content {
        Content::Found { headers, tag, body } => {
            let headers = headers.iter().map(|(name, value)| Some((name.as_str().to_owned(), text(value)?)));
            (Some(headers.collect::<Option<Vec<_>>>()?), text(tag)?, body.clone())
        }
        Content::Absent => (None, String::new(), Bytes::new()),
    };
    let head = EntryHeader { at: (stamp.batch, stamp.sequence), made, headers, tag };
    let head = serde_json::to_vec(&head).ok()?;
    let length = u32::try_from(head.len()).ok()?;
    Some([&length.to_le_bytes()[..], &head, &body].concat())
}

/// Decodes an entry; an unreadable one counts as absent.
fn decode(bytes: &[u8]) -> Option<SharedResponse> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (head, body) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    let head: EntryHeader = serde_json::from_slice(head).ok()?;
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
    Some(SharedResponse { content, stamp: Position { batch, sequence }, age })
}
