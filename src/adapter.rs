//! Storages, caches and buses: the adapters of this library, and the traits that an adapter implements.
//!
//! An adapter of another technology implements [`Storage`], [`CacheStore`] or [`Bus`] of the crate `resourceful-contract`, and
//! runs its conformance suite. It needs nothing of this crate.

pub use resourceful_contract::{Bus, CacheStore, FieldType, Migration, SqlDialect, Storage, Table};
pub use resourceful_memory::{Memory, MemoryBus, MemoryCache};
#[cfg(feature = "redis")]
pub use resourceful_redis::Redis;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use resourceful_sql::{PoolMode, Sql};
