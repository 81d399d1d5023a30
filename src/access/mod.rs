//! Who asks, and whether they may.

mod actor;
mod authenticator;
mod permission;

pub use actor::Actor;
pub use authenticator::{Authenticator, BearerTokens, Unauthenticated};
pub use permission::{Permission, Permissions, anyone, nobody, role, signed_in};

pub(crate) use permission::{Decision, Requirement};
