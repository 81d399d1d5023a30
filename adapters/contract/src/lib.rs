//! What a storage implements to stand under `resourceful`.
//!
//! The engine above speaks to every storage in the same few words, all of them plain values:
//!
//! - a [`Schema`] says what a resource's rows look like and where they are kept,
//! - a [`Query`] asks for rows; they come back as JSON text plus the keys that were asked for ([`Rows`]),
//! - a [`ChangeSet`] says what shall be so after a commit, each change with its [`Guard`];
//!   a [`Storage`] makes all of it so or changes nothing,
//! - [`Capabilities`] say what a storage can do, before any request is made,
//! - a [`Bus`] tells the nodes of an application what they have to know soon,
//! - a [`StorageError`] says what went wrong, in kinds that the engine can act on.
//!
//! Nothing here knows HTTP or a database driver. The conformance suite (feature `conformance`) holds an
//! implementation against the semantics written in these pages.

mod bus;
mod cache_store;
mod capabilities;
mod change;
#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
mod migration;
mod query;
mod report;
mod rows;
pub mod schema;
mod storage;
mod value;

pub use bus::{Bus, BusEvent, Consumer, Listener, MAX_DELIVERIES, QueueDelivery};
pub use cache_store::CacheStore;
pub use capabilities::Capabilities;
pub use change::{Change, ChangeSet, Committed, Guard, RowOutcome, Then, Write};
pub use error::{ErrorKind, StorageError};
pub use migration::{Migrated, Migration};
pub use query::{Count, Filter, Include, Position, Query, RelatedBy, Sort, Test};
pub use report::Report;
pub use rows::{Rows, Total, Version};
pub use schema::{Cardinality, Field, FieldType, IdSource, Index, Link, Reference, ScalarType, Schema};
pub use storage::{Answer, Mismatch, NotificationStream, Storage, Table};
pub use value::{Malformed, Value, fold, json};
