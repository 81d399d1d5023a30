//! The ownership preset: rows belong to the actor that created them.

use crate::access::{any_of, owner};
use crate::resource::Fill;
use crate::{Operation, Permission, Preset, ResourceBuilder};

/// Gives every row an owner: this field of the model holds the creator's id, is never set from a body, and only the
/// owner can see or change the row. A row without an owner belongs to no caller.
///
/// ```
/// use resourceful::prelude::*;
///
/// #[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
/// struct Note {
///     id: Uuid,
///     user_id: Option<String>,
///     text: String,
/// }
///
/// // Everyone may read, and only the owner may change.
/// let notes = define_resource::<Note>("notes")
///     .adapter(Memory::new().table("notes"))
///     .permissions(Permissions::read(anyone()).write(signed_in()))
///     .preset(owned_by("user_id").open([Operation::Read, Operation::List]))
///     .build()?;
/// # let _ = notes;
/// # Ok::<(), DefinitionErrors>(())
/// ```
#[must_use]
pub fn owned_by(field: impl Into<String>) -> OwnedBy {
    OwnedBy { field: field.into(), open: Vec::new(), alternatives: Vec::new() }
}

/// The preset of [`owned_by`].
#[derive(Clone, Debug)]
pub struct OwnedBy {
    field: String,
    open: Vec<Operation>,
    alternatives: Vec<Permission>,
}

impl OwnedBy {
    /// Operations that callers other than the owner can perform as well.
    #[must_use]
    pub fn open(mut self, operations: impl IntoIterator<Item = Operation>) -> Self {
        self.open.extend(operations);
        self
    }

    /// Admits further callers in addition to the owner, such as `tenant_role("admin")`. The resource's permissions
    /// apply to them as well.
    #[must_use]
    pub fn or(mut self, permission: Permission) -> Self {
        self.alternatives.push(permission);
        self
    }
}

impl Preset for OwnedBy {
    fn name(&self) -> &'static str {
        "owned_by"
    }

    fn apply(&self, resource: ResourceBuilder) -> ResourceBuilder {
        let restricted = Operation::ALL.into_iter().filter(|operation| !self.open.contains(operation));
        resource.index([self.field.clone()]).fill(self.field.clone(), Fill::Actor).policy_on(
            restricted,
            any_of([owner(self.field.as_str())].into_iter().chain(self.alternatives.iter().cloned())),
        )
    }
}
