//! The idempotency preset: writes that take effect once, however often the request is sent.

use crate::resource::Idempotency;
use crate::{Preset, ResourceBuilder};

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
pub fn idempotency() -> Idempotency {
    Idempotency::default()
}

impl Preset for Idempotency {
    fn name(&self) -> &'static str {
        "idempotency"
    }

    fn apply(&self, resource: ResourceBuilder) -> ResourceBuilder {
        resource.idempotent(*self)
    }
}
