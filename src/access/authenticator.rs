//! Authentication: from a request's credential to an actor.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::BoxFuture;
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderMap, HeaderName};
use subtle::ConstantTimeEq as _;

use super::{Actor, SecurityScheme};

/// Authenticates requests: turns a request's credential into an actor.
///
/// An authenticator that finds no credential of its kind returns `None`, and the next one is tried; where all return
/// `None` the actor is anonymous. An authenticator that finds a credential it cannot accept returns an error, and the
/// request fails (401), even where an anonymous caller would have been allowed.
pub trait Authenticator: fmt::Debug + Send + Sync + 'static {
    /// The scheme of the challenge in `WWW-Authenticate` (RFC 9110, 11.6.1), such as `Bearer`.
    fn scheme(&self) -> &'static str;

    /// Authenticates the sender of this request.
    ///
    /// # Errors
    /// [`Unauthenticated`] where there is a credential of this kind and it is invalid.
    fn authenticate<'a>(
        &'a self,
        request: &'a Parts,
    ) -> BoxFuture<'a, Result<Option<Actor>, Unauthenticated>>;

    /// The headers that may carry the credential, for `Vary`; `Authorization` by default.
    fn headers(&self) -> Vec<HeaderName> {
        vec![AUTHORIZATION]
    }

    /// How the credential is sent, for the OpenAPI document; derived from its [`scheme`](Self::scheme) by default.
    fn security_schemes(&self) -> Vec<SecurityScheme> {
        vec![SecurityScheme::of(self.scheme())]
    }

    /// Faults of its configuration, such as a secret that is too short, each with what to write instead. An application
    /// with any such fault does not build.
    fn faults(&self) -> Vec<(String, String)> {
        Vec::new()
    }
}

/// Marks, in the extensions of a long-lived request, whether its credential was accepted once: re-checking it must not
/// extend a session's idle timeout.
#[derive(Clone, Debug, Default)]
pub(crate) struct Revalidation(Arc<AtomicBool>);

impl Revalidation {
    /// Marks all later authentications of this request as re-checks.
    pub(crate) fn mark(request: &Parts) {
        if let Some(revalidation) = request.extensions.get::<Self>() {
            revalidation.0.store(true, Ordering::Release);
        }
    }

    /// Whether a request's credential is being re-checked.
    pub(crate) fn is_revalidation(request: &Parts) -> bool {
        request.extensions.get::<Self>().is_some_and(|revalidation| revalidation.0.load(Ordering::Acquire))
    }
}

/// A credential was sent and is invalid. It carries no reason: a caller must not learn how close the credential came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unauthenticated;

impl fmt::Display for Unauthenticated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the credential is invalid")
    }
}

impl std::error::Error for Unauthenticated {}

/// Static bearer tokens (RFC 6750), each for one actor.
///
/// Tokens are kept as digests and compared in constant time. Without any token every bearer credential is
/// refused.
///
/// ```
/// use resourceful::Actor;
/// use resourceful::access::BearerTokens;
///
/// let tokens = BearerTokens::new().token("correct horse battery staple", Actor::user("ops").with_role("editor"));
/// # let _ = tokens;
/// ```
#[derive(Clone, Default)]
pub struct BearerTokens {
    tokens: Vec<(blake3::Hash, Actor)>,
}

impl BearerTokens {
    /// An authenticator without tokens.
    #[must_use]
    pub const fn new() -> Self {
        Self { tokens: Vec::new() }
    }

    /// Accepts one more token. An empty token is never accepted.
    #[must_use]
    pub fn token(mut self, token: impl AsRef<str>, actor: Actor) -> Self {
        if !token.as_ref().is_empty() {
            self.tokens.push((blake3::hash(token.as_ref().as_bytes()), actor));
        }
        self
    }

    fn find(&self, token: &[u8]) -> Option<Actor> {
        let digest = blake3::hash(token);
        let mut found = None;
        // Every token is compared, so that timing does not reveal which one came close.
        for (expected, actor) in &self.tokens {
            if bool::from(expected.as_bytes().ct_eq(digest.as_bytes())) {
                found = Some(actor.clone());
            }
        }
        found
    }
}

impl fmt::Debug for BearerTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BearerTokens").field("tokens", &self.tokens.len()).finish()
    }
}

impl Authenticator for BearerTokens {
    fn scheme(&self) -> &'static str {
        "Bearer"
    }

    fn authenticate<'a>(
        &'a self,
        request: &'a Parts,
    ) -> BoxFuture<'a, Result<Option<Actor>, Unauthenticated>> {
        // A token that is unknown here may belong to another authenticator; where none accepts it, the request is refused
        // in the end.
        let outcome = bearer(&request.headers).map(|token| token.and_then(|token| self.find(token)));
        Box::pin(std::future::ready(outcome))
    }
}

/// The token of a `Bearer` credential (RFC 6750); the scheme is case-insensitive (RFC 9110, 11.1).
///
/// # Errors
/// Where there is more than one credential: the server does not guess which of them was meant.
pub(super) fn bearer(headers: &HeaderMap) -> Result<Option<&[u8]>, Unauthenticated> {
    let mut credentials = headers.get_all(AUTHORIZATION).iter();
    match (credentials.next(), credentials.next()) {
        (None, _) => Ok(None),
        (Some(_), Some(_)) => Err(Unauthenticated),
        (Some(credential), None) => {
            let parts = credential.as_bytes().split_at_checked(7);
            let token = parts.filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer "));
            Ok(token.map(|(_, token)| token.trim_ascii()))
        }
    }
}
