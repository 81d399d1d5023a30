//! Trees: items of one resource in a hierarchy.

/// A tree, the preset of [`tree`](crate::presets::tree): a nullable field refers to an item's parent, in the same resource.
#[derive(Clone, Debug)]
#[must_use]
pub struct Tree {
    pub(crate) parent: String,
    pub(crate) max_depth: u32,
    pub(crate) max_items: u32,
}

impl Tree {
    /// A tree whose items refer to their parent by this field, which is null for root items.
    pub fn new(parent: impl Into<String>) -> Self {
        Self { parent: parent.into(), max_depth: 32, max_items: 1_000 }
    }

    /// The maximum number of levels of the tree; 32 by default. An item moves with its descendants, whose resulting
    /// depth is not checked.
    pub const fn max_depth(mut self, levels: u32) -> Self {
        self.max_depth = if levels == 0 { 1 } else { levels };
        self
    }

    /// The maximum number of items that `subtree` returns; 1,000 by default, 10,000 at most.
    pub const fn max_items(mut self, items: u32) -> Self {
        self.max_items = match items {
            0 => 1,
            1..=10_000 => items,
            _ => 10_000,
        };
        self
    }

    /// The field that refers to the parent.
    pub fn parent_field(&self) -> &str {
        &self.parent
    }

    /// The maximum number of levels.
    pub const fn levels(&self) -> u32 {
        self.max_depth
    }

    /// The name of the relation to the parent item.
    pub(super) fn parent_relation(&self) -> &str {
        self.parent.strip_suffix("_id").filter(|name| !name.is_empty()).unwrap_or("above")
    }
}

/// A tree whose parent field is resolved to its position.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TreeParent {
    pub(crate) parent: usize,
    pub(crate) max_depth: u32,
    pub(crate) max_items: u32,
}
