//! What every door of an application shares: who asks, and how a failure is answered.

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use http::header::WWW_AUTHENTICATE;
use http::request::Parts;
use http::{HeaderMap, HeaderValue};

use super::body_memory::Holding;
use super::handler::original;
use super::{BodyLimit, BodyMemory, Context, Origins, problem};
#[cfg(feature = "testing")]
use crate::access::Permission;
use crate::access::{
    Actor, Authenticator, Elevation, Following, PublicOrigins, RoleHierarchy, Rule, Tenancy,
};
use crate::cache::ResponseCache;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind};
use crate::live::Live;

/// What every handler of an application shares.
#[derive(Debug)]
pub(crate) struct AppState {
    pub(crate) engine: Arc<Engine>,
    pub(crate) authenticators: Vec<Arc<dyn Authenticator>>,
    pub(crate) roles: RoleHierarchy,
    pub(crate) tenancy: Option<Tenancy>,
    pub(crate) elevation: Option<Elevation>,
    /// What is remembered of answers, where anything is.
    pub(crate) answers: Option<Arc<ResponseCache>>,
    pub(crate) body_limit: BodyLimit,
    /// The path under which clients reach this router, where a proxy or another router adds it.
    pub(crate) base: Option<String>,
    /// What large bodies take together.
    pub(crate) bodies: BodyMemory,
    /// What every resource's path begins with.
    #[cfg(feature = "testing")]
    pub(crate) prefix: String,
    /// What a problem's `type` begins with.
    pub(crate) problem_base: String,
    /// What stands in `Vary`.
    pub(crate) depends_on: HeaderValue,
    /// What stands in `WWW-Authenticate`.
    pub(crate) challenge: Challenge,
    /// Who waits for changes; nobody where no resource has streams.
    pub(crate) live: Option<Arc<Live>>,
    /// Whose pages may open a socket.
    pub(crate) origins: Origins,
    /// The application's own origins, as far as they are declared.
    pub(crate) public_origins: PublicOrigins,
    /// What listens to other nodes, for as long as the application is there.
    #[expect(dead_code, reason = "it is held, and ends with the application")]
    pub(crate) following: Vec<Following>,
    /// The most operations of a batch; none where there are no batches.
    pub(crate) batch: Option<usize>,
    /// Who may ask why; nobody where there is none.
    pub(crate) explain: Option<Rule>,
    /// What it was declared as.
    #[cfg(feature = "testing")]
    pub(crate) explained_to: Option<Permission>,
    #[cfg(feature = "testing")]
    pub(crate) document_by_caller: bool,
}

impl AppState {
    /// Who asks, in the scope that the request names.
    pub(crate) async fn actor(&self, parts: &Parts) -> Result<Actor, Error> {
        let mut actor = self.authenticate(parts).await?;
        if let Some(elevation) = &self.elevation {
            actor = elevation.raise(actor, parts).await?;
        }
        match &self.tenancy {
            Some(tenancy) => Ok(tenancy.place(actor, &parts.headers).await?.with_included(&self.roles)),
            None => Ok(actor),
        }
    }

    /// Whether anybody can say who they are.
    pub(crate) const fn knows_anybody(&self) -> bool {
        !self.authenticators.is_empty() || self.elevation.is_some()
    }

    async fn authenticate(&self, parts: &Parts) -> Result<Actor, Error> {
        let authenticators = &self.authenticators;
        for authenticator in authenticators {
            match authenticator.authenticate(parts).await {
                Ok(Some(actor)) => return Ok(actor.with_included(&self.roles)),
                Ok(None) => {}
                Err(error) => return Err(bad_credential().with_source(error)),
            }
        }
        // A credential that nobody here understands is a bad one, not none.
        if !authenticators.is_empty() && parts.headers.contains_key(http::header::AUTHORIZATION) {
            return Err(bad_credential());
        }
        Ok(Actor::anonymous())
    }

    /// Takes the coding off a body, and counts it among all.
    pub(super) fn count(&self, headers: &mut HeaderMap, body: &mut Body) -> Option<Holding> {
        self.bodies.count(headers, body, self.body_limit.bytes)
    }

    /// The path of a request as its clients reach it, for references to it and to what is below it.
    pub(super) fn public_path<'a>(&self, parts: &'a Parts) -> Cow<'a, str> {
        match &self.base {
            Some(base) => Cow::Owned(format!("{base}{}", parts.uri.path())),
            None => Cow::Borrowed(original(parts).path()),
        }
    }

    /// A failure as it is answered, with the schemes that a 401 asks for.
    pub(crate) fn refuse(&self, error: &Error, instance: &str, context: &Context) -> Response {
        let mut response = problem::respond(error, &self.problem_base, instance, context);
        if error.kind() == ErrorKind::Unauthenticated {
            let is_invalid = error.detail() == BAD_CREDENTIAL;
            let challenge = if is_invalid { &self.challenge.invalid } else { &self.challenge.missing };
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge.clone());
        }
        response
    }
}

/// What a 401 says of a credential that is there.
const BAD_CREDENTIAL: &str = "Invalid credentials.";

pub(super) fn bad_credential() -> Error {
    Error::new(ErrorKind::Unauthenticated, "unauthenticated", BAD_CREDENTIAL)
}

/// What stands in `WWW-Authenticate` (RFC 9110, 11.6.1; RFC 6750, 3 for `Bearer`).
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
