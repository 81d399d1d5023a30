//! Tests a connection before the pool takes it back.
//!
//! SQLite rolls a transaction back by itself when the disk is full, memory is exhausted, an I/O error occurs, a statement is
//! interrupted or a trigger raises a rollback (<https://www.sqlite.org/lang_transaction.html>, 3.3). The driver's own
//! rollback then fails, its count of open transactions stays above zero, and it refuses every later `BEGIN` of that
//! connection.

use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection as _, Executor as _};

/// Whether the connection can be reused; otherwise it is closed, and the pool opens another.
pub(super) async fn is_usable(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    reset(connection).await?;
    Ok(!connection.is_in_transaction())
}

/// Repairs the only connection of an in-memory database, whose rows would be lost with it.
pub(super) async fn repair(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    reset(connection).await?;
    if connection.is_in_transaction() {
        // The driver counts a transaction that has ended: one is opened for it, and a `BEGIN` that fails rolls that back.
        connection.execute("BEGIN").await?;
        let _ = connection.begin_with("BEGIN").await;
        connection.ping().await?;
    }
    Ok(true)
}

/// Waits for commands that are still running, and cleans up after the last user of the connection.
async fn reset(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    // Commands run in order: once this one is answered, a rollback that was requested before has ended.
    connection.ping().await?;
    // The progress handler of an interrupted statement must not interrupt another one.
    connection.lock_handle().await?.remove_progress_handler();
    if !connection.is_in_transaction() {
        // Fails where no transaction is open, which is the normal case.
        let _ = connection.execute("ROLLBACK").await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use resourceful_contract::Storage as _;
    use sqlx::Executor as _;

    #[tokio::test]
    async fn readiness_check_replaces_broken_writer() {
        let folder = tempfile::tempdir().unwrap();
        for url in
            ["sqlite::memory:".to_owned(), format!("sqlite://{}", folder.path().join("ready.db").display())]
        {
            let database = crate::sqlite::open(&crate::connect::Sql::options(&url)).await.unwrap();
            database.ready().await.unwrap();
            let mut writer = database.writer().await.unwrap();
            writer.execute("BEGIN").await.unwrap();
            writer.release();
            database.ready().await.unwrap_err();
            database.ready().await.unwrap();
        }
    }
}
