//! API keys: credentials for programs, stored as digests.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use futures::future::BoxFuture;
use http::HeaderName;
use http::header::AUTHORIZATION;
use http::request::Parts;
use subtle::ConstantTimeEq as _;

use super::authenticator::bearer;
use super::check::CheckError;
use super::{Actor, Authenticator, SecurityScheme, Unauthenticated};

const HEADER: HeaderName = HeaderName::from_static("x-api-key");
/// The minimum interval between two updates of a key's `last_used_at`.
const LAST_USED_INTERVAL: TimeDelta = TimeDelta::minutes(1);

/// A stored API key: everything but the key itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ApiKey {
    /// The first part of the key, by which the record is looked up; it reveals nothing about the rest.
    pub prefix: String,
    /// The digest of the whole key (BLAKE3). The key has 256 random bits, so no slow digest is needed.
    pub digest: [u8; 32],
    /// The actor that the key authenticates.
    pub actor: Actor,
    /// The time from which the key is refused; `None` never expires.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was last used, to the minute.
    pub last_used_at: Option<DateTime<Utc>>,
}

impl ApiKey {
    /// Mints a key for an actor, such as `Actor::service("exporter").with_scope("orders:read")`: returns the text to hand
    /// out, once, and the record to store.
    ///
    /// ```
    /// use resourceful::Actor;
    /// use resourceful::access::ApiKey;
    ///
    /// let (text, record) = ApiKey::mint("shop", Actor::service("exporter").with_scope("orders:read"));
    /// assert!(text.starts_with(&record.prefix));
    /// ```
    ///
    /// `label` begins the key, so that people and scanners for leaked keys recognize it; only its letters and digits are
    /// used.
    #[must_use]
    pub fn mint(label: &str, actor: Actor) -> (String, Self) {
        let label: String = label.chars().filter(char::is_ascii_alphanumeric).take(16).collect();
        let random = |count: usize| {
            let uuids = std::iter::repeat_with(uuid::Uuid::new_v4).take(count);
            // A UUID of version 4 has 122 random bits; their digest has no fixed ones.
            let bytes: Vec<u8> = uuids.flat_map(uuid::Uuid::into_bytes).collect();
            *blake3::hash(&bytes).as_bytes()
        };
        let name: String = random(1).iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        let prefix = format!("{label}_{name}");
        let text = format!("{prefix}_{}", URL_SAFE_NO_PAD.encode(random(4)));
        let digest = *blake3::hash(text.as_bytes()).as_bytes();
        (text, Self { prefix, digest, actor, expires_at: None, last_used_at: None })
    }

    /// The same key, with an expiry: it is refused from this time on.
    #[must_use]
    pub const fn expires_at(mut self, time: DateTime<Utc>) -> Self {
        self.expires_at = Some(time);
        self
    }
}

/// A store for API keys.
pub trait ApiKeyStore: fmt::Debug + Send + Sync + 'static {
    /// The record of the key with this prefix.
    ///
    /// # Errors
    /// Where the lookup fails; the credential is then refused.
    fn find<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Option<ApiKey>, CheckError>>;

    /// Records that a key was used; called at most once a minute for each key. A failure is logged and does not fail the
    /// request.
    ///
    /// # Errors
    /// Where the use cannot be recorded.
    fn used<'a>(&'a self, prefix: &'a str, at: DateTime<Utc>) -> BoxFuture<'a, Result<(), CheckError>>;
}

/// In-memory API keys: for tests, and for keys from a configuration.
#[derive(Clone, Debug, Default)]
pub struct MemoryApiKeys {
    keys: Arc<Mutex<HashMap<String, ApiKey>>>,
}

impl MemoryApiKeys {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Stores a key, replacing any key with the same prefix.
    pub fn insert(&self, key: ApiKey) {
        self.lock().insert(key.prefix.clone(), key);
    }

    /// Removes a key: it is refused from now on.
    pub fn remove(&self, prefix: &str) {
        self.lock().remove(prefix);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, ApiKey>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ApiKeyStore for MemoryApiKeys {
    fn find<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Option<ApiKey>, CheckError>> {
        let found = self.lock().get(prefix).cloned();
        Box::pin(std::future::ready(Ok(found)))
    }

    fn used<'a>(&'a self, prefix: &'a str, at: DateTime<Utc>) -> BoxFuture<'a, Result<(), CheckError>> {
        if let Some(key) = self.lock().get_mut(prefix) {
            key.last_used_at = Some(at);
        }
        Box::pin(std::future::ready(Ok(())))
    }
}

/// API keys as credentials, in `x-api-key` or as a bearer token.
///
/// ```
/// use resourceful::prelude::*;
/// use resourceful::access::{ApiKey, ApiKeys, MemoryApiKeys};
///
/// let (text, record) = ApiKey::mint("shop", Actor::service("exporter"));
/// let store = MemoryApiKeys::new();
/// store.insert(record);
/// let app = create_app(AppPreset::Testing).authenticator(ApiKeys::new(store));
/// # let _ = (text, app);
/// ```
#[derive(Clone, Debug)]
pub struct ApiKeys {
    store: Arc<dyn ApiKeyStore>,
}

impl ApiKeys {
    /// An authenticator for the keys of a store.
    #[must_use]
    pub fn new(store: impl ApiKeyStore) -> Self {
        Self { store: Arc::new(store) }
    }

    /// The actor of a key; `None` where the text does not have the form of an API key.
    async fn verify(&self, text: &[u8]) -> Result<Option<Actor>, Unauthenticated> {
        let Some((text, prefix)) = parse(text) else {
            return Ok(None);
        };
        let found = self.store.find(prefix).await.map_err(|error| {
            tracing::error!(error = format!("{error:#}"), "API keys cannot be looked up: they are refused");
            Unauthenticated
        })?;
        let digest = blake3::hash(text.as_bytes());
        // A digest is compared even where no key is found, so that timing does not reveal which prefixes exist.
        let absent = [0; 32];
        let expected = found.as_ref().map_or(&absent, |key| &key.digest);
        let is_match = bool::from(expected.ct_eq(digest.as_bytes()));
        let now = Utc::now();
        let key = found.filter(|_| is_match).ok_or(Unauthenticated)?;
        if key.expires_at.is_some_and(|end| end <= now) {
            return Err(Unauthenticated);
        }
        if key.last_used_at.is_none_or(|last| now - last >= LAST_USED_INTERVAL)
            && let Err(error) = self.store.used(prefix, now).await
        {
            tracing::warn!(error = format!("{error:#}"), "the last use of an API key could not be recorded");
        }
        Ok(Some(key.actor))
    }
}

/// Parses `label_0123456789ab_…`: the whole key, and the prefix that finds the record.
fn parse(text: &[u8]) -> Option<(&str, &str)> {
    let text = std::str::from_utf8(text).ok().filter(|text| text.len() <= 128)?;
    let mut parts = text.splitn(3, '_');
    let (label, name, secret) = (parts.next()?, parts.next()?, parts.next()?);
    let is_prefix = label.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && name.len() == 12
        && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_prefix && secret.len() == 43).then(|| (text, &text[..label.len() + 1 + name.len()]))
}

impl Authenticator for ApiKeys {
    fn scheme(&self) -> &'static str {
        "Bearer"
    }

    fn headers(&self) -> Vec<HeaderName> {
        vec![AUTHORIZATION, HEADER]
    }

    fn security_schemes(&self) -> Vec<SecurityScheme> {
        vec![SecurityScheme::header("ApiKey", HEADER), SecurityScheme::bearer("")]
    }

    fn authenticate<'a>(
        &'a self,
        request: &'a Parts,
    ) -> BoxFuture<'a, Result<Option<Actor>, Unauthenticated>> {
        Box::pin(async move {
            let headers = &request.headers;
            let mut api_keys = headers.get_all(HEADER).iter();
            match (api_keys.next(), api_keys.next(), bearer(headers)?) {
                (None, _, None) => Ok(None),
                (None, _, Some(token)) => self.verify(token).await,
                // This header carries API keys only: its value is a valid key or an invalid credential.
                (Some(key), None, None) => {
                    self.verify(key.as_bytes()).await?.map(Some).ok_or(Unauthenticated)
                }
                _ => Err(Unauthenticated),
            }
        })
    }
}
