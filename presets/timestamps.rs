//! The timestamps preset: when an item was created and last changed.

use crate::{Preset, ResourceBuilder};

/// Lets the server maintain `created_at` and `updated_at`, two `DateTime<Utc>` fields of the model.
///
/// ```
/// use resourceful::prelude::*;
///
/// #[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
/// struct Note {
///     id: Uuid,
///     text: String,
///     created_at: DateTime<Utc>,
///     updated_at: DateTime<Utc>,
/// }
///
/// let notes = define_resource::<Note>("notes")
///     .adapter(Memory::new().table("notes"))
///     .permissions(Permissions::all(anyone()))
///     .preset(timestamps())
///     .build()?;
/// # let _ = notes;
/// # Ok::<(), DefinitionErrors>(())
/// ```
#[must_use]
pub const fn timestamps() -> Timestamps {
    Timestamps
}

/// The preset of [`timestamps`].
#[derive(Clone, Copy, Debug)]
pub struct Timestamps;

impl Preset for Timestamps {
    fn name(&self) -> &'static str {
        "timestamps"
    }

    fn apply(&self, resource: ResourceBuilder) -> ResourceBuilder {
        resource.timestamps("created_at", "updated_at")
    }
}
