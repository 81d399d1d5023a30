//! Many items in one request.

/// How much one request may do to a collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Bulk {
    pub(crate) max_items: usize,
    pub(crate) max_affected: usize,
}

impl Default for Bulk {
    fn default() -> Self {
        Self { max_items: 1_000, max_affected: 1_000 }
    }
}

impl Bulk {
    /// The most items that a request may name; 1,000 by default. The application's
    /// [`body_limit`](crate::AppBuilder::body_limit) holds as well.
    pub const fn max_items(mut self, items: usize) -> Self {
        self.max_items = items;
        self
    }

    /// The most items that a filter may reach, whatever the request says; 1,000 by default.
    pub const fn max_affected(mut self, items: usize) -> Self {
        self.max_affected = items;
        self
    }
}
