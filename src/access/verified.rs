//! A cache of verified tokens, for as long as they would be verified again.
//!
//! A valid signature stays valid as long as its key does, and costs more to verify than most requests. What may change is
//! checked each time: whether the token has expired, whether its key is still fresh, whether it was revoked.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use moka::sync::Cache;
use tokio::time::Instant;

use super::Actor;
use super::jwt::Claims;

/// The maximum number of cached tokens.
const MOST: u64 = 10_000;

/// A token whose signature and claims were verified.
#[derive(Debug)]
pub(super) struct Verified {
    pub(super) claims: Claims,
    /// The actor that the default claims describe.
    pub(super) actor: Option<Actor>,
    /// Its `exp`, in seconds since 1970.
    ends: f64,
    /// Until when its key is fresh; `None` where the key does not expire.
    key_until: Option<Instant>,
}

impl Verified {
    pub(super) fn new(claims: Claims, actor: Option<Actor>, key_until: Option<Instant>) -> Self {
        let ends = claims.get("exp").and_then(serde_json::Value::as_f64).unwrap_or_default();
        Self { claims, actor, ends, key_until }
    }

    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are exact in a double for long")]
    fn still_holds(&self, leeway: Duration) -> bool {
        Utc::now().timestamp() as f64 <= self.ends + leeway.as_secs() as f64
            && self.key_until.is_none_or(|until| Instant::now() <= until)
    }
}

/// Verified tokens by their digests.
#[derive(Clone)]
pub(super) struct Remembered(Cache<blake3::Hash, Arc<Verified>>);

impl Remembered {
    pub(super) fn new() -> Self {
        Self(Cache::new(MOST))
    }

    /// The cached token, where it is still valid.
    pub(super) fn find(&self, token: &blake3::Hash, leeway: Duration) -> Option<Arc<Verified>> {
        let found = self.0.get(token)?;
        if found.still_holds(leeway) {
            return Some(found);
        }
        self.0.invalidate(token);
        None
    }

    pub(super) fn insert(&self, token: blake3::Hash, verified: Arc<Verified>) {
        self.0.insert(token, verified);
    }
}

impl fmt::Debug for Remembered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Remembered").field(&self.0.entry_count()).finish()
    }
}
