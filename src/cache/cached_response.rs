//! A cached response: its content, the tag versions that it depends on, and its age.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::AGE;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::tags::Seen;
use crate::resource::Freshness;

/// Bytes counted for an entry beside its content: the entry itself, and its header maps.
const BESIDE: usize = 3_072;
/// The header that says how a cache handled the request (RFC 9211).
pub(crate) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// The content of a response, as it is sent.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// With its `ETag`, which is among the headers as well.
    Found { headers: HeaderMap, tag: HeaderValue, body: Bytes },
    /// There is no such item.
    Absent,
}

impl Content {
    /// The size of headers and body, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let Self::Found { headers, body, .. } = self else { return 0 };
        let headers = headers.iter().map(|(name, value)| name.as_str().len() + value.len());
        body.len() + headers.sum::<usize>()
    }

    /// The same without the spare capacity of the buffer that its body was written to, for keeping.
    pub(super) fn compact(self) -> Self {
        match self {
            Self::Found { headers, tag, body } => {
                Self::Found { headers: headers.clone(), tag, body: Bytes::copy_from_slice(&body) }
            }
            Self::Absent => Self::Absent,
        }
    }
}

/// A cached response with its age and freshness lifetimes.
#[derive(Debug)]
pub(crate) struct CachedResponse {
    pub(crate) content: Content,
    pub(super) seen: Seen,
    pub(super) made: Instant,
    pub(super) life: Freshness,
    /// The headers as they were last sent.
    sent: Mutex<Option<Arc<Sent>>>,
}

/// The response headers with age and remaining freshness: in whole seconds, so they are the same for one second.
#[derive(Debug)]
struct Sent {
    age: u64,
    ttl: i64,
    headers: HeaderMap,
}

impl CachedResponse {
    pub(super) fn new(content: Content, seen: Seen, made: Instant, life: Freshness) -> Arc<Self> {
        Arc::new(Self { content, seen, made, life, sent: Mutex::default() })
    }

    pub(super) fn age(&self) -> Duration {
        self.made.elapsed()
    }

    /// The headers to send now, with the current age.
    pub(crate) fn headers(&self) -> HeaderMap {
        let (age, seconds) =
            (self.age(), |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX));
        // The remaining freshness lifetime; negative once the response is stale.
        let ttl = match self.life.fresh.checked_sub(age) {
            Some(left) => seconds(left),
            None => -seconds(age.saturating_sub(self.life.fresh)) - 1,
        };
        let age = age.as_secs();
        let sent = {
            let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
            match &*sent {
                Some(sent) if sent.age == age && sent.ttl == ttl => sent.clone(),
                _ => sent.insert(Arc::new(self.sent(age, ttl))).clone(),
            }
        };
        sent.headers.clone()
    }

    fn sent(&self, age: u64, ttl: i64) -> Sent {
        let mut headers = match &self.content {
            Content::Found { headers, .. } => headers.clone(),
            Content::Absent => HeaderMap::new(),
        };
        headers.insert(AGE, age.into());
        if let Ok(status) = HeaderValue::try_from(format!("resourceful; hit; ttl={ttl}")) {
            headers.insert(CACHE_STATUS, status);
        }
        // A clone has no spare capacity.
        Sent { age, ttl, headers: headers.clone() }
    }

    /// The memory that the entry takes, in bytes.
    pub(super) fn bytes(&self) -> usize {
        BESIDE + self.seen.bytes() + self.content.bytes()
    }
}
