//! JSON Web Tokens (RFC 7519) as bearer credentials.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::request::Parts;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{DecodingKey, Validation, decode, decode_header};
use serde_json::{Map, Value as Json};
use tokio::time::Instant;

use super::authenticator::bearer;
use super::check::CheckError;
use super::jwks::{Jwks, Key, KeySource};
use super::token_cache::{TokenCache, VerifiedToken};
use super::{Actor, Authenticator, SecurityScheme, Unauthenticated};

pub use jsonwebtoken::Algorithm as JwtAlgorithm;

/// The maximum length of a token, in bytes.
const MAX_TOKEN_BYTES: usize = 8_192;
/// The minimum length of a secret, in bytes (RFC 7518, 3.2).
const MIN_SECRET_BYTES: usize = 32;

/// The claims of a token whose signature and times were verified.
pub type Claims = Map<String, Json>;

type ActorFn = dyn Fn(&Claims) -> Option<Actor> + Send + Sync;
type RevocationFn = dyn Fn(Claims) -> BoxFuture<'static, Result<bool, CheckError>> + Send + Sync;

/// JSON Web Tokens as bearer credentials (RFC 7519, RFC 8725).
///
/// Each key has one algorithm, and a token's own `alg` must be that of the key: `none` and a substituted algorithm are
/// refused. `exp` is required, and `exp`, `nbf`, `iss` and `aud` must be valid; a leeway of 30 s allows for clock skew. A
/// verified token is not verified again while it is valid and its key is fresh; expiry and revocation are checked each
/// time.
///
/// ```
/// use resourceful::prelude::*;
/// use resourceful::access::{Jwt, JwtAlgorithm};
///
/// # let secret = "0123456789abcdef0123456789abcdef";
/// let tokens = Jwt::new()
///     .secret(JwtAlgorithm::HS256, secret) // at least 32 bytes, from the environment
///     .issuer("https://login.example")
///     .audience("shop");
/// # let _ = create_app(AppPreset::Testing).authenticator(tokens);
/// ```
///
/// By default `sub` is the actor's id, `roles` its roles, `tenant` and `tenant_roles` its tenant and the roles in it, and
/// a token whose `client_id` is its `sub` is a service's, whose `scope` lists its scopes (RFC 9068, 2.2). A token with
/// another `client_id` belongs to a client acting on behalf of a user: where it has a `scope`, that restricts which of
/// the user's rights the client has ([`Actor::limited_to`]), unless the client is a
/// [`trusted_client`](Self::trusted_client). [`actor`](Self::actor) reads other claims.
///
/// A token that names extensions in `crit` is refused, since none is supported (RFC 7515, 4.1.11), and so is a token
/// whose `iss` or `sub` is not a string (RFC 7519, 4.1).
#[derive(Clone)]
pub struct Jwt {
    keys: Vec<Key>,
    sources: Vec<KeySource>,
    issuers: Vec<String>,
    audiences: Vec<String>,
    /// Clients that have all rights of the users they act for.
    trusted_clients: Vec<String>,
    leeway: Duration,
    /// How the actor is read, where not from the default claims.
    actor_fn: Option<Arc<ActorFn>>,
    revocation_check: Option<Arc<RevocationFn>>,
    /// Tokens that were verified with these settings: a changed setting starts with an empty cache.
    cache: TokenCache,
    faults: Vec<(String, String)>,
}

impl Default for Jwt {
    fn default() -> Self {
        Self::new()
    }
}

impl Jwt {
    /// No keys: every token is refused.
    #[must_use]
    pub fn new() -> Self {
        Self {
            keys: Vec::new(),
            sources: Vec::new(),
            issuers: Vec::new(),
            audiences: Vec::new(),
            trusted_clients: Vec::new(),
            leeway: Duration::from_secs(30),
            actor_fn: None,
            revocation_check: None,
            cache: TokenCache::new(),
            faults: Vec::new(),
        }
    }

    /// Accepts tokens signed with a shared secret of at least 32 bytes: `HS256`, `HS384` or `HS512`.
    #[must_use]
    pub fn secret(mut self, algorithm: JwtAlgorithm, secret: impl AsRef<[u8]>) -> Self {
        let secret = secret.as_ref();
        let is_default = secret.windows(2).all(|pair| pair[0] == pair[1]);
        if secret.len() < MIN_SECRET_BYTES || is_default {
            let bytes = secret.len();
            self.faults.push((
                format!(
                    "a secret for tokens has {bytes} bytes; {MIN_SECRET_BYTES} random ones are the least"
                ),
                "the output of `openssl rand -base64 32`".to_owned(),
            ));
        }
        self.accept(None, algorithm, DecodingKey::from_secret(secret))
    }

    /// Accepts tokens signed with the private key of this public one, in PEM: the RS, PS and ES algorithms and `EdDSA`.
    #[must_use]
    pub fn public_key_pem(mut self, algorithm: JwtAlgorithm, pem: impl AsRef<[u8]>) -> Self {
        use JwtAlgorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
        let pem = pem.as_ref();
        let key = match algorithm {
            RS256 | RS384 | RS512 | PS256 | PS384 | PS512 => DecodingKey::from_rsa_pem(pem),
            ES256 | ES384 => DecodingKey::from_ec_pem(pem),
            EdDSA => DecodingKey::from_ed_pem(pem),
            _ => {
                self.faults.push((format!("{algorithm:?} has no public key"), ".secret(…)".to_owned()));
                return self;
            }
        };
        match key {
            Ok(key) => self.accept(None, algorithm, key),
            Err(error) => {
                let message = format!("a public key for {algorithm:?} cannot be read: {error}");
                self.faults.push((message, "the text between and with the BEGIN and END lines".to_owned()));
                self
            }
        }
    }

    /// Accepts tokens signed with one of these keys, a JWK set (RFC 7517). Secrets in it are refused.
    #[must_use]
    pub fn jwks(self, json: &str) -> Self {
        let help = || "a JWK set whose keys each have `kid` and `alg`".to_owned();
        self.with(|tokens| match serde_json::from_str::<JwkSet>(json) {
            Ok(set) => {
                for jwk in &set.keys {
                    match Key::from_jwk(jwk) {
                        Ok(key) => tokens.keys.push(key),
                        Err(fault) => tokens.faults.push((fault, help())),
                    }
                }
            }
            Err(error) => tokens.faults.push((format!("the JWK set cannot be read: {error}"), help())),
        })
    }

    /// Accepts tokens signed with one of the keys that an identity provider publishes at a URL.
    #[must_use]
    pub fn keys(self, keys: Jwks) -> Self {
        self.with(|tokens| match keys.into_source() {
            Ok(source) => tokens.sources.push(source),
            Err(fault) => tokens.faults.push((fault, "Jwks::at(\"https://…\")".to_owned())),
        })
    }

    fn accept(self, id: Option<String>, algorithm: JwtAlgorithm, key: DecodingKey) -> Self {
        self.with(|tokens| {
            if key.family() == algorithm.family() {
                tokens.keys.push(Key { id, algorithm, key });
            } else {
                let message = format!("a key does not fit {algorithm:?}");
                tokens.faults.push((message, "the algorithm of the key".to_owned()));
            }
        })
    }

    /// The same with a changed setting and an empty cache of verified tokens: a clone may still use the old settings.
    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self.cache = TokenCache::new();
        self
    }

    /// Accepts tokens of this issuer only (`iss`). Several may be named.
    #[must_use]
    pub fn issuer(self, issuer: impl Into<String>) -> Self {
        self.with(|tokens| tokens.issuers.push(issuer.into()))
    }

    /// Accepts tokens for this audience only (`aud`). Several may be named; without any, a token that names an audience
    /// is refused, since it is meant for another recipient.
    #[must_use]
    pub fn audience(self, audience: impl Into<String>) -> Self {
        self.with(|tokens| tokens.audiences.push(audience.into()))
    }

    /// A trusted client (`client_id`) of the application's own, such as the web application that users sign in to: tokens
    /// issued to it for a user have all of the user's rights, whatever their `scope`. Several may be named.
    #[must_use]
    pub fn trusted_client(self, client: impl Into<String>) -> Self {
        self.with(|tokens| tokens.trusted_clients.push(client.into()))
    }

    /// The allowed clock skew for `exp` and `nbf`; 30 s by default.
    #[must_use]
    pub fn leeway(self, leeway: Duration) -> Self {
        self.with(|tokens| tokens.leeway = leeway)
    }

    /// Reads the actor from other claims than the default ones; `None` refuses the token.
    #[must_use]
    pub fn actor(self, read: impl Fn(&Claims) -> Option<Actor> + Send + Sync + 'static) -> Self {
        self.with(|tokens| tokens.actor_fn = Some(Arc::new(read)))
    }

    /// Checks whether an otherwise valid token was revoked. Where the check fails, the token is refused.
    #[must_use]
    pub fn revoked<F, T>(self, ask: F) -> Self
    where
        F: Fn(Claims) -> T + Send + Sync + 'static,
        T: Future<Output = Result<bool, CheckError>> + Send + 'static,
    {
        self.with(|tokens| tokens.revocation_check = Some(Arc::new(move |claims| Box::pin(ask(claims)))))
    }

    /// The actor of a token; `None` where the token is not a JWT.
    async fn verify(&self, token: &[u8]) -> Result<Option<Actor>, Unauthenticated> {
        let Some(verified) = self.verify_cached(token).await? else {
            return Ok(None);
        };
        if let Some(revoked) = &self.revocation_check
            && is_revoked(revoked, &verified.claims).await
        {
            return Err(Unauthenticated);
        }
        let actor = match &self.actor_fn {
            None => verified.actor.clone(),
            Some(read) => {
                let read = std::panic::AssertUnwindSafe(|| read(&verified.claims));
                std::panic::catch_unwind(read).unwrap_or_default()
            }
        };
        actor.map(Some).ok_or(Unauthenticated)
    }

    /// A valid token, verified now or before; `None` where the token is not a JWT.
    async fn verify_cached(&self, token: &[u8]) -> Result<Option<Arc<VerifiedToken>>, Unauthenticated> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Unauthenticated);
        }
        let digest = blake3::hash(token);
        if let Some(known) = self.cache.find(&digest, self.leeway) {
            return Ok(Some(known));
        }
        if token.iter().filter(|byte| **byte == b'.').count() != 2 {
            return Ok(None);
        }
        let (claims, key_until) = self.claims(token).await.ok_or(Unauthenticated)?;
        let actor = if self.actor_fn.is_none() { actor_of(&claims, &self.trusted_clients) } else { None };
        let verified = Arc::new(VerifiedToken::new(claims, actor, key_until));
        self.cache.insert(digest, verified.clone());
        Ok(Some(verified))
    }

    /// The claims of a token with a valid signature, and until when its key is fresh.
    async fn claims(&self, token: &[u8]) -> Option<(Claims, Option<Instant>)> {
        let header = decode_header(token).ok()?;
        if has_critical_extensions(token)? {
            return None;
        }
        let (algorithm, id) = (header.alg, header.kid.as_deref());
        let validation = self.validation(algorithm);
        let by = |key: &Key| decode::<Claims>(token, &key.key, &validation).ok().map(|token| token.claims);
        let is_text = |claims: &Claims, name: &str| claims.get(name).is_none_or(Json::is_string);
        let well_formed = |claims: &Claims| is_text(claims, "iss") && is_text(claims, "sub");
        if let Some(claims) = self.keys.iter().filter(|key| key.matches(algorithm, id)).find_map(by) {
            return Some((claims, None)).filter(|(claims, _)| well_formed(claims));
        }
        for source in &self.sources {
            let (keys, until) = source.keys(algorithm, id).await;
            if let Some(claims) = keys.iter().find_map(by) {
                return Some((claims, Some(until))).filter(|(claims, _)| well_formed(claims));
            }
        }
        None
    }

    fn validation(&self, algorithm: JwtAlgorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.leeway = self.leeway.as_secs();
        validation.validate_nbf = true;
        let mut required = vec!["exp"];
        if !self.issuers.is_empty() {
            validation.set_issuer(&self.issuers);
            required.push("iss");
        }
        if !self.audiences.is_empty() {
            validation.set_audience(&self.audiences);
            required.push("aud");
        }
        validation.set_required_spec_claims(&required);
        validation
    }
}

/// Whether a token's header names critical extensions (`crit`; RFC 7515, 4.1.11); `None` where the header cannot be read.
fn has_critical_extensions(token: &[u8]) -> Option<bool> {
    let header = token.split(|byte| *byte == b'.').next()?;
    let header: Map<String, Json> = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
    Some(header.contains_key("crit"))
}

/// Whether a token was revoked. A failed check counts as revoked.
async fn is_revoked(ask: &Arc<RevocationFn>, claims: &Claims) -> bool {
    let (ask, claims) = (ask.clone(), claims.clone());
    match std::panic::AssertUnwindSafe(async move { ask(claims).await }).catch_unwind().await {
        Ok(Ok(revoked)) => revoked,
        Ok(Err(error)) => {
            tracing::error!(
                error = format!("{error:#}"),
                "the revocation check of a token failed: the token is refused"
            );
            true
        }
        Err(_) => {
            tracing::error!("the revocation check of a token panicked: the token is refused");
            true
        }
    }
}

/// The actor that the default claims describe.
fn actor_of(claims: &Claims, trusted: &[String]) -> Option<Actor> {
    let text = |name: &str| claims.get(name).and_then(Json::as_str).filter(|text| !text.is_empty());
    let list = |name: &str| -> Vec<String> {
        let items = claims.get(name).and_then(Json::as_array).into_iter().flatten();
        items.filter_map(Json::as_str).map(str::to_owned).collect()
    };
    let in_tenant = |actor: Actor| match text("tenant") {
        Some(tenant) => actor.in_tenant(tenant.to_owned(), list("tenant_roles")),
        None => actor,
    };
    let scopes = || text("scope").unwrap_or_default().split_whitespace().map(str::to_owned);
    // A token issued for a user names user and client; one issued to a client itself names the client twice (RFC 9068,
    // 2.2).
    if let Some(client) = text("client_id").filter(|client| text("sub").is_none_or(|sub| sub == *client)) {
        return Some(in_tenant(scopes().fold(Actor::service(client.to_owned()), Actor::with_scope)));
    }
    let user = list("roles").into_iter().fold(Actor::user(text("sub")?.to_owned()), Actor::with_role);
    let is_limited = text("client_id").is_some_and(|client| trusted.iter().all(|known| known != client))
        && claims.contains_key("scope");
    Some(in_tenant(if is_limited { user.limited_to(scopes()) } else { user }))
}

impl fmt::Debug for Jwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jwt")
            .field("keys", &self.keys.len())
            .field("sources", &self.sources)
            .field("issuers", &self.issuers)
            .field("audiences", &self.audiences)
            .finish_non_exhaustive()
    }
}

impl Authenticator for Jwt {
    fn scheme(&self) -> &'static str {
        "Bearer"
    }

    fn authenticate<'a>(
        &'a self,
        request: &'a Parts,
    ) -> BoxFuture<'a, Result<Option<Actor>, Unauthenticated>> {
        Box::pin(async move {
            match bearer(&request.headers)? {
                Some(token) => self.verify(token).await,
                None => Ok(None),
            }
        })
    }

    fn security_schemes(&self) -> Vec<SecurityScheme> {
        vec![SecurityScheme::bearer("JWT")]
    }

    fn faults(&self) -> Vec<(String, String)> {
        let mut faults = self.faults.clone();
        if self.keys.is_empty() && self.sources.is_empty() && faults.is_empty() {
            faults.push((
                "tokens are accepted and no key was given".to_owned(),
                ".secret(…), .public_key_pem(…), .jwks(…) or .keys(…)".to_owned(),
            ));
        }
        faults
    }
}
