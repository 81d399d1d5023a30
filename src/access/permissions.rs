//! The permissions of a resource, by operation.

use std::fmt;

use super::Permission;
use super::operation::Operation;

/// The permission that each operation of a resource requires.
///
/// There is no default: an operation without a permission is a fault of the declaration.
///
/// ```
/// use resourceful::Permissions;
/// use resourceful::access::{anyone, nobody, role};
///
/// let permissions = Permissions::read(anyone()).write(role("editor")).delete(nobody());
/// # let _ = permissions;
/// ```
#[derive(Clone, Default)]
pub struct Permissions {
    list: Option<Permission>,
    read: Option<Permission>,
    create: Option<Permission>,
    update: Option<Permission>,
    delete: Option<Permission>,
}

impl Permissions {
    /// The permission to list items and to read one; nothing else is set.
    #[must_use]
    pub fn read(permission: Permission) -> Self {
        Self { list: Some(permission.clone()), read: Some(permission), ..Self::default() }
    }

    /// The same permission for every operation.
    #[must_use]
    pub fn all(permission: Permission) -> Self {
        Self::read(permission.clone()).write(permission)
    }

    /// The permission to create, update, replace and delete.
    #[must_use]
    pub fn write(self, permission: Permission) -> Self {
        self.create(permission.clone()).update(permission.clone()).delete(permission)
    }

    /// The permission to list items.
    #[must_use]
    pub fn list(mut self, permission: Permission) -> Self {
        self.list = Some(permission);
        self
    }

    /// The permission to create an item.
    #[must_use]
    pub fn create(mut self, permission: Permission) -> Self {
        self.create = Some(permission);
        self
    }

    /// The permission to change an item, in part or as a whole.
    #[must_use]
    pub fn update(mut self, permission: Permission) -> Self {
        self.update = Some(permission);
        self
    }

    /// The permission to delete an item.
    #[must_use]
    pub fn delete(mut self, permission: Permission) -> Self {
        self.delete = Some(permission);
        self
    }

    /// The permission that an operation requires; `None` where the declaration has none.
    pub(crate) const fn of(&self, operation: Operation) -> Option<&Permission> {
        match operation {
            Operation::List => self.list.as_ref(),
            Operation::Read => self.read.as_ref(),
            Operation::Create => self.create.as_ref(),
            Operation::Update | Operation::Replace => self.update.as_ref(),
            Operation::Delete => self.delete.as_ref(),
        }
    }
}

impl fmt::Debug for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for operation in Operation::ALL {
            map.entry(&operation.name(), &self.of(operation));
        }
        map.finish()
    }
}
