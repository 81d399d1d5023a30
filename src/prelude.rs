//! What a declaration needs, in one line: `use resourceful::prelude::*;`.

pub use std::time::Duration;

pub use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
pub use schemars::JsonSchema;
pub use serde::{Deserialize, Serialize};
pub use uuid::Uuid;
pub use validator::Validate;

#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use crate::Sql;
pub use crate::access::Operation;
pub use crate::presets::{
    audit, bulk, idempotency, multi_tenant, owned_by, slug, soft_delete, timestamps, tree,
};
pub use crate::{
    Actor, App, AppPreset, BearerTokens, Cache, DefinitionErrors, Id, Memory, Permissions, Resource, all_of,
    any_of, anyone, belongs_to, create_app, define_dynamic_resource, define_resource, has_many, nobody,
    owner, role, scope, signed_in, tenant_member, tenant_role,
};
