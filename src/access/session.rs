//! Browser sessions, identified by an encrypted cookie.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aes_gcm_siv::aead::{Aead as _, KeyInit as _};
use aes_gcm_siv::{Aes256GcmSiv, Key, Nonce};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use http::header::{COOKIE, ORIGIN};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::check::CheckError;
use super::origin::is_own_origin;
use super::{Actor, Authenticator, Revalidation, SecurityScheme, Unauthenticated};

/// The cookie's name: with this prefix a browser accepts it from this host alone, over TLS (RFC 6265bis, 4.1.3.2).
const COOKIE_NAME: &str = "__Host-session";
/// The minimum length of a secret, in bytes.
const MIN_SECRET_BYTES: usize = 32;
const NONCE_BYTES: usize = 12;

/// A stored session: its key is a digest of its id, which the store does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Session {
    /// The authenticated actor.
    pub actor: Actor,
    /// When the session began.
    pub created_at: DateTime<Utc>,
    /// When the session was last used.
    pub seen_at: DateTime<Utc>,
}

/// The digest of a session's id, which is its key in the store.
pub type SessionDigest = [u8; 32];

/// A store for sessions.
pub trait SessionStore: fmt::Debug + Send + Sync + 'static {
    /// Stores a session.
    ///
    /// # Errors
    /// Where it cannot be stored.
    fn insert<'a>(&'a self, digest: SessionDigest, session: Session)
    -> BoxFuture<'a, Result<(), CheckError>>;

    /// The session with this digest.
    ///
    /// # Errors
    /// Where the lookup fails; the credential is then refused.
    fn find<'a>(&'a self, digest: &'a SessionDigest) -> BoxFuture<'a, Result<Option<Session>, CheckError>>;

    /// Records that a session was used; a failure refuses the credential, since an idle session would otherwise never
    /// end.
    ///
    /// # Errors
    /// Where the use cannot be recorded.
    fn seen<'a>(
        &'a self,
        digest: &'a SessionDigest,
        at: DateTime<Utc>,
    ) -> BoxFuture<'a, Result<(), CheckError>>;

    /// Removes a session.
    ///
    /// # Errors
    /// Where it may still be stored.
    fn remove<'a>(&'a self, digest: &'a SessionDigest) -> BoxFuture<'a, Result<(), CheckError>>;

    /// Removes every session that began before one time or was last used before another.
    ///
    /// # Errors
    /// Where some may still be stored.
    fn purge<'a>(
        &'a self,
        created_before: DateTime<Utc>,
        seen_before: DateTime<Utc>,
    ) -> BoxFuture<'a, Result<(), CheckError>>;
}

/// In-memory sessions: they end with the process, and other nodes do not know them.
#[derive(Clone, Debug, Default)]
pub struct MemorySessions {
    sessions: Arc<Mutex<HashMap<SessionDigest, Session>>>,
}

impl MemorySessions {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn with<T>(&self, work: impl FnOnce(&mut HashMap<SessionDigest, Session>) -> T) -> Ready<T> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        Box::pin(std::future::ready(Ok(work(&mut sessions))))
    }
}

type Ready<T> = std::pin::Pin<Box<std::future::Ready<Result<T, CheckError>>>>;

impl SessionStore for MemorySessions {
    fn insert<'a>(
        &'a self,
        digest: SessionDigest,
        session: Session,
    ) -> BoxFuture<'a, Result<(), CheckError>> {
        self.with(|sessions| drop(sessions.insert(digest, session)))
    }

    fn find<'a>(&'a self, digest: &'a SessionDigest) -> BoxFuture<'a, Result<Option<Session>, CheckError>> {
        self.with(|sessions| sessions.get(digest).cloned())
    }

    fn seen<'a>(
        &'a self,
        digest: &'a SessionDigest,
        at: DateTime<Utc>,
    ) -> BoxFuture<'a, Result<(), CheckError>> {
        self.with(|sessions| {
            if let Some(session) = sessions.get_mut(digest) {
                session.seen_at = at;
            }
        })
    }

    fn remove<'a>(&'a self, digest: &'a SessionDigest) -> BoxFuture<'a, Result<(), CheckError>> {
        self.with(|sessions| drop(sessions.remove(digest)))
    }

    fn purge<'a>(
        &'a self,
        created_before: DateTime<Utc>,
        seen_before: DateTime<Utc>,
    ) -> BoxFuture<'a, Result<(), CheckError>> {
        self.with(|sessions| {
            sessions
                .retain(|_, session| session.created_at >= created_before && session.seen_at >= seen_before);
        })
    }
}

/// Browser sessions: a cookie that only this application can create or read identifies a stored session.
///
/// A login handler of the application calls [`start`](Self::start) and sends its `Set-Cookie`. A request that may change
/// something is only accepted from a page of the same origin (`Sec-Fetch-Site`, or an `Origin` that is that of
/// [`server`](crate::AppBuilder::server) or names the request's `Host`); a request with neither header is refused. A
/// session ends after its idle timeout, and after its absolute timeout in any case.
///
/// ```
/// use resourceful::prelude::*;
/// use resourceful::access::{MemorySessions, Sessions};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// # let secret = "0123456789abcdef0123456789abcdef";
/// let sessions = Sessions::new(secret, MemorySessions::new()).idle(Duration::from_secs(900));
/// let set_cookie = sessions.start(Actor::user("ada").with_role("editor")).await?;
/// assert!(set_cookie.to_str()?.contains("HttpOnly"));
/// let app = create_app(AppPreset::Testing).authenticator(sessions.clone());
/// # let _ = app; Ok(()) }
/// ```
#[derive(Clone)]
pub struct Sessions {
    cipher: Aes256GcmSiv,
    store: Arc<dyn SessionStore>,
    idle: Duration,
    absolute: Duration,
    secret_bytes: usize,
}

impl Sessions {
    /// Sessions in a store, with a secret of at least 32 bytes that is the same on every node.
    #[must_use]
    pub fn new(secret: impl AsRef<[u8]>, store: impl SessionStore) -> Self {
        let secret = secret.as_ref();
        let key = blake3::derive_key("resourceful 2026-11 session cookies", secret);
        Self {
            cipher: Aes256GcmSiv::new(&Key::<Aes256GcmSiv>::from(key)),
            store: Arc::new(store),
            idle: Duration::from_secs(30 * 60),
            absolute: Duration::from_secs(12 * 60 * 60),
            secret_bytes: secret.len(),
        }
    }

    /// The idle timeout: how long a session may be unused; 30 minutes by default.
    #[must_use]
    pub const fn idle(mut self, time: Duration) -> Self {
        self.idle = time;
        self
    }

    /// The absolute timeout: how long a session may last, however it is used; 12 hours by default.
    #[must_use]
    pub const fn absolute(mut self, time: Duration) -> Self {
        self.absolute = time;
        self
    }

    /// Starts a session; returns the `Set-Cookie` that identifies it.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn start(&self, actor: Actor) -> Result<HeaderValue, CheckError> {
        let now = Utc::now();
        // Every new session purges expired ones, so that they do not accumulate.
        self.store.purge(now - self.absolute, now - self.idle).await?;
        self.issue(Session { actor, created_at: now, seen_at: now }).await
    }

    /// Gives a session a new id and removes the old one: for a change of rights. The absolute timeout is not extended.
    ///
    /// # Errors
    /// Where there is no session, or the store fails.
    pub async fn rotate(&self, headers: &HeaderMap) -> Result<HeaderValue, CheckError> {
        let (digest, session) = self.current(headers, true).await?.ok_or("there is no session to rotate")?;
        let cookie = self.issue(session).await?;
        self.store.remove(&digest).await?;
        Ok(cookie)
    }

    /// Ends a session; returns the `Set-Cookie` that deletes the cookie.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn end(&self, headers: &HeaderMap) -> Result<HeaderValue, CheckError> {
        if let Ok(Some(id)) = self.id(headers) {
            self.store.remove(&digest(&id)).await?;
        }
        Ok(HeaderValue::from_static("__Host-session=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0"))
    }

    async fn issue(&self, session: Session) -> Result<HeaderValue, CheckError> {
        let (one, other) = (uuid::Uuid::new_v4(), uuid::Uuid::new_v4());
        let id = [one.into_bytes(), other.into_bytes()].concat();
        self.store.insert(digest(&id), session).await?;
        let seconds = self.absolute.as_secs();
        let cookie = self.seal(&id)?;
        let text =
            format!("{COOKIE_NAME}={cookie}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age={seconds}");
        Ok(HeaderValue::from_str(&text)?)
    }

    fn seal(&self, id: &[u8]) -> Result<String, CheckError> {
        let random = uuid::Uuid::new_v4().into_bytes();
        let mut nonce = [0; NONCE_BYTES];
        nonce.copy_from_slice(&random[..NONCE_BYTES]);
        let sealed =
            self.cipher.encrypt(&Nonce::from(nonce), id).map_err(|_| "a session id cannot be sealed")?;
        Ok(URL_SAFE_NO_PAD.encode([nonce.as_slice(), &sealed].concat()))
    }

    fn open(&self, cookie: &str) -> Option<Vec<u8>> {
        let bytes = URL_SAFE_NO_PAD.decode(cookie).ok()?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE_BYTES)?;
        let nonce: [u8; NONCE_BYTES] = nonce.try_into().ok()?;
        self.cipher.decrypt(&Nonce::from(nonce), sealed).ok()
    }

    /// The session id in the cookies.
    fn id(&self, headers: &HeaderMap) -> Result<Option<Vec<u8>>, Unauthenticated> {
        let mut found = None;
        for line in headers.get_all(COOKIE) {
            let Ok(line) = line.to_str() else { continue };
            for pair in line.split(';') {
                match pair.trim().split_once('=') {
                    // Two cookies of this name: another party set one of them, and it is unknown which.
                    Some((COOKIE_NAME, _)) if found.is_some() => return Err(Unauthenticated),
                    Some((COOKIE_NAME, value)) => found = Some(value),
                    _ => {}
                }
            }
        }
        found.map(|cookie| self.open(cookie).ok_or(Unauthenticated)).transpose()
    }

    /// The session that these headers identify, if it has not ended.
    async fn current(
        &self,
        headers: &HeaderMap,
        is_used: bool,
    ) -> Result<Option<(SessionDigest, Session)>, Unauthenticated> {
        let Some(id) = self.id(headers)? else {
            return Ok(None);
        };
        let digest = digest(&id);
        let failed = |error: CheckError| {
            tracing::error!(error = format!("{error:#}"), "sessions cannot be looked up: they are refused");
            Unauthenticated
        };
        let session = self.store.find(&digest).await.map_err(failed)?.ok_or(Unauthenticated)?;
        let now = Utc::now();
        let lasted = |since: DateTime<Utc>| (now - since).to_std().unwrap_or_default();
        if lasted(session.created_at) >= self.absolute || lasted(session.seen_at) >= self.idle {
            self.store.remove(&digest).await.map_err(failed)?;
            return Err(Unauthenticated);
        }
        // A twentieth of the timeout is precise enough, so that requests that only read rarely cause a write.
        if is_used && lasted(session.seen_at) >= self.idle / 20 {
            self.store.seen(&digest, now).await.map_err(failed)?;
        }
        Ok(Some((digest, session)))
    }
}

fn digest(id: &[u8]) -> SessionDigest {
    *blake3::hash(id).as_bytes()
}

/// Whether a request that may change something comes from a page of this origin (OWASP CSRF Prevention Cheat Sheet).
fn is_same_origin(request: &Parts) -> bool {
    if request.method.is_safe() || request.method.as_str() == "QUERY" {
        return true;
    }
    let text = |name: &str| request.headers.get(name).map(HeaderValue::as_bytes);
    if let Some(site) = text("sec-fetch-site") {
        return site == b"same-origin" || site == b"none";
    }
    let origin = request.headers.get(ORIGIN).and_then(|origin| origin.to_str().ok());
    origin.is_some_and(|origin| is_own_origin(request, origin))
}

impl Authenticator for Sessions {
    fn scheme(&self) -> &'static str {
        "Session"
    }

    fn headers(&self) -> Vec<HeaderName> {
        vec![COOKIE]
    }

    fn security_schemes(&self) -> Vec<SecurityScheme> {
        vec![SecurityScheme::cookie("Session", COOKIE_NAME)]
    }

    fn authenticate<'a>(
        &'a self,
        request: &'a Parts,
    ) -> BoxFuture<'a, Result<Option<Actor>, Unauthenticated>> {
        Box::pin(async move {
            match self.current(&request.headers, !Revalidation::is_revalidation(request)).await? {
                None => Ok(None),
                Some(_) if !is_same_origin(request) => Err(Unauthenticated),
                Some((_, session)) => Ok(Some(session.actor)),
            }
        })
    }

    fn faults(&self) -> Vec<(String, String)> {
        if self.secret_bytes >= MIN_SECRET_BYTES {
            return Vec::new();
        }
        let message = format!(
            "the secret of its sessions has {} bytes; {MIN_SECRET_BYTES} are the least",
            self.secret_bytes
        );
        vec![(message, "the output of `openssl rand -base64 32`".to_owned())]
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions")
            .field("idle", &self.idle)
            .field("absolute", &self.absolute)
            .finish_non_exhaustive()
    }
}
