//! The idempotency preset: writes that take effect once, however often the request is sent.

use std::time::Duration;

use crate::{Idempotency, Preset, ResourceBuilder};

/// Makes writes safe to repeat: a write with an `Idempotency-Key` takes effect once, and a repeated request with the
/// same key gets the same response, with `Idempotent-Replayed: true` (IETF draft `idempotency-key-header`-07).
///
/// A key belongs to its tenant, its actor, the method and the route. It is committed with the change, so that a crash
/// leaves both or neither; a failed write leaves nothing, and its repetition runs again. A different request with the
/// same key is refused (422), and so is a request while another with the key is in progress (409 with `Retry-After`).
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
    /// How long a response is stored for replay; 24 h by default.
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
