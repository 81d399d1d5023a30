//! A cached response: its content, the tag versions that it depends on, and its age.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::AGE;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::tags::TagSnapshot;
use crate::resource::Freshness;

/// Bytes counted for an entry beside its content: the entry itself, and its header maps.
const ENTRY_OVERHEAD: usize = 3_072;
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
    pub(super) fn size(&self) -> usize {
        let Self::Found { headers, body, .. } = self else { return 0 };
        let headers = headers.iter().map(|(name, value)| name.as_str().len() + value.len());
        body.len() + headers.sum::<usize>()
    }

    /// The same without the spare capacity of the buffer that its body was written to, for keeping.
    pub(super) fn compact(self) -> Self {
        match self {
            Self::Found { headers, tag: etag, body } => {
                Self::Found { headers: headers.clone(), tag: etag, body: Bytes::copy_from_slice(&body) }
            }
            Self::Absent => Self::Absent,
        }
    }
}

/// A cached response with its age and freshness lifetimes.
#[derive(Debug)]
pub(crate) struct CachedResponse {
    pub(crate) content: Content,
    pub(super) snapshot: TagSnapshot,
    pub(super) computed_at: Instant,
    pub(super) freshness: Freshness,
    /// The headers as they were last sent.
    sent_headers: Mutex<Option<Arc<SentHeaders>>>,
}

/// The response headers with age and remaining freshness: in whole seconds, so they are the same for one second.
#[derive(Debug)]
struct SentHeaders {
    age: u64,
    ttl: i64,
    headers: HeaderMap,
}

impl CachedResponse {
    pub(super) fn new(
        content: Content,
        snapshot: TagSnapshot,
        computed_at: Instant,
        freshness: Freshness,
    ) -> Arc<Self> {
        Arc::new(Self { content, snapshot, computed_at, freshness, sent_headers: Mutex::default() })
    }

    pub(super) fn age(&self) -> Duration {
        self.computed_at.elapsed()
    }

    /// The headers to send now, with the current age.
    pub(crate) fn headers(&self) -> HeaderMap {
        let (age, seconds) =
            (self.age(), |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX));
        // The remaining freshness lifetime; negative once the response is stale.
        let ttl = match self.freshness.fresh.checked_sub(age) {
            Some(remaining) => seconds(remaining),
            None => -seconds(age.saturating_sub(self.freshness.fresh)) - 1,
        };
        let age = age.as_secs();
        let sent_headers = {
            let mut sent_headers = self.sent_headers.lock().unwrap_or_else(PoisonError::into_inner);
            match &*sent_headers {
                Some(sent_headers) if sent_headers.age == age && sent_headers.ttl == ttl => {
                    sent_headers.clone()
                }
                _ => sent_headers.insert(Arc::new(self.headers_with_age(age, ttl))).clone(),
            }
        };
        sent_headers.headers.clone()
    }

    fn headers_with_age(&self, age: u64, ttl: i64) -> SentHeaders {
        let mut headers = match &self.content {
            Content::Found { headers, .. } => headers.clone(),
            Content::Absent => HeaderMap::new(),
        };
        headers.insert(AGE, age.into());
        if let Ok(status) = HeaderValue::try_from(format!("resourceful; hit; ttl={ttl}")) {
            headers.insert(CACHE_STATUS, status);
        }
        // A clone has no spare capacity.
        SentHeaders { age, ttl, headers: headers.clone() }
    }

    /// The memory that the entry takes, in bytes.
    pub(super) fn size(&self) -> usize {
        ENTRY_OVERHEAD + self.snapshot.size() + self.content.size()
    }
}
