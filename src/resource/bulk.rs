//! Bulk requests: many items in one request.

/// Bulk routes and their limits, the preset of [`bulk`](crate::presets::bulk).
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
    /// The maximum number of items that a request may name; 1,000 by default. The application's
    /// [`body_limit`](crate::AppBuilder::body_limit) applies as well.
    pub const fn max_items(mut self, items: usize) -> Self {
        self.max_items = items;
        self
    }

    /// The maximum number of items that a filter may affect, whatever the request states; 1,000 by default.
    pub const fn max_affected(mut self, items: usize) -> Self {
        self.max_affected = items;
        self
    }
}
