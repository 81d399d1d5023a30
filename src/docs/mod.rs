//! Long prose, pulled into the documentation of the modules it belongs to.

#[doc = include_str!("access.md")]
pub mod access {}

#[doc = include_str!("cache.md")]
pub mod cache {}

#[doc = include_str!("compatibility.md")]
pub mod compatibility {}

#[doc = include_str!("events.md")]
pub mod events {}

#[doc = include_str!("glossary.md")]
pub mod glossary {}

#[doc = include_str!("operations.md")]
pub mod operations {}

#[doc = include_str!("queries.md")]
pub mod queries {}

#[doc = include_str!("sockets.md")]
pub mod sockets {}

#[doc = include_str!("storages.md")]
pub mod storages {}

#[doc = include_str!("streams.md")]
pub mod streams {}

#[doc = include_str!("writes.md")]
pub mod writes {}
