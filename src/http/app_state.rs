//! Application state that all handlers share: authentication of callers, and the responses to failures.

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use http::header::WWW_AUTHENTICATE;
use http::request::Parts;
use http::{HeaderMap, HeaderValue};

use super::body_memory::BodyPermitGuard;
use super::handler::original_uri;
use super::{BodyLimit, BodyMemory, Context, Origins, problem};
#[cfg(feature = "testing")]
use crate::access::Permission;
use crate::access::{
    AbortOnDrop, Actor, Authenticator, Elevation, PublicOrigins, RoleHierarchy, Rule, Tenancy,
};
use crate::cache::ResponseCache;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind};
use crate::live::Live;

/// State that all handlers of an application share.
#[derive(Debug)]
pub(crate) struct AppState {
    pub(crate) engine: Arc<Engine>,
    pub(crate) authenticators: Vec<Arc<dyn Authenticator>>,
    pub(crate) roles: RoleHierarchy,
    pub(crate) tenancy: Option<Tenancy>,
    pub(crate) elevation: Option<Elevation>,
    /// The response cache, if there is one.
    pub(crate) cache: Option<Arc<ResponseCache>>,
    pub(crate) body_limit: BodyLimit,
    /// The path under which clients reach this router, where a proxy or another router adds it.
    pub(crate) base_path: Option<String>,
    /// The memory budget of large request bodies.
    pub(crate) body_memory: BodyMemory,
    /// The prefix of every resource's path.
    pub(crate) prefix: String,
    /// The prefix of a problem's `type`.
    pub(crate) problem_base: String,
    /// The value of `Vary`.
    pub(crate) vary: HeaderValue,
    /// The value of `WWW-Authenticate`.
    pub(crate) challenge: Challenge,
    /// The subscribers that wait for changes; `None` if no resource has streams.
    pub(crate) live: Option<Arc<Live>>,
    /// The origins whose pages may open a socket.
    pub(crate) origins: Origins,
    /// The application's own origins, as far as they are declared.
    pub(crate) public_origins: PublicOrigins,
    /// Tasks that listen to other nodes, for as long as the application exists.
    #[expect(dead_code, reason = "it is held, and ends with the application")]
    pub(crate) following: Vec<AbortOnDrop>,
    /// The most operations of a batch; `None` if there are no batches.
    pub(crate) max_batch_operations: Option<usize>,
    /// The rule for callers that may ask for explanations; `None` if there are no explanations.
    pub(crate) explain_rule: Option<Rule>,
    /// The permission that it was declared as.
    #[cfg(feature = "testing")]
    pub(crate) explain_permission: Option<Permission>,
    #[cfg(feature = "testing")]
    pub(crate) document_by_caller: bool,
}

impl AppState {
    /// Authenticates the caller, in the scope that the request names.
    pub(crate) async fn actor(&self, parts: &Parts) -> Result<Actor, Error> {
        let mut actor = self.authenticate(parts).await?;
        if let Some(elevation) = &self.elevation {
            actor = elevation.elevate(actor, parts).await?;
        }
        match &self.tenancy {
            Some(tenancy) => {
                Ok(tenancy.resolve_tenant(actor, &parts.headers).await?.with_included(&self.roles))
            }
            None => Ok(actor),
        }
    }

    /// Whether callers can authenticate at all.
    pub(crate) const fn can_authenticate(&self) -> bool {
        !self.authenticators.is_empty() || self.elevation.is_some()
    }

    async fn authenticate(&self, parts: &Parts) -> Result<Actor, Error> {
        let authenticators = &self.authenticators;
        for authenticator in authenticators {
            match authenticator.authenticate(parts).await {
                Ok(Some(actor)) => return Ok(actor.with_included(&self.roles)),
                Ok(None) => {}
                Err(error) => return Err(invalid_credentials().with_source(error)),
            }
        }
        // A credential that no authenticator understands is an invalid one, not an absent one.
        if !authenticators.is_empty() && parts.headers.contains_key(http::header::AUTHORIZATION) {
            return Err(invalid_credentials());
        }
        Ok(Actor::anonymous())
    }

    /// Removes the content coding of a body, and counts the body towards the memory budget.
    pub(super) fn count_body(&self, headers: &mut HeaderMap, body: &mut Body) -> Option<BodyPermitGuard> {
        self.body_memory.count_body(headers, body, self.body_limit.bytes)
    }

    /// The path of a request as clients see it, for references to it and to paths below it.
    pub(super) fn public_path<'a>(&self, parts: &'a Parts) -> Cow<'a, str> {
        match &self.base_path {
            Some(base) => Cow::Owned(format!("{base}{}", parts.uri.path())),
            None => Cow::Borrowed(original_uri(parts).path()),
        }
    }

    /// The response to a failure, with the challenge of a 401.
    pub(crate) fn error_response(&self, error: &Error, instance: &str, context: &Context) -> Response {
        let mut response = problem::respond(error, &self.problem_base, instance, context);
        if error.kind() == ErrorKind::Unauthenticated {
            let is_invalid = error.detail() == INVALID_CREDENTIALS;
            let challenge = if is_invalid { &self.challenge.invalid } else { &self.challenge.missing };
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge.clone());
        }
        response
    }
}

/// The detail of a 401 where a credential is present.
const INVALID_CREDENTIALS: &str = "Invalid credentials.";

pub(super) fn invalid_credentials() -> Error {
    Error::new(ErrorKind::Unauthenticated, "unauthenticated", INVALID_CREDENTIALS)
}

/// The values of `WWW-Authenticate` (RFC 9110, 11.6.1; RFC 6750, 3 for `Bearer`).
#[derive(Clone, Debug)]
pub(crate) struct Challenge {
    missing: HeaderValue,
    invalid: HeaderValue,
}

impl Challenge {
    /// The challenge of authentication schemes, in order; without any, of `Bearer`.
    pub(crate) fn of<'a>(schemes: impl IntoIterator<Item = &'a str>) -> Self {
        let mut names: Vec<&str> = Vec::new();
        for scheme in schemes {
            if !scheme.is_empty() && !names.contains(&scheme) {
                names.push(scheme);
            }
        }
        if names.is_empty() {
            names.push("Bearer");
        }
        let value = |bearer: &str| {
            let challenges = names.iter().map(|name| if *name == "Bearer" { bearer } else { name });
            let challenges = challenges.collect::<Vec<_>>().join(", ");
            HeaderValue::from_str(&challenges).unwrap_or(HeaderValue::from_static("Bearer"))
        };
        Self {
            missing: value("Bearer realm=\"api\""),
            invalid: value("Bearer realm=\"api\", error=\"invalid_token\""),
        }
    }
}
