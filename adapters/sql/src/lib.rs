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
mod explained;
mod failure;
mod fetch;
mod filter;
mod include;
mod join;
mod lock;
mod migrate;
mod overrides;
mod place;
mod plan;
mod polling;
#[cfg(feature = "postgres")]
mod postgres;
mod refusal;
mod retry;
mod select;
mod sessions;
mod shape;
#[cfg(feature = "sqlite")]
mod sqlite;
mod storage;
mod unreadable;
mod write;

pub use connect::{PoolMode, Sql, SqlOptions};
