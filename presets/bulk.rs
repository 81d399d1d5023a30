//! The bulk preset: many items in one request.

use crate::resource::Bulk;
use crate::{Preset, ResourceBuilder};

/// Adds `POST`, `PATCH` and `DELETE /products/bulk`: many items in one request, all of them or none (`?mode=atomic`,
/// the default), or each by itself (`?mode=partial`). Every item passes the same checks as on the single routes:
/// permissions, field rules, validation, hooks, audit, events.
///
/// ```
/// use resourceful::prelude::*;
///
/// # #[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
/// # struct Note { id: Uuid, text: String }
/// let notes = define_resource::<Note>("notes")
///     .adapter(Memory::new().table("notes"))
///     .permissions(Permissions::all(signed_in()))
///     .preset(bulk().max_items(200))
///     .build()?;
/// # let _ = notes;
/// # Ok::<(), DefinitionErrors>(())
/// ```
pub fn bulk() -> Bulk {
    Bulk::default()
}

impl Preset for Bulk {
    fn name(&self) -> &'static str {
        "bulk"
    }

    fn apply(&self, resource: ResourceBuilder) -> ResourceBuilder {
        resource.bulk(*self)
    }
}
