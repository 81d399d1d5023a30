//! Items that lie below each other.

/// A tree: a nullable field refers to the item of the same resource that an item lies below.
#[derive(Clone, Debug)]
#[must_use]
pub struct Tree {
    pub(crate) parent: String,
    pub(crate) max_depth: u32,
    pub(crate) max_items: u32,
}

impl Tree {
    /// Each item lies below the one that this field names, or below none where it is null.
    pub fn under(parent: impl Into<String>) -> Self {
        Self { parent: parent.into(), max_depth: 32, max_items: 1_000 }
    }

    /// The most levels that are shown below an item; 32 by default.
    pub const fn max_depth(mut self, levels: u32) -> Self {
        self.max_depth = if levels == 0 { 1 } else { levels };
        self
    }

    /// The most items that are shown below an item at once; 1,000 by default, 10,000 at most.
    pub const fn max_items(mut self, items: u32) -> Self {
        self.max_items = match items {
            0 => 1,
            1..=10_000 => items,
            _ => 10_000,
        };
        self
    }

    /// What the relation to the item above is called.
    pub(super) fn above(&self) -> &str {
        self.parent.strip_suffix("_id").filter(|name| !name.is_empty()).unwrap_or("above")
    }
}

/// A tree whose field is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TreeParent {
    pub(crate) parent: usize,
    pub(crate) max_depth: u32,
    pub(crate) max_items: u32,
}
