//! Checks whether a database accepts writes.

use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Executor as _, Row as _};

use super::SqliteDialect;
use crate::dialect::Dialect as _;

/// Whether the current transaction may write. `BEGIN IMMEDIATE` succeeds on a read-only database as well, so the user
/// version in the file's header is written back unchanged.
pub(super) async fn is_writable(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    let version: i64 = connection.fetch_one(sqlx::raw_sql("PRAGMA user_version")).await?.try_get(0)?;
    let written = AssertSqlSafe(format!("PRAGMA user_version = {version}"));
    match connection.execute(sqlx::raw_sql(written)).await {
        Ok(_) => Ok(true),
        Err(error) if SqliteDialect::is_read_only(&error) => Ok(false),
        Err(error) => Err(error),
    }
}
