//! SQLite and PostgreSQL as storages of `resourceful`, through sqlx and sea-query.
//!
//! One generic storage over a dialect, type-erased behind `dyn Storage`. The text of a statement is built once for each
//! query shape and reused as a prepared statement; rows are written from their columns straight to the response's JSON.

mod args;
mod catalog;
mod check;
mod commit;
mod connect;
mod connections;
mod cost;
mod create;
mod dialect;
mod explain_tests;
mod failure;
mod fetch;
mod filter;
mod include;
mod keyset;
mod lock;
mod migrate;
mod multi_table_insert;
mod overrides;
mod plan;
mod polling;
#[cfg(feature = "postgres")]
mod postgres;
mod rejection;
mod retry;
mod select;
mod session_mode;
mod shape;
#[cfg(feature = "sqlite")]
mod sqlite;
mod storage;
mod undecodable;
mod write;

pub use connect::{PoolMode, Sql, SqlOptions};
