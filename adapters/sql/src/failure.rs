//! What went wrong, in the contract's kinds.

use resourceful_contract::{ErrorKind, Schema, StorageError};
use sqlx::error::ErrorKind as Violation;

use crate::dialect::{Dialect, Unreadable};

/// A failure that is of no row, and after which the same statements may succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(feature = "postgres"),
    expect(dead_code, reason = "SQLite prepares again by itself, and its connections are not lost")
)]
pub(crate) enum Transient {
    /// The connection's prepared statements are gone, or answer other types than their tables have now.
    StaleStatement,
    /// The server or the network has ended the connection.
    Disconnected,
    /// Another transaction was in the way: a lock, a deadlock, a serialization failure.
    Contended,
}

/// Whether a statement that failed like this may run again.
pub(crate) fn transient<D: Dialect>(error: &StorageError) -> Option<Transient> {
    D::transient(std::error::Error::source(error)?.downcast_ref()?)
}

/// Whether a statement failed since the database is read-only.
pub(crate) fn is_read_only<D: Dialect>(error: &StorageError) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref());
    source.is_some_and(D::is_read_only)
}

/// What to do about a database that is read-only.
pub(crate) const READ_ONLY_HELP: &str = "the database takes no writes: connect to the primary, or make it writable \
    (`default_transaction_read_only`, a standby, the URL's `mode=ro`, the rights on the file and its folder)";

/// A database that cannot be written to.
pub(crate) fn read_only(kind: ErrorKind) -> StorageError {
    StorageError::new(kind).with_help(READ_ONLY_HELP)
}

/// A transaction that could not begin.
pub(crate) fn begin<D: Dialect>(error: sqlx::Error) -> StorageError {
    let is_contended = D::transient(&error) == Some(Transient::Contended);
    let kind = if is_contended { ErrorKind::Contended } else { ErrorKind::Unavailable };
    StorageError::new(kind).with_source(error)
}

/// A statement that was given up on the client's side.
#[derive(Debug)]
pub(crate) struct TimedOut;

impl std::fmt::Display for TimedOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the statement took longer than it may")
    }
}

impl std::error::Error for TimedOut {}

/// A connection that cannot be had.
pub(crate) fn connection(error: sqlx::Error) -> StorageError {
    StorageError::new(ErrorKind::Unavailable).with_source(error)
}

/// A stored value that does not read as its declared type.
pub(crate) fn corrupt(schema: &Schema, error: Unreadable) -> StorageError {
    StorageError::new(ErrorKind::Corrupt).with_context("table", schema.table.clone()).with_source(error)
}

/// An argument that its column's type cannot hold.
pub(crate) fn unbound(schema: &Schema, error: Unreadable) -> StorageError {
    StorageError::new(ErrorKind::Rejected).with_context("table", schema.table.clone()).with_source(error)
}

/// What every driver tells apart by itself.
pub(crate) fn kind(error: &sqlx::Error) -> ErrorKind {
    match error {
        sqlx::Error::Database(database) => match database.kind() {
            Violation::UniqueViolation => ErrorKind::UniqueViolation,
            Violation::ForeignKeyViolation => ErrorKind::ForeignKeyViolation,
            Violation::NotNullViolation | Violation::CheckViolation => ErrorKind::Rejected,
            _ => ErrorKind::Internal,
        },
        sqlx::Error::AnyDriverError(error) if error.is::<TimedOut>() => ErrorKind::TimedOut,
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => ErrorKind::Unavailable,
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => ErrorKind::Corrupt,
        _ => ErrorKind::Internal,
    }
}

/// The wire names of the fields behind these columns.
pub(crate) fn fields<'a>(schema: &Schema, columns: impl Iterator<Item = &'a str>) -> Vec<String> {
    columns
        .filter_map(|column| schema.fields.iter().find(|field| field.column == column))
        .map(|field| field.name.clone())
        .collect()
}
