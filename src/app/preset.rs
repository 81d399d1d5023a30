//! What an application is for.

/// What an application is for; every setting that follows can be changed on the builder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AppPreset {
    /// On a developer's machine: the docs page, any CORS origin, secrets minted at start.
    Development,
    /// For the world: secrets must be given, CORS is off until told, no docs page unless asked for,
    /// `Strict-Transport-Security`, and time for a balancer to notice a shutdown.
    Production,
    /// In tests: like development, with fixed secrets so that answers repeat, and without compression.
    Testing,
}
