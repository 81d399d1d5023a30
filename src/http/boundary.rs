//! What every door of an application shares: who asks, and how a failure is answered.

use std::sync::Arc;

use axum::response::Response;
use http::HeaderValue;
use http::header::WWW_AUTHENTICATE;
use http::request::Parts;

use super::{Bodies, Context, Origins, problem};
#[cfg(feature = "testing")]
use crate::access::Permission;
use crate::access::{Actor, Authenticator, Elevation, Following, RoleHierarchy, Rule, Tenancy};
use crate::cache::Answers;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind};
use crate::live::Live;

/// What every handler of an application shares.
#[derive(Debug)]
pub(crate) struct Boundary {
    pub(crate) engine: Arc<Engine>,
    pub(crate) authenticators: Vec<Arc<dyn Authenticator>>,
    pub(crate) roles: RoleHierarchy,
    pub(crate) tenancy: Option<Tenancy>,
    pub(crate) elevation: Option<Elevation>,
    /// What is remembered of answers, where anything is.
    pub(crate) answers: Option<Arc<Answers>>,
    pub(crate) body_limit: usize,
    /// What large bodies take together.
    pub(crate) bodies: Bodies,
    /// What every resource's path begins with.
    #[cfg(feature = "testing")]
    pub(crate) prefix: String,
    /// What a problem's `type` begins with.
    pub(crate) problem_base: String,
    /// What stands in `Vary`.
    pub(crate) depends_on: HeaderValue,
    /// What stands in `WWW-Authenticate`.
    pub(crate) challenge: HeaderValue,
    /// Who waits for changes; nobody where no resource has streams.
    pub(crate) live: Option<Arc<Live>>,
    /// Whose pages may open a socket.
    pub(crate) origins: Origins,
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

impl Boundary {
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

    /// A failure as it is answered, with the schemes that a 401 asks for.
    pub(crate) fn refuse(&self, error: &Error, instance: &str, context: &Context) -> Response {
        let mut response = problem::respond(error, &self.problem_base, instance, context);
        if error.kind() == ErrorKind::Unauthenticated {
            response.headers_mut().insert(WWW_AUTHENTICATE, self.challenge.clone());
        }
        response
    }
}

fn bad_credential() -> Error {
    Error::new(ErrorKind::Unauthenticated, "unauthenticated", "The credential is not good.")
}
