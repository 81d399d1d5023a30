//! Role-based permissions as a table: which role may do which operations on which resource.

use std::sync::Arc;

use super::operation::Operation;
use super::{Decision, Permission, check};

/// A table of which role may do which operations on which resource, in one place for a whole application. An operation
/// that no line allows is denied.
///
/// ```
/// use resourceful::prelude::*;
/// use resourceful::access::RoleTable;
///
/// # #[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
/// # struct Note { id: Uuid, text: String }
/// let rights = RoleTable::new()
///     .allow("reader", "notes", [Operation::List, Operation::Read])
///     .allow("editor", "notes", Operation::ALL);
/// let notes = define_resource::<Note>("notes")
///     .adapter(Memory::new().table("notes"))
///     .permissions(Permissions::all(rights.permission()))
///     .build()?;
/// # let _ = notes; Ok::<(), DefinitionErrors>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct RoleTable {
    grants: Vec<RoleGrant>,
}

#[derive(Clone, Debug)]
struct RoleGrant {
    role: Arc<str>,
    resource: Arc<str>,
    operations: Vec<Operation>,
}

impl RoleTable {
    /// An empty table: nothing is allowed.
    #[must_use]
    pub const fn new() -> Self {
        Self { grants: Vec::new() }
    }

    /// Allows a role these operations on a resource, in whatever tenant the role is held.
    #[must_use]
    pub fn allow(
        mut self,
        role: impl Into<Arc<str>>,
        resource: impl Into<Arc<str>>,
        operations: impl IntoIterator<Item = Operation>,
    ) -> Self {
        let operations = operations.into_iter().collect();
        self.grants.push(RoleGrant { role: role.into(), resource: resource.into(), operations });
        self
    }

    /// The permission that the table gives for the requested resource and operation: one permission serves all of them.
    #[must_use]
    pub fn permission(&self) -> Permission {
        let grants: Arc<[RoleGrant]> = self.grants.clone().into();
        check("role table", move |request| {
            let is_allowed = grants.iter().any(|grant| {
                grant.resource == request.resource
                    && grant.operations.contains(&request.operation)
                    && (request.actor.has_role(&grant.role) || request.actor.has_tenant_role(&grant.role))
            });
            let decision = if is_allowed {
                Decision::allow()
            } else {
                Decision::deny("no line of the role table allows it")
            };
            std::future::ready(Ok(decision))
        })
    }
}
