//! The trait of presets: reusable parts of a declaration.

use std::fmt;

use super::ResourceBuilder;

/// A named, reusable part of a declaration. Everything that a preset does, a declaration could state itself.
///
/// ```
/// use resourceful::{Preset, ResourceBuilder};
///
/// /// Pages of a hundred.
/// #[derive(Debug)]
/// struct LongPages;
///
/// impl Preset for LongPages {
///     fn name(&self) -> &'static str {
///         "long_pages"
///     }
///
///     fn apply(&self, resource: ResourceBuilder) -> ResourceBuilder {
///         resource.limits(100, 1_000)
///     }
/// }
/// ```
pub trait Preset: fmt::Debug {
    /// The preset's name, for messages.
    fn name(&self) -> &'static str;

    /// Adds the preset to a declaration.
    fn apply(&self, resource: ResourceBuilder) -> ResourceBuilder;
}
