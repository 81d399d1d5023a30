//! Application presets.

/// A preset of settings for an environment; every setting can be changed on the builder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AppPreset {
    /// Development on a local machine: the docs page, any CORS origin, secrets generated at start.
    Development,
    /// Production: secrets must be given, CORS is off until configured, no docs page unless enabled,
    /// `Strict-Transport-Security`, and time for a load balancer to notice a shutdown.
    Production,
    /// Tests: like development, with fixed secrets so that responses are reproducible, and without compression.
    Testing,
}
