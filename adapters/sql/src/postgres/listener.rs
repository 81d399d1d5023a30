//! Connection options for LISTEN, which bypass a pooler that gives no session.

use resourceful_contract::{ErrorKind, StorageError};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Executor as _, Pool, Postgres};

use super::bell;
use super::open::Target;
use super::pooler::Route;
use crate::connect::SqlOptions;

/// The connection options of a `direct_url`.
pub(super) async fn options(url: &str, options: &SqlOptions) -> Result<PgConnectOptions, StorageError> {
    let link = Target::of(url, options, None)?.link(options.acquire_timeout).await?;
    if link.route == Route::Transaction {
        return Err(unusable("leads to a pooler in transaction mode"));
    }
    Ok(link.options)
}

/// Checks that notifications sent through the pool are received with these options: that both lead to one database.
pub(super) async fn hears(
    listener: &PgConnectOptions,
    pool: &Pool<Postgres>,
    options: &SqlOptions,
) -> Result<(), StorageError> {
    let channel = format!("resourceful_{}", uuid::Uuid::new_v4().simple());
    let heard = async {
        let bell = bell::hear(listener, options.acquire_timeout, &channel).await?;
        pool.execute(AssertSqlSafe(format!("NOTIFY {channel}"))).await?;
        Ok::<_, sqlx::Error>(bell)
    };
    match heard.await {
        Ok(Some(mut bell)) => match tokio::time::timeout(options.acquire_timeout, bell.rung()).await {
            Ok(rung) => rung,
            Err(_) => Err(unusable("leads to another database than the URL")),
        },
        Ok(None) => Ok(()),
        // A standby supports neither LISTEN nor NOTIFY. It may become the primary.
        Err(error) => {
            tracing::warn!(%error, "whether `direct_url` leads to the same database could not be found out");
            Ok(())
        }
    }
}

fn unusable(why: &str) -> StorageError {
    StorageError::new(ErrorKind::Unsupported).with_context("direct_url", why).with_help(
        "`direct_url` is to lead to the same database, without a pooler or through one in session mode",
    )
}
