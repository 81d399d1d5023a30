//! SQLite and PostgreSQL as storages of `resourceful`, through sqlx and sea-query.
//!
//! One generic storage over a dialect, type-erased behind `dyn Storage`. The text of a statement is built once for each
//! query shape and reused as a prepared statement; rows are written from their columns straight to the response's JSON.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod args;
mod catalog;
mod column_overrides;
mod commit;
mod connect;
mod connections;
mod create;
mod dialect;
mod error_mapping;
mod explain_tests;
mod fetch;
mod filter;
mod include;
mod keyset;
mod lock;
mod migrate;
mod multi_table_insert;
mod notification_polling;
mod plan;
#[cfg(feature = "postgres")]
mod postgres;
mod query_cost;
mod retry;
mod schema_check;
mod select;
mod session_mode;
#[cfg(feature = "sqlite")]
mod sqlite;
mod statement_shape;
mod storage;
mod undecodable;
mod violated_fields;
mod write;

pub use connect::{PoolMode, Sql, SqlOptions};
