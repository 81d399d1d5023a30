//! The scope of an authenticated request: the tenant that it names, and elevation.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::header::HOST;
use http::request::Parts;
use http::{HeaderMap, HeaderName};

use super::check::CheckError;
use super::{Actor, Revalidation};
use crate::error::{Error, ErrorKind};

/// An actor's membership in a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Membership {
    /// Not a member, or there is no such tenant: a caller cannot distinguish the two.
    None,
    /// A member of a tenant that is suspended, or a suspended member.
    Suspended,
    /// A member with these roles in the tenant.
    Member(Vec<Arc<str>>),
}

type MembershipFn = dyn Fn(Actor, String) -> BoxFuture<'static, Result<Membership, CheckError>> + Send + Sync;

/// Where a request names its tenant, and a function that looks up the actor's membership in it.
///
/// A tenant in the credential itself needs no lookup; naming another one beside it is refused. So is a tenant that the
/// actor is not a member of, and one for which the lookup fails: there is no default tenant.
///
/// ```
/// use resourceful::prelude::*;
/// use resourceful::access::{Membership, Tenancy};
///
/// let tenancy = Tenancy::header("x-tenant", async |actor, tenant| {
///     // … ask the table of members.
///     Ok(match (actor.id(), tenant.as_str()) {
///         (Some("ada"), "acme") => Membership::Member(vec!["admin".into()]),
///         _ => Membership::None,
///     })
/// });
/// # let _ = create_app(AppPreset::Testing).tenancy(tenancy);
/// ```
#[derive(Clone)]
pub struct Tenancy {
    source: TenantSource,
    membership: Arc<MembershipFn>,
}

#[derive(Clone, Debug)]
enum TenantSource {
    Header(HeaderName),
    Subdomain(String),
}

impl Tenancy {
    /// The tenant is named in a header, such as `x-tenant`.
    ///
    /// # Panics
    /// Where the name is not a valid header name.
    #[must_use]
    pub fn header<F, T>(name: &'static str, membership: F) -> Self
    where
        F: Fn(Actor, String) -> T + Send + Sync + 'static,
        T: Future<Output = Result<Membership, CheckError>> + Send + 'static,
    {
        Self::with_source(TenantSource::Header(HeaderName::from_static(name)), membership)
    }

    /// The tenant is the label before this domain in `Host`: `acme` in `acme.shop.example` for `shop.example`.
    #[must_use]
    pub fn subdomain_of<F, T>(domain: impl Into<String>, membership: F) -> Self
    where
        F: Fn(Actor, String) -> T + Send + Sync + 'static,
        T: Future<Output = Result<Membership, CheckError>> + Send + 'static,
    {
        Self::with_source(TenantSource::Subdomain(domain.into().to_ascii_lowercase()), membership)
    }

    fn with_source<F, T>(source: TenantSource, membership: F) -> Self
    where
        F: Fn(Actor, String) -> T + Send + Sync + 'static,
        T: Future<Output = Result<Membership, CheckError>> + Send + 'static,
    {
        Self { source, membership: Arc::new(move |actor, tenant| Box::pin(membership(actor, tenant))) }
    }

    /// The header that names the tenant; responses of different hosts are distinct in any case.
    pub(crate) const fn header_name(&self) -> Option<&HeaderName> {
        match &self.source {
            TenantSource::Header(name) => Some(name),
            TenantSource::Subdomain(_) => None,
        }
    }

    /// The tenant that a request names.
    fn requested_tenant(&self, headers: &HeaderMap) -> Result<Option<String>, Error> {
        let name = match &self.source {
            TenantSource::Header(name) => name,
            TenantSource::Subdomain(_) => &HOST,
        };
        let mut values = headers.get_all(name).iter();
        let (value, None) = (values.next(), values.next()) else {
            return Err(not_a_member());
        };
        let Some(value) = value else {
            return Ok(None);
        };
        let text = value.to_str().map_err(|_| not_a_member())?;
        Ok(match &self.source {
            TenantSource::Header(_) => Some(text.to_owned()),
            TenantSource::Subdomain(domain) => {
                let host = text.rsplit_once(':').map_or(text, |(host, _)| host).to_ascii_lowercase();
                let label = host.strip_suffix(domain.as_str()).and_then(|rest| rest.strip_suffix('.'));
                label.filter(|label| !label.is_empty() && !label.contains('.')).map(str::to_owned)
            }
        })
    }

    /// The actor in the tenant that the request names.
    ///
    /// # Errors
    /// Where the actor is not a member of it (403).
    pub(crate) async fn resolve_tenant(&self, actor: Actor, headers: &HeaderMap) -> Result<Actor, Error> {
        let Some(tenant) = self.requested_tenant(headers)? else {
            return Ok(actor);
        };
        // Anonymous actors are members of no tenant: they stay anonymous, and are admitted where every caller is.
        if actor.is_anonymous() || actor.tenant() == Some(tenant.as_str()) {
            return Ok(actor);
        }
        if actor.tenant().is_some() {
            return Err(not_a_member());
        }
        if actor.is_elevated() {
            return Ok(actor.in_tenant(tenant, Vec::<Arc<str>>::new()));
        }
        let ask = self.membership.clone();
        let arguments = (actor.clone(), tenant.clone());
        let outcome =
            AssertUnwindSafe(async move { ask(arguments.0, arguments.1).await }).catch_unwind().await;
        match outcome {
            Ok(Ok(Membership::Member(roles))) => Ok(actor.in_tenant(tenant, roles)),
            Ok(Ok(Membership::None | Membership::Suspended)) => Err(not_a_member()),
            Ok(Err(error)) => {
                tracing::error!(
                    error = format!("{error:#}"),
                    "the membership check failed: the request is refused"
                );
                Err(not_a_member())
            }
            Err(_) => {
                tracing::error!("the membership check panicked: the request is refused");
                Err(not_a_member())
            }
        }
    }
}

fn not_a_member() -> Error {
    Error::new(ErrorKind::Forbidden, "forbidden", "You are not in this tenant.")
}

impl fmt::Debug for Tenancy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tenancy").field(&self.source).finish()
    }
}

/// A use of elevated rights, to be recorded.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ElevatedRequest {
    /// The actor that elevated its rights.
    pub actor: Actor,
    /// The reason, in the words of the request.
    pub reason: String,
    /// The method of the request.
    pub method: String,
    /// The path of the request.
    pub path: String,
}

type RecordFn = dyn Fn(ElevatedRequest) -> BoxFuture<'static, Result<(), CheckError>> + Send + Sync;

/// Lets actors with a role elevate their rights for one request, by a header that states the reason. Off unless an
/// application configures it. Every use is recorded first, and a use that cannot be recorded is refused.
///
/// ```
/// use resourceful::prelude::*;
/// use resourceful::access::Elevation;
///
/// // curl … -H 'x-elevate: ticket 4711'
/// let elevation = Elevation::by("x-elevate", "operator", async |request| {
///     println!("{:?} for {}: {} {}", request.actor.id(), request.reason, request.method, request.path);
///     Ok(())
/// });
/// # let _ = create_app(AppPreset::Testing).elevation(elevation);
/// ```
#[derive(Clone)]
pub struct Elevation {
    header: HeaderName,
    role: Arc<str>,
    record: Arc<RecordFn>,
}

impl Elevation {
    /// Elevation by this header, for actors with this role; each use is passed to `record`.
    ///
    /// # Panics
    /// Where the name is not a valid header name.
    #[must_use]
    pub fn by<F, T>(header: &'static str, role: impl Into<Arc<str>>, record: F) -> Self
    where
        F: Fn(ElevatedRequest) -> T + Send + Sync + 'static,
        T: Future<Output = Result<(), CheckError>> + Send + 'static,
    {
        Self {
            header: HeaderName::from_static(header),
            role: role.into(),
            record: Arc::new(move |request| Box::pin(record(request))),
        }
    }

    /// The header that requests elevation.
    pub(crate) const fn header_name(&self) -> &HeaderName {
        &self.header
    }

    /// The actor with elevated rights, where the request asks for them.
    ///
    /// # Errors
    /// Where the actor may not elevate its rights (403), or the use cannot be recorded (503).
    pub(crate) async fn elevate(&self, actor: Actor, request: &Parts) -> Result<Actor, Error> {
        let mut values = request.headers.get_all(&self.header).iter();
        let reason = match (values.next(), values.next()) {
            (None, _) => return Ok(actor),
            (Some(reason), None) => reason.to_str().ok().map(str::trim).filter(|reason| !reason.is_empty()),
            (Some(_), Some(_)) => None,
        };
        // A client acting on behalf of an actor does not get more than its scopes cover.
        let is_allowed = actor.has_role(&self.role) && !actor.is_limited();
        let Some(reason) = reason.filter(|_| is_allowed) else {
            let detail = "You may not elevate your rights, or gave no reason.";
            return Err(Error::new(ErrorKind::Forbidden, "forbidden", detail));
        };
        if Revalidation::is_revalidation(request) {
            // The use is recorded already.
            return Ok(actor.elevated());
        }
        let record = self.record.clone();
        let usage = ElevatedRequest {
            actor: actor.clone(),
            reason: reason.to_owned(),
            method: request.method.to_string(),
            path: request.uri.path().to_owned(),
        };
        let recorded = AssertUnwindSafe(async move { record(usage).await }).catch_unwind().await;
        match recorded {
            Ok(Ok(())) => Ok(actor.elevated()),
            Ok(Err(error)) => Err(Error::unavailable().with_source(error)),
            Err(_) => Err(Error::unavailable().with_source("recording the elevation panicked")),
        }
    }
}

impl fmt::Debug for Elevation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Elevation")
            .field("header", &self.header)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}
