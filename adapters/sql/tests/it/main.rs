//! The SQL adapter against real databases, in one binary so that it links once.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test says that it failed by a panic")]

mod collations;
mod conformance;
mod connect_errors;
mod differential;
mod existing_tables;
mod failures;
mod generated_columns;
mod heavy_queries;
#[cfg(feature = "postgres")]
mod pgbouncer;
#[cfg(feature = "postgres")]
mod poolers;
mod read_only;
mod recovery;
mod rejections;
mod schema;
mod support;
mod undecodable;
