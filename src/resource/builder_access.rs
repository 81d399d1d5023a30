//! Settings of a declaration that decide who may do what, and who sees which fields.

use serde_json::Value as Json;

use super::ResourceBuilder;
use super::definition::{Fill, Policy};
use crate::access::{Operation, Permission, Permissions};

impl ResourceBuilder {
    /// The permission of each operation. Mandatory, for every operation: there is no default.
    pub fn permissions(mut self, permissions: Permissions) -> Self {
        self.permissions = Some(permissions);
        self
    }

    /// A permission that every operation requires beside its own. Rows that it filters out are out of reach on any path.
    ///
    /// ```
    /// use resourceful::prelude::*;
    /// use resourceful::access::rows;
    ///
    /// # #[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
    /// # struct Note { id: Uuid, archived: bool }
    /// let notes = define_resource::<Note>("notes")
    ///     .adapter(Memory::new().table("notes"))
    ///     .permissions(Permissions::all(anyone()))
    ///     .policy(rows(serde_json::json!({"archived": false})))
    ///     .build()?;
    /// # let _ = notes; Ok::<(), DefinitionErrors>(())
    /// ```
    pub fn policy(self, permission: Permission) -> Self {
        self.policy_on(Operation::ALL, permission)
    }

    /// A policy on some operations only; otherwise as [`policy`](Self::policy).
    pub fn policy_on(
        mut self,
        operations: impl IntoIterator<Item = Operation>,
        permission: Permission,
    ) -> Self {
        self.policies.push(Policy { operations: operations.into_iter().collect(), permission });
        self
    }

    /// Fields that exist for these callers only. For all other callers they are absent from responses, and filtering,
    /// sorting, searching or setting them is refused. The permission is about the caller, not about rows.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a rule is written in place, as every other setting is"
    )]
    pub fn visible_to<N: Into<String>>(
        mut self,
        fields: impl IntoIterator<Item = N>,
        permission: Permission,
    ) -> Self {
        self.visible_to.extend(fields.into_iter().map(|field| (field.into(), permission.clone())));
        self
    }

    /// Fields that only these callers may set; other callers are refused (403).
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a rule is written in place, as every other setting is"
    )]
    pub fn writable_by<N: Into<String>>(
        mut self,
        fields: impl IntoIterator<Item = N>,
        permission: Permission,
    ) -> Self {
        self.writable_by.extend(fields.into_iter().map(|field| (field.into(), permission.clone())));
        self
    }

    /// Fields that show these callers this value instead of the stored one. The callers cannot filter or sort by it.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a rule is written in place, as every other setting is"
    )]
    pub fn redacted_for<N: Into<String>>(
        mut self,
        fields: impl IntoIterator<Item = N>,
        permission: Permission,
        value: impl Into<Json>,
    ) -> Self {
        let value = value.into();
        let fields = fields.into_iter().map(|field| (field.into(), (permission.clone(), value.clone())));
        self.redacted_for.extend(fields);
        self
    }

    /// Fields that clients neither see nor set: they hold their default, or a value that the application sets.
    pub fn hidden<N: Into<String>>(mut self, fields: impl IntoIterator<Item = N>) -> Self {
        self.hidden.extend(fields.into_iter().map(Into::into));
        self
    }

    /// Sets a field from the creating actor, and never from a body.
    pub fn fill(mut self, field: impl Into<String>, with: Fill) -> Self {
        let field = field.into();
        self.claim(format!("the field `{field}`"), ".fill(…)");
        self.fills.push((field, with));
        self
    }
}
