//! Connection options for LISTEN, which bypass a pooler that gives no session.

use resourceful_contract::{ErrorKind, StorageError};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Executor as _, Pool, Postgres};

use super::open::ConnectTarget;
use super::pooler::Route;
use crate::connect::SqlOptions;

/// The connection options of a `direct_url`.
pub(super) async fn listen_options(
    url: &str,
    options: &SqlOptions,
) -> Result<PgConnectOptions, StorageError> {
    let verified = ConnectTarget::parse(url, options, None)?.detect_route(options.acquire_timeout).await?;
    if verified.route == Route::Transaction {
        return Err(direct_url_error("leads to a pooler in transaction mode"));
    }
    Ok(verified.options)
}

/// Checks that notifications sent through the pool are received with these options: that both lead to one database.
pub(super) async fn verify_same_database(
    listener: &PgConnectOptions,
    pool: &Pool<Postgres>,
    options: &SqlOptions,
) -> Result<(), StorageError> {
    let channel = format!("resourceful_{}", uuid::Uuid::new_v4().simple());
    let listening = async {
        let stream = super::notifications::listen(listener, options.acquire_timeout, &channel).await?;
        pool.execute(AssertSqlSafe(format!("NOTIFY {channel}"))).await?;
        Ok::<_, sqlx::Error>(stream)
    };
    match listening.await {
        Ok(Some(mut stream)) => {
            match tokio::time::timeout(options.acquire_timeout, stream.notified()).await {
                Ok(notified) => notified,
                Err(_) => Err(direct_url_error("leads to another database than the URL")),
            }
        }
        Ok(None) => Ok(()),
        // A standby supports neither LISTEN nor NOTIFY. It may become the primary.
        Err(error) => {
            tracing::warn!(%error, "whether `direct_url` leads to the same database could not be found out");
            Ok(())
        }
    }
}

fn direct_url_error(reason: &str) -> StorageError {
    StorageError::new(ErrorKind::Unsupported).with_context("direct_url", reason).with_help(
        "`direct_url` is to lead to the same database, without a pooler or through one in session mode",
    )
}
