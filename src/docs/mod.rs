//! Long prose, pulled into the documentation of the modules it belongs to.

#[doc = include_str!("access.md")]
pub mod access {}

#[doc = include_str!("queries.md")]
pub mod queries {}

#[doc = include_str!("storages.md")]
pub mod storages {}

#[doc = include_str!("writes.md")]
pub mod writes {}
