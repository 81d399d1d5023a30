#![doc = include_str!("../README.md")]

mod access;
mod app;
mod audit;
mod authz;
mod cache;
mod catalog;
mod clock;
mod digest;
pub mod docs;
mod engine;
mod error;
mod events;
mod http;
mod live;
mod nearest;
mod openapi;
#[cfg(any(feature = "jwt", feature = "webhooks"))]
mod outbound;
mod outbox;
pub mod prelude;
#[path = "../presets/mod.rs"]
pub mod presets;
#[doc = include_str!("docs/problems.md")]
pub mod problems {}
mod query;
mod resource;
mod tables;
#[cfg(feature = "testing")]
pub mod testing;

pub use access::{
    Actor, ActorKind, ApiKey, ApiKeyStore, ApiKeys, Authenticator, BearerTokens, CheckError, CheckRequest,
    Decision, ElevatedRequest, Elevation, Grant, Grants, Membership, MemoryApiKeys, MemorySessions,
    Operation, Permission, Permissions, RoleHierarchy, RoleTable, SecurityScheme, Session, SessionDigest,
    SessionStore, Sessions, SharedSessions, Tenancy, Unauthenticated, all_of, any_of, anyone, check,
    elevated, nobody, not, owner, role, rows, same_tenant, scope, signed_in, tenant_member, tenant_role,
    when,
};
#[cfg(feature = "jwt")]
pub use access::{Claims, Jwks, Jwt, JwtAlgorithm};
pub use app::{App, AppBuilder, AppPreset, Background, ConnectionLimits, DeadLetter, create_app};
pub use audit::AuditVerdict;
pub use cache::{CacheCounts, QueryCache};
pub use engine::{ExplainedStep, Explanation, Loader, Outcome, RuleOutcome};
pub use error::{Error, ErrorKind, Fault, FaultLocation};
#[cfg(feature = "webhooks")]
pub use events::Webhooks;
pub use events::{Delivery, Subscriber};
pub use live::Streams;
pub use outbox::Event;
pub use resource::{
    Action, ActionHandler, AuditTrail, Bulk, Cache, Change, DefinitionErrors, DefinitionFault, Fill, Hook,
    Id, Idempotency, Next, NoInput, Preset, Relation, Resource, ResourceBuilder, SoftDelete, StateMachine,
    Tree, belongs_to, define_dynamic_resource, define_resource, has_many,
};
pub use resourceful_contract::{Bus, CacheStore, Migration, Storage, Table};
pub use resourceful_memory::{Memory, MemoryBus, MemoryCache};
#[cfg(feature = "redis")]
pub use resourceful_redis::Redis;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use resourceful_sql::{PoolMode, Sql};

/// The code in the skill for coding agents, compiled and run with the documentation's.
#[cfg(doctest)]
#[doc = include_str!("../skills/resourceful/SKILL.md")]
struct Skill;
