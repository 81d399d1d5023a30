//! The SQL adapter against real databases, in one binary so that it links once.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test says that it failed by a panic")]

mod agreement;
mod collations;
mod conformance;
mod connecting;
mod existing;
mod failures;
mod generated;
mod heavy;
#[cfg(feature = "postgres")]
mod pgbouncer;
#[cfg(feature = "postgres")]
mod poolers;
mod read_only;
mod recovery;
mod refusals;
mod schema;
mod support;
mod unreadable;
