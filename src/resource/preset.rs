//! The trait of presets: reusable parts of a declaration.

use std::fmt;

use resourceful_contract::{Field, FieldType};

use super::ResourceBuilder;
use super::verify::Faults;

/// A named, reusable part of a declaration. Everything that a preset does, a declaration could state itself: fields that
/// only the server sets, policies, hooks, actions, [list parameters](crate::resource::ListParameter),
/// [scheduled work](ResourceBuilder::scheduled). The library's own presets are made of this trait alone.
///
/// ```
/// use resourceful::resource::{Model, Preset, PresetFaults, ResourceBuilder};
///
/// /// Shows which items are the newest: lists can be sorted by `created_at`.
/// #[derive(Debug)]
/// struct NewestFirst;
///
/// impl Preset for NewestFirst {
///     fn name(&self) -> &'static str {
///         "newest_first"
///     }
///
///     fn apply(&self, resource: ResourceBuilder) -> ResourceBuilder {
///         resource.index(["created_at"])
///     }
///
///     fn verify(&self, model: &Model<'_>, faults: &mut PresetFaults<'_>) {
///         if model.field("created_at").is_none() {
///             faults.push("created_at", "the model has no time of creation", "created_at: DateTime<Utc>");
///         }
///     }
/// }
/// ```
pub trait Preset: fmt::Debug + Send + Sync + 'static {
    /// The preset's name, for messages.
    fn name(&self) -> &'static str;

    /// Adds the preset to a declaration.
    fn apply(&self, resource: ResourceBuilder) -> ResourceBuilder;

    /// Verifies that the model has what the preset needs, when the declaration is built. Every fault names its fix. Nothing
    /// is required by default.
    fn verify(&self, _model: &Model<'_>, _faults: &mut PresetFaults<'_>) {}
}

/// The model of a resource, as a preset verifies it.
#[derive(Clone, Copy, Debug)]
pub struct Model<'a> {
    pub(super) fields: &'a [Field],
}

impl<'a> Model<'a> {
    /// The field of this name, as clients write it.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<ModelField<'a>> {
        self.fields().find(|field| field.name() == name)
    }

    /// Every field, in the order of the model.
    pub fn fields(&self) -> impl Iterator<Item = ModelField<'a>> {
        self.fields.iter().map(ModelField)
    }
}

/// A field of a model.
#[derive(Clone, Copy, Debug)]
pub struct ModelField<'a>(&'a Field);

impl ModelField<'_> {
    /// Its name, as clients write it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The type of its values.
    #[must_use]
    pub const fn field_type(&self) -> FieldType {
        self.0.field_type
    }

    /// Whether it may be null.
    #[must_use]
    pub const fn is_nullable(&self) -> bool {
        self.0.nullable
    }

    /// Whether it has a default, so that a body may omit it.
    #[must_use]
    pub fn has_default(&self) -> bool {
        self.0.default().is_some()
    }
}

/// Collects the faults that a preset finds in a model.
pub struct PresetFaults<'a> {
    pub(super) faults: &'a mut Faults,
}

impl fmt::Debug for PresetFaults<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PresetFaults").finish_non_exhaustive()
    }
}

impl PresetFaults<'_> {
    /// Adds a fault of a field, with the line that fixes it.
    pub fn push(&mut self, field: &str, message: impl Into<String>, help: impl Into<String>) {
        self.faults.push(Some(field), message, help);
    }
}
