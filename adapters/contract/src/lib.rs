//! The contract between the `resourceful` engine and its storage, cache and bus adapters.
//!
//! The engine talks to every storage with the same few plain values:
//!
//! - a [`Schema`] describes a resource's rows and the table that holds them,
//! - a [`Query`] selects rows; they are returned as JSON text plus the requested keys ([`Rows`]),
//! - a [`ChangeSet`] holds the changes of one commit, each with its [`Guard`];
//!   a [`Storage`] applies all of them or none,
//! - [`Capabilities`] state what a storage supports, before any request is made,
//! - a [`Bus`] carries messages between the nodes of an application,
//! - a [`StorageError`] reports what went wrong, as kinds that the engine can act on.
//!
//! Nothing here depends on HTTP or a database driver. The conformance suite (feature `conformance`) tests an implementation
//! against the semantics documented here.

#![cfg_attr(docsrs, feature(doc_cfg))]

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
pub use storage::{Answer, Mismatch, NotificationStream, SqlDialect, Storage, Table};
pub use value::{Malformed, Value, fold, json};

/// The skeleton of an adapter, compiled with the documentation's code.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct AdapterGuide;
