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
const MAX_TOKENS: u64 = 10_000;

/// A token whose signature and claims were verified.
#[derive(Debug)]
pub(super) struct VerifiedToken {
    pub(super) claims: Claims,
    /// The actor that the default claims describe.
    pub(super) actor: Option<Actor>,
    /// Its `exp`, in seconds since 1970.
    expires_at: f64,
    /// Until when its key is fresh; `None` where the key does not expire.
    key_fresh_until: Option<Instant>,
}

impl VerifiedToken {
    pub(super) fn new(claims: Claims, actor: Option<Actor>, key_fresh_until: Option<Instant>) -> Self {
        let expires_at = claims.get("exp").and_then(serde_json::Value::as_f64).unwrap_or_default();
        Self { claims, actor, expires_at, key_fresh_until }
    }

    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are exact in a double for long")]
    fn is_valid(&self, leeway: Duration) -> bool {
        Utc::now().timestamp() as f64 <= self.expires_at + leeway.as_secs() as f64
            && self.key_fresh_until.is_none_or(|until| Instant::now() <= until)
    }
}

/// Verified tokens by their digests.
#[derive(Clone)]
pub(super) struct TokenCache(Cache<blake3::Hash, Arc<VerifiedToken>>);

impl TokenCache {
    pub(super) fn new() -> Self {
        Self(Cache::new(MAX_TOKENS))
    }

    /// The cached token, where it is still valid.
    pub(super) fn find(&self, token: &blake3::Hash, leeway: Duration) -> Option<Arc<VerifiedToken>> {
        let found = self.0.get(token)?;
        if found.is_valid(leeway) {
            return Some(found);
        }
        self.0.invalidate(token);
        None
    }

    pub(super) fn insert(&self, token: blake3::Hash, verified: Arc<VerifiedToken>) {
        self.0.insert(token, verified);
    }
}

impl fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Remembered").field(&self.0.entry_count()).finish()
    }
}
