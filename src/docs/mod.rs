//! Long prose, pulled into the documentation of the modules it belongs to.

#[doc = include_str!("access.md")]
pub mod access {}

#[cfg_attr(feature = "testing", doc = include_str!("cache.md"))]
#[cfg_attr(not(feature = "testing"), doc = "See this page with the feature `testing`.")]
pub mod cache {}

#[doc = include_str!("compatibility.md")]
pub mod compatibility {}

#[cfg_attr(feature = "testing", doc = include_str!("events.md"))]
#[cfg_attr(not(feature = "testing"), doc = "See this page with the feature `testing`.")]
pub mod events {}

#[doc = include_str!("operations.md")]
pub mod operations {}

#[doc = include_str!("queries.md")]
pub mod queries {}

#[cfg_attr(feature = "testing", doc = include_str!("sockets.md"))]
#[cfg_attr(not(feature = "testing"), doc = "See this page with the feature `testing`.")]
pub mod sockets {}

#[doc = include_str!("storages.md")]
pub mod storages {}

#[cfg_attr(feature = "testing", doc = include_str!("streams.md"))]
#[cfg_attr(not(feature = "testing"), doc = "See this page with the feature `testing`.")]
pub mod streams {}

#[doc = include_str!("writes.md")]
pub mod writes {}
