//! Rows that belong to a tenant, and walls between tenants.

use crate::{Fill, Operation, Preset, ResourceBuilder, same_tenant};

/// Puts every row into a tenant: this field of the model holds which, is set from the creator's tenant and never from
/// a body, and on no path does anyone see or touch a row of another tenant. Who is in no tenant sees nothing.
///
/// What is [`unique`](ResourceBuilder::unique) is so within a tenant, unless it is
/// [`unique_globally`](ResourceBuilder::unique_globally).
///
/// An actor with raised rights and no tenant of its own passes the walls, but cannot create: a row needs a tenant.
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
    /// Operations that the walls do not stand in the way of: with [`Operation::Read`] and [`Operation::List`] the rows
    /// of every tenant can be seen, and only one's own changed.
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
        let walled = Operation::ALL.into_iter().filter(|operation| !self.open.contains(operation));
        resource
            .index([self.field.clone()])
            .fill(self.field.clone(), Fill::Tenant)
            .unique_within(self.field.clone())
            .policy_on(walled, same_tenant(self.field.as_str()))
    }
}
