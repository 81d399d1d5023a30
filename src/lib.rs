mod access;
mod engine;
mod error;
mod http;
mod nearest;
mod query;
mod resource;

pub use access::{
    Actor, Authenticator, BearerTokens, Permission, Permissions, Unauthenticated, anyone, nobody,
    role, signed_in,
};
pub use error::{Error, ErrorKind, Fault, Place};
pub use resource::{
    DefinitionErrors, DefinitionFault, Id, Operation, Relation, Resource, ResourceBuilder,
    belongs_to, define_dynamic_resource, define_resource, has_many,
};
