//! Public keys of an identity provider, from a JWK set or its URL (RFC 7517).

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::Uri;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{AlgorithmFamily, DecodingKey};
use serde::Deserialize;
use tokio::time::Instant;

use super::jwt::JwtAlgorithm;
use crate::http_client::{AddressPolicy, Client, Failure};

/// The maximum size of a key set, in bytes.
const MAX_KEY_SET_BYTES: usize = 256 * 1024;
/// The deadline for the provider's response.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// How long keys are used while the provider cannot be reached.
const STALE_IF_ERROR: Duration = Duration::from_secs(24 * 60 * 60);

/// A verification key, for one algorithm.
#[derive(Clone)]
pub(super) struct Key {
    pub(super) id: Option<String>,
    pub(super) algorithm: JwtAlgorithm,
    pub(super) key: DecodingKey,
}

impl Key {
    /// A public key from a JWK set. Its algorithm is the one that it names, or else the default one for its key type.
    ///
    /// # Errors
    /// Where it is not a public key for signatures.
    pub(super) fn from_jwk(jwk: &Jwk) -> Result<Self, String> {
        let id = jwk.common.key_id.clone();
        let name = id.as_deref().unwrap_or("without a kid").to_owned();
        let algorithm = match jwk.common.key_algorithm {
            Some(named) => named.to_string().parse().ok(),
            None => default_algorithm(&jwk.algorithm),
        };
        let algorithm: JwtAlgorithm =
            algorithm.ok_or(format!("the key {name} has no `alg` for signatures"))?;
        let key =
            DecodingKey::from_jwk(jwk).map_err(|error| format!("the key {name} cannot be read: {error}"))?;
        if algorithm.family() == AlgorithmFamily::Hmac || key.family() != algorithm.family() {
            return Err(format!("the key {name} is no public key for {algorithm:?}"));
        }
        Ok(Self { id, algorithm, key })
    }

    /// Whether a token's header may refer to this key.
    pub(super) fn matches(&self, algorithm: JwtAlgorithm, id: Option<&str>) -> bool {
        let same_id = |cached: &String| id.is_none_or(|named| named == cached);
        self.algorithm == algorithm && self.id.as_ref().is_none_or(same_id)
    }
}

/// The default algorithm for this key type, where the key names none.
fn default_algorithm(parameters: &AlgorithmParameters) -> Option<JwtAlgorithm> {
    match parameters {
        AlgorithmParameters::RSA(_) => Some(JwtAlgorithm::RS256),
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            Some(JwtAlgorithm::ES256)
        }
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P384 => {
            Some(JwtAlgorithm::ES384)
        }
        AlgorithmParameters::OctetKeyPair(_) => Some(JwtAlgorithm::EdDSA),
        _ => None,
    }
}

/// The keys of an identity provider, by the URL of its JWK set (RFC 7517): fetched when the first token arrives, cached,
/// and fetched again when they are stale or a token names a key that is not among them.
///
/// ```
/// use resourceful::prelude::*;
/// use resourceful::access::{Jwks, Jwt};
///
/// let keys = Jwks::at("https://login.example/.well-known/jwks.json").fresh(Duration::from_secs(600));
/// let tokens = Jwt::new().keys(keys).issuer("https://login.example").audience("shop");
/// # let _ = create_app(AppPreset::Testing).authenticator(tokens);
/// ```
///
/// A key without `alg` is used for RS256, ES256, ES384 or `EdDSA`, by its key type; secrets and encryption keys are
/// skipped. While the provider cannot be reached, the cached keys are used, for a day at most; without any, every token
/// is refused. A response has to arrive within 5 s, in at most 256 KiB, and from the URL itself: redirects are not
/// followed.
#[derive(Clone, Debug)]
pub struct Jwks {
    address: String,
    fresh: Duration,
    min_interval: Duration,
}

impl Jwks {
    /// The key set at a URL: `https`, or `http` on the local machine only.
    #[must_use]
    pub fn at(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            fresh: Duration::from_secs(300),
            min_interval: Duration::from_secs(30),
        }
    }

    /// How long keys are used without being fetched again; 5 minutes by default. Up to twice that age, they are still
    /// used while they are fetched in the background.
    #[must_use]
    pub const fn fresh(mut self, fresh: Duration) -> Self {
        self.fresh = fresh;
        self
    }

    /// The minimum interval between two fetches, whatever keys tokens name; 30 s by default.
    #[must_use]
    pub const fn at_most_every(mut self, interval: Duration) -> Self {
        self.min_interval = interval;
        self
    }

    /// # Errors
    /// Where the URL cannot be used.
    pub(super) fn into_source(self) -> Result<KeySource, String> {
        let address: Uri =
            self.address.parse().map_err(|error| format!("`{}` is no address: {error}", self.address))?;
        let is_local = matches!(address.host(), Some("localhost" | "127.0.0.1" | "[::1]"));
        if address.scheme_str() != Some("https") && !(address.scheme_str() == Some("http") && is_local) {
            return Err(format!("keys must be fetched over HTTPS, not from `{address}`"));
        }
        let client =
            Client::new(AddressPolicy::Any).map_err(|error| format!("TLS cannot be set up: {error}"))?;
        Ok(KeySource(Arc::new(KeySourceState {
            address,
            fresh: self.fresh,
            min_interval: self.min_interval,
            client,
            cached: Mutex::default(),
            fetch_lock: tokio::sync::Mutex::new(()),
        })))
    }
}

/// A key set that is fetched from its provider.
#[derive(Clone)]
pub(super) struct KeySource(Arc<KeySourceState>);

struct KeySourceState {
    address: Uri,
    fresh: Duration,
    min_interval: Duration,
    client: Client,
    cached: Mutex<CachedKeys>,
    /// Held during a fetch, so that only one runs at a time.
    fetch_lock: tokio::sync::Mutex<()>,
}

#[derive(Clone, Default)]
struct CachedKeys {
    keys: Arc<Vec<Key>>,
    /// When the keys were fetched.
    fetched_at: Option<Instant>,
    /// When the last fetch began.
    attempted_at: Option<Instant>,
}

impl KeySource {
    /// The keys that a token's header may refer to, and until when they are fresh.
    pub(super) async fn keys(&self, algorithm: JwtAlgorithm, id: Option<&str>) -> (Vec<Key>, Instant) {
        let fits = |cached: &CachedKeys| -> Vec<Key> {
            let is_usable = cached.fetched_at.is_some_and(|since| since.elapsed() <= STALE_IF_ERROR);
            let matching = cached.keys.iter().filter(|key| is_usable && key.matches(algorithm, id));
            matching.cloned().collect()
        };
        let until =
            |cached: &CachedKeys| cached.fetched_at.map_or_else(Instant::now, |since| since + self.0.fresh);
        let mut cached = self.cached();
        let found = fits(&cached);
        let age = cached.fetched_at.map(|since| since.elapsed());
        if let Some(age) = age.filter(|age| *age <= self.0.fresh * 2 && !found.is_empty()) {
            let is_recent = cached.attempted_at.is_some_and(|tried| tried.elapsed() < self.0.min_interval);
            if age > self.0.fresh && !is_recent {
                // Stale keys are used while they are fetched again.
                drop(self.refresh(cached.fetched_at));
            }
            return (found, until(&cached));
        }
        // In a task of its own: a dropped request does not cancel a fetch that others wait for.
        if self.refresh(cached.fetched_at).await.is_ok() {
            cached = self.cached();
        }
        (fits(&cached), until(&cached))
    }

    fn cached(&self) -> CachedKeys {
        self.0.cached.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Fetches the keys again, unless newer ones than the caller has seen are cached or the last fetch was too recent.
    fn refresh(&self, observed: Option<Instant>) -> tokio::task::JoinHandle<()> {
        let source = self.clone();
        tokio::spawn(async move {
            let _guard = source.0.fetch_lock.lock().await;
            {
                let mut cached = source.0.cached.lock().unwrap_or_else(PoisonError::into_inner);
                let is_too_soon =
                    cached.attempted_at.is_some_and(|tried| tried.elapsed() < source.0.min_interval);
                if cached.fetched_at != observed || is_too_soon {
                    return;
                }
                cached.attempted_at = Some(Instant::now());
            }
            match source.fetch().await {
                Ok(keys) => {
                    let mut cached = source.0.cached.lock().unwrap_or_else(PoisonError::into_inner);
                    cached.keys = Arc::new(keys);
                    cached.fetched_at = Some(Instant::now());
                }
                Err(error) => {
                    tracing::error!(address = %source.0.address, error = format!("{error:#}"), "the keys of tokens cannot be fetched");
                }
            }
        })
    }

    async fn fetch(&self) -> Result<Vec<Key>, Failure> {
        let body = self.0.client.get(self.0.address.clone(), MAX_KEY_SET_BYTES, FETCH_TIMEOUT).await?;
        // Keys are parsed one by one: a key of an unknown type is no reason to refuse the others.
        let set: RawKeySet = serde_json::from_slice(&body)?;
        let mut keys = Vec::new();
        for json in set.keys {
            match serde_json::from_value::<Jwk>(json).map_err(|error| error.to_string()) {
                Ok(jwk)
                    if jwk
                        .common
                        .public_key_use
                        .as_ref()
                        .is_some_and(|of| *of != PublicKeyUse::Signature) => {}
                Ok(jwk) => match Key::from_jwk(&jwk) {
                    Ok(key) => keys.push(key),
                    Err(fault) => {
                        tracing::warn!(address = %self.0.address, fault, "a key of the JWK set is ignored");
                    }
                },
                Err(fault) => {
                    tracing::warn!(address = %self.0.address, fault, "a key of the JWK set is ignored");
                }
            }
        }
        Ok(keys)
    }
}

/// A JWK set with keys that are not parsed yet.
#[derive(Deserialize)]
struct RawKeySet {
    keys: Vec<serde_json::Value>,
}

impl fmt::Debug for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Source").field(&self.0.address).finish()
    }
}
