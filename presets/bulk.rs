//! The bulk preset: many items in one request.

use crate::{Bulk, Preset, ResourceBuilder};

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
#[must_use]
pub fn bulk() -> BulkRoutes {
    BulkRoutes(Bulk::default())
}

/// The preset of [`bulk`].
#[derive(Clone, Copy, Debug)]
pub struct BulkRoutes(Bulk);

impl BulkRoutes {
    /// The maximum number of items that a request may name; 1,000 by default.
    #[must_use]
    pub const fn max_items(self, items: usize) -> Self {
        Self(self.0.max_items(items))
    }

    /// The maximum number of items that a filter may affect, whatever the request states; 1,000 by default.
    #[must_use]
    pub const fn max_affected(self, items: usize) -> Self {
        Self(self.0.max_affected(items))
    }
}

impl Preset for BulkRoutes {
    fn name(&self) -> &'static str {
        "bulk"
    }

    fn apply(&self, resource: ResourceBuilder) -> ResourceBuilder {
        resource.bulk(self.0)
    }
}
