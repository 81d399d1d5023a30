//! A remembered answer: what it says, what it was made of, and how old it is.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::AGE;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::tags::Seen;
use crate::resource::Freshness;

/// What is kept beside what an answer says: its own place, and those of its headers.
const BESIDE: usize = 3_072;
/// How an answer was come by (RFC 9211).
pub(crate) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// An answer as it is sent.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// With its `ETag`, which stands in the headers as well.
    Found { headers: HeaderMap, tag: HeaderValue, body: Bytes },
    /// There is no such item.
    Absent,
}

impl Content {
    /// What it says, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let Self::Found { headers, body, .. } = self else { return 0 };
        let headers = headers.iter().map(|(name, value)| name.as_str().len() + value.len());
        body.len() + headers.sum::<usize>()
    }

    /// The same without the room that its body was written with, to be kept.
    pub(super) fn compact(self) -> Self {
        match self {
            Self::Found { headers, tag, body } => {
                Self::Found { headers: headers.clone(), tag, body: Bytes::copy_from_slice(&body) }
            }
            Self::Absent => Self::Absent,
        }
    }
}

/// A remembered answer.
#[derive(Debug)]
pub(crate) struct CachedResponse {
    pub(crate) content: Content,
    pub(super) seen: Seen,
    pub(super) made: Instant,
    pub(super) life: Freshness,
    /// Its headers as they were last sent.
    sent: Mutex<Option<Arc<Sent>>>,
}

/// The headers of an answer that say how old it is and how long it is fresh: in whole seconds, so for one they are the same.
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

    /// Its headers as they are sent now, with its age.
    pub(crate) fn headers(&self) -> HeaderMap {
        let (age, seconds) =
            (self.age(), |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX));
        // For how long it is fresh; since when it is not, below zero.
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
        // A clone has no room to spare.
        Sent { age, ttl, headers: headers.clone() }
    }

    /// What it takes, in bytes.
    pub(super) fn bytes(&self) -> usize {
        BESIDE + self.seen.bytes() + self.content.bytes()
    }
}
