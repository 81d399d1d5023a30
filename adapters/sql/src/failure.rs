//! What went wrong, in the contract's kinds.

use resourceful_contract::{ErrorKind, Schema, StorageError};
use sqlx::error::ErrorKind as Violation;

use crate::dialect::Unreadable;

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
