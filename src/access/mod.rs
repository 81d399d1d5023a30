//! Authentication and authorization: actors, credentials and permissions.

mod actor;
mod api_key;
mod authenticator;
mod check;
mod grants;
#[cfg(feature = "jwt")]
mod jwks;
#[cfg(feature = "jwt")]
mod jwt;
mod operation;
mod origin;
mod permission;
mod permissions;
mod requirement;
mod role_table;
mod rule;
mod scheme;
mod session;
mod shared_sessions;
mod tenancy;
#[cfg(feature = "jwt")]
mod token_cache;

pub use actor::{Actor, ActorKind, RoleHierarchy};
pub use api_key::{ApiKey, ApiKeyStore, ApiKeys, MemoryApiKeys};
pub use authenticator::{Authenticator, BearerTokens, Unauthenticated};
pub use check::{CheckError, CheckRequest, Decision};
pub use grants::{Grant, Grants};
#[cfg(feature = "jwt")]
pub use jwks::Jwks;
#[cfg(feature = "jwt")]
pub use jwt::{Claims, Jwt, JwtAlgorithm};
pub use operation::Operation;
pub use permission::{
    Permission, all_of, any_of, anyone, check, elevated, nobody, not, owner, role, rows, same_tenant, scope,
    signed_in, tenant_member, tenant_role, when,
};
pub use permissions::Permissions;
pub use role_table::RoleTable;
pub use scheme::SecurityScheme;
pub use session::{MemorySessions, Session, SessionDigest, SessionStore, Sessions};
pub use shared_sessions::SharedSessions;
pub use tenancy::{ElevatedRequest, Elevation, Membership, Tenancy};

pub(crate) use authenticator::Revalidation;
pub(crate) use grants::{AbortOnDrop, GrantsWatcher};
pub(crate) use origin::{PublicOrigins, is_own_origin};
#[cfg(feature = "testing")]
pub(crate) use permission::Rule as Declared;
pub(crate) use requirement::{Alternative, Requirement};
pub(crate) use rule::{Rule, Step, Verdict};
pub(crate) use scheme::CredentialLocation;
