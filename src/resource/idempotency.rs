//! Idempotency keys: writes that take effect once, however often the request is sent.

use std::time::Duration;

/// Writes with an `Idempotency-Key` (IETF draft `idempotency-key-header`-07), the preset of
/// [`idempotency`](crate::presets::idempotency).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Idempotency {
    pub(crate) retention: Duration,
    pub(crate) required: bool,
}

impl Default for Idempotency {
    fn default() -> Self {
        Self { retention: Duration::from_secs(24 * 60 * 60), required: false }
    }
}

impl Idempotency {
    /// How long a response is stored for replay; 24 h by default, and at least a minute.
    pub fn retention(mut self, time: Duration) -> Self {
        self.retention = time.max(Duration::from_secs(60));
        self
    }

    /// Refuses changes without a key (400).
    pub const fn required(mut self) -> Self {
        self.required = true;
        self
    }
}
