//! Who asks, and what they may.

mod actor;
mod authenticator;
mod check;
mod permission;
mod permissions;
mod requirement;
mod rule;

pub use actor::{Actor, ActorKind, RoleHierarchy};
pub use authenticator::{Authenticator, BearerTokens, Unauthenticated};
pub use check::{Asking, CheckError, Decision};
pub use permission::{
    Permission, all_of, any_of, anyone, check, elevated, nobody, not, owner, role, rows, same_tenant, scope,
    signed_in, tenant_member, tenant_role, when,
};
pub use permissions::Permissions;

pub(crate) use requirement::Requirement;
pub(crate) use rule::{Rule, Step, Verdict};
