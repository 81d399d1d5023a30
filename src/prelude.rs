//! What a declaration needs, in one line: `use resourceful::prelude::*;`.

pub use std::time::Duration;

pub use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
pub use schemars::JsonSchema;
pub use serde::{Deserialize, Serialize};
pub use uuid::Uuid;
pub use validator::Validate;

pub use crate::access::{
    Actor, BearerTokens, Operation, Permissions, all_of, any_of, anyone, nobody, owner, role, scope,
    signed_in, tenant_member, tenant_role,
};
pub use crate::adapter::Memory;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use crate::adapter::Sql;
pub use crate::app::{App, AppPreset, BuildError, create_app};
pub use crate::presets::{
    audit, bulk, idempotency, multi_tenant, owned_by, slug, soft_delete, timestamps, tree,
};
pub use crate::resource::{
    Cache, DefinitionErrors, Id, Resource, belongs_to, define_dynamic_resource, define_resource, has_many,
};
