//! The operations of a resource.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What can be done with a resource; each operation has a permission of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Operation {
    /// Items by filter, sort and page.
    List,
    /// One item by its id.
    Read,
    /// A new item.
    Create,
    /// Some fields of an item (JSON merge patch, RFC 7396).
    Update,
    /// All fields of an item; needs the permission to update, and to create where it creates.
    Replace,
    /// No such item any more.
    Delete,
}

impl Operation {
    /// Every operation.
    pub const ALL: [Self; 6] =
        [Self::List, Self::Read, Self::Create, Self::Update, Self::Replace, Self::Delete];

    /// The operation's name, in lower case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Read => "read",
            Self::Create => "create",
            Self::Update => "update",
            Self::Replace => "replace",
            Self::Delete => "delete",
        }
    }
}
