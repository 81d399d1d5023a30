//! Errors of databases that could not be opened, with their fixes.

use resourceful_contract::{ErrorKind, StorageError};

use super::primary_code;

/// The error of a malformed URL.
pub(super) fn url_error(error: sqlx::Error) -> StorageError {
    StorageError::new(ErrorKind::Unsupported)
        .with_context("url", "cannot be read")
        .with_source(error)
        .with_help("sqlite://path/to/file.db, sqlite::memory:, with ?mode=ro to read only")
}

/// The error of a file that could not be opened, with the matching fix.
pub(super) fn to_storage_error(error: sqlx::Error, path: &str) -> StorageError {
    let help = error.as_database_error().and_then(|database| help(primary_code(database)));
    let failed = StorageError::new(ErrorKind::Unavailable).with_context("file", path).with_source(error);
    match help {
        Some(help) => failed.with_help(help),
        None => failed,
    }
}

fn help(code: u32) -> Option<&'static str> {
    Some(match code {
        // SQLITE_PERM, SQLITE_CANTOPEN.
        3 | 14 => {
            "a path whose folder is there and can be written, as in sqlite://shop.db; with ?mode=ro the file must be \
             there"
        }
        // SQLITE_BUSY, SQLITE_LOCKED.
        5 | 6 => "another process has the database to itself: end it, or raise `busy_timeout`",
        // SQLITE_READONLY.
        8 => {
            "the file or its folder cannot be written: give this process the right to, or open it with ?mode=ro"
        }
        // SQLITE_IOERR.
        10 => "the file cannot be read or written: look at the disk, and use no network file system",
        // SQLITE_CORRUPT.
        11 => "the database is damaged: restore a backup, or save what is left with sqlite3's `.recover`",
        // SQLITE_FULL.
        13 => "the disk is full: make room",
        // SQLITE_NOTADB.
        26 => "the file is something else than an SQLite database, or an encrypted one: name another path",
        _ => return None,
    })
}
