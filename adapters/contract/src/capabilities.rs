//! Optional capabilities of a storage, declared once and read when an application is built.

/// The optional features of a storage, beyond the contract's core.
///
/// Everything not named here is mandatory. The engine reads this when an application is built: a declaration that needs a
/// missing capability is refused there, and never found out by a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// Whether rows survive a restart of the process.
    pub durable: bool,
    /// Whether [`Filter::Related`](crate::Filter::Related) and includes work between tables of this storage.
    pub relations: bool,
    /// Whether foreign keys declared by a schema are enforced.
    pub foreign_keys: bool,
    /// Whether [`Count::Estimated`](crate::Count::Estimated) is cheaper than an exact count.
    pub estimates: bool,
}

impl Capabilities {
    /// The minimum: none of the optional capabilities.
    #[must_use]
    pub const fn core() -> Self {
        Self { durable: false, relations: false, foreign_keys: false, estimates: false }
    }
}
