//! Maps driver errors to the contract's error kinds.

use resourceful_contract::{ErrorKind, Schema, StorageError};
use sqlx::error::ErrorKind as Violation;

use crate::dialect::{CodecError, Dialect};

/// A failure that no row caused, and after which a retry of the same statements may succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(feature = "postgres"),
    expect(dead_code, reason = "SQLite prepares again by itself, and its connections are not lost")
)]
pub(crate) enum Transient {
    /// The connection's prepared statements are gone, or return types that their tables no longer have.
    StaleStatement,
    /// The server or the network closed the connection.
    Disconnected,
    /// Another transaction conflicted: a lock, a deadlock, a serialization failure.
    Contended,
}

/// Why a failed statement may be retried; `None` if it may not.
pub(crate) fn transient_reason<D: Dialect>(error: &StorageError) -> Option<Transient> {
    D::transient(std::error::Error::source(error)?.downcast_ref()?)
}

/// Whether a statement failed because the database is read-only.
pub(crate) fn is_read_only<D: Dialect>(error: &StorageError) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref());
    source.is_some_and(D::is_read_only)
}

/// The fix for a read-only database.
pub(crate) const READ_ONLY_HELP: &str = "the database takes no writes: connect to the primary, or make it writable \
    (`default_transaction_read_only`, a standby, the URL's `mode=ro`, the rights on the file and its folder)";

/// The error of a database that does not accept writes.
pub(crate) fn read_only_error(kind: ErrorKind) -> StorageError {
    StorageError::new(kind).with_help(READ_ONLY_HELP)
}

/// The error of a transaction that could not begin.
pub(crate) fn begin_error<D: Dialect>(error: sqlx::Error) -> StorageError {
    let is_contended = D::transient(&error) == Some(Transient::Contended);
    let kind = if is_contended { ErrorKind::Contended } else { ErrorKind::Unavailable };
    StorageError::new(kind).with_source(error)
}

/// A statement that was aborted by the client's time limit.
#[derive(Debug)]
pub(crate) struct TimedOut;

impl std::fmt::Display for TimedOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the statement exceeded its time limit")
    }
}

impl std::error::Error for TimedOut {}

/// The error of a connection that could not be acquired.
pub(crate) fn connection_error(error: sqlx::Error) -> StorageError {
    StorageError::new(ErrorKind::Unavailable).with_source(error)
}

/// The error of a stored value that cannot be decoded as its declared type.
pub(crate) fn corrupt_value(schema: &Schema, error: CodecError) -> StorageError {
    StorageError::new(ErrorKind::Corrupt).with_context("table", schema.table.clone()).with_source(error)
}

/// The error of an argument that its column's type cannot hold.
pub(crate) fn bind_error(schema: &Schema, error: CodecError) -> StorageError {
    StorageError::new(ErrorKind::Rejected).with_context("table", schema.table.clone()).with_source(error)
}

/// The error kind, as far as sqlx reports it the same for every driver.
pub(crate) fn error_kind(error: &sqlx::Error) -> ErrorKind {
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
pub(crate) fn field_names<'a>(schema: &Schema, columns: impl Iterator<Item = &'a str>) -> Vec<String> {
    columns
        .filter_map(|column| schema.fields.iter().find(|field| field.column == column))
        .map(|field| field.name.clone())
        .collect()
}
