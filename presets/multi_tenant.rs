//! The multi-tenancy preset: rows belong to tenants, and tenants are isolated from each other.

use crate::access::same_tenant;
use crate::resource::Fill;
use crate::{Operation, Preset, ResourceBuilder};

/// Assigns every row to a tenant: this field of the model holds the tenant's id, is set from the creator's tenant and
/// never from a body, and no caller can see or change a row of another tenant, on any path. Callers without a tenant
/// see no rows.
///
/// [`unique`](ResourceBuilder::unique) fields are unique within a tenant, unless they are
/// [`unique_globally`](ResourceBuilder::unique_globally).
///
/// An elevated actor without a tenant of its own is not limited to a tenant, but cannot create rows: a row needs a
/// tenant.
///
/// ```
/// use resourceful::prelude::*;
///
/// #[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
/// struct Order {
///     id: Uuid,
///     org_id: String,
///     total_cents: i64,
/// }
///
/// let orders = define_resource::<Order>("orders")
///     .adapter(Memory::new().table("orders"))
///     .permissions(Permissions::all(signed_in()))
///     .preset(multi_tenant("org_id"))
///     .build()?;
/// # let _ = orders;
/// # Ok::<(), DefinitionErrors>(())
/// ```
#[must_use]
pub fn multi_tenant(field: impl Into<String>) -> MultiTenant {
    MultiTenant { field: field.into(), open: Vec::new() }
}

/// The preset of [`multi_tenant`].
#[derive(Clone, Debug)]
pub struct MultiTenant {
    field: String,
    open: Vec<Operation>,
}

impl MultiTenant {
    /// Operations that are not limited to the caller's tenant: with [`Operation::Read`] and [`Operation::List`] callers
    /// see the rows of every tenant, and can change only those of their own.
    #[must_use]
    pub fn open(mut self, operations: impl IntoIterator<Item = Operation>) -> Self {
        self.open.extend(operations);
        self
    }
}

impl Preset for MultiTenant {
    fn name(&self) -> &'static str {
        "multi_tenant"
    }

    fn apply(&self, resource: ResourceBuilder) -> ResourceBuilder {
        let isolated = Operation::ALL.into_iter().filter(|operation| !self.open.contains(operation));
        resource
            .index([self.field.clone()])
            .fill(self.field.clone(), Fill::Tenant)
            .unique_within(self.field.clone())
            .policy_on(isolated, same_tenant(self.field.as_str()))
    }
}
