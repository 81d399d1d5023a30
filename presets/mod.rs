//! Presets: parts of a declaration that many resources share, one per file, which use the public API only.

mod audit;
mod bulk;
mod idempotency;
mod multi_tenant;
mod owned_by;
mod slug;
mod soft_delete;
mod timestamps;
mod tree;

pub use audit::audit;
pub use bulk::bulk;
pub use idempotency::idempotency;
pub use multi_tenant::{MultiTenant, multi_tenant};
pub use owned_by::{OwnedBy, owned_by};
pub use slug::{Slug, slug};
pub use soft_delete::soft_delete;
pub use timestamps::{Timestamps, timestamps};
pub use tree::tree;
