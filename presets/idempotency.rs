//! Changes that happen once, however often they are asked for.

use std::time::Duration;

use crate::{Idempotency, Preset, ResourceBuilder};

/// Lets clients ask again without fear: a change under an `Idempotency-Key` happens once, and whoever asks again with
/// the same key and the same request is given the same answer, with `Idempotent-Replayed: true` (IETF draft
/// `idempotency-key-header`-07).
///
/// A key belongs to its tenant, its actor, the method and the route. It commits with the change, so that a crash leaves
/// both or neither; what fails leaves nothing, and runs again. Another request under the key is refused (422), one that
/// is under way too (409 with `Retry-After`).
///
/// ```
/// use resourceful::prelude::*;
///
/// # #[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
/// # struct Payment { id: Uuid, cents: i64 }
/// let payments = define_resource::<Payment>("payments")
///     .adapter(Memory::new().table("payments"))
///     .permissions(Permissions::all(signed_in()))
///     .preset(idempotency().required())
///     .build()?;
/// # let _ = payments;
/// # Ok::<(), DefinitionErrors>(())
/// ```
#[must_use]
pub fn idempotency() -> Idempotent {
    Idempotent(Idempotency::default())
}

/// The preset of [`idempotency`].
#[derive(Clone, Copy, Debug)]
pub struct Idempotent(Idempotency);

impl Idempotent {
    /// How long an answer is kept; 24 h by default.
    #[must_use]
    pub fn kept(self, time: Duration) -> Self {
        Self(self.0.kept(time))
    }

    /// Refuses changes without a key (400).
    #[must_use]
    pub fn required(self) -> Self {
        Self(self.0.required())
    }
}

impl Preset for Idempotent {
    fn name(&self) -> &'static str {
        "idempotency"
    }

    fn apply(&self, resource: ResourceBuilder) -> ResourceBuilder {
        resource.idempotent(self.0)
    }
}
