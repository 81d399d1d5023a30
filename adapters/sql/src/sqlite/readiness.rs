//! Whether a database takes writes.

use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Executor as _, Row as _};

use super::SqliteDialect;
use crate::dialect::Dialect as _;

/// Whether a transaction that has begun may write. `BEGIN IMMEDIATE` succeeds on a read-only database as well, so the
/// number that an application may keep in the file's header is written as it is.
pub(super) async fn is_writable(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    let version: i64 = connection.fetch_one(sqlx::raw_sql("PRAGMA user_version")).await?.try_get(0)?;
    let written = AssertSqlSafe(format!("PRAGMA user_version = {version}"));
    match connection.execute(sqlx::raw_sql(written)).await {
        Ok(_) => Ok(true),
        Err(error) if SqliteDialect::is_read_only(&error) => Ok(false),
        Err(error) => Err(error),
    }
}
