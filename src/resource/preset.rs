//! What a preset is: a declaration to add to another one.

use std::fmt;

use super::ResourceBuilder;

/// A part of a declaration with a name of its own: everything that it does, a user could write out.
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
