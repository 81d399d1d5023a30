//! The response cache: responses of queries are reused until something that they are made of changes.

mod bus_invalidation;
mod cached_response;
mod horizon;
mod outbox_invalidation;
mod responses;
mod settings;
mod shared;
mod single_flight;
mod tags;
mod write_observer;

pub use crate::resource::Cache;
pub(crate) use cached_response::{CACHE_STATUS, CachedResponse, Content};
pub(crate) use responses::{CacheStatus, Key, Lookup, ResponseCache, RevalidationPermit, Sharing};
pub use settings::{CacheCounts, QueryCache};
pub(crate) use tags::{Tag, TagVersions};
pub(crate) use write_observer::{ObservedTable, WriteObserver, tenant_of};
