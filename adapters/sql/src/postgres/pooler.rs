//! Detects a pooler between this application and PostgreSQL, and its mode.
//!
//! Startup options (`-c name=value`) are for the server, and a pooler has no session to apply them to when a client
//! connects: PgBouncer refuses them or, if configured so, ignores them. So if the server has the setting of such an option,
//! there is no pooler.
//!
//! Behind a pooler, two connections are compared. In session mode each has a server process of its own for as long as it is
//! open. In transaction mode they share processes: PgBouncer gives a transaction the process that was free last, or the one
//! that was free for the longest (`server_round_robin`). Either shows in a few statements: one connection sees two
//! processes, or both see the same one.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, Row as _};

/// What a connection gets from the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// A server process without a pooler.
    Direct,
    /// A server process for as long as the connection is open.
    Session,
    /// A server process for the length of a transaction.
    Transaction,
}

/// The setting that a startup option sets where there is no pooler.
pub(super) const DIRECT_MARKER: &str = "resourceful.direct";

/// How often the two connections are compared. Transactions of other clients may come between, and make different processes
/// look like separate sessions.
const ROUNDS: usize = 4;

/// How long the second connection waits for a process before the first one is asked again. Where the pooler has one process
/// in all, and in session mode the first connection has it, the second never gets one.
pub(super) const SECOND_CONNECTION_TIMEOUT: Duration = Duration::from_secs(2);

/// Whether this connection's startup options have reached the server, including the [mark](MARK).
pub(super) async fn is_direct(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let row = connection.fetch_one("SELECT current_setting('resourceful.direct', true)").await?;
    Ok(row.try_get::<Option<&str>, _>(0)? == Some("yes"))
}

/// The pooler's mode, as far as a few statements show it.
pub(super) async fn detect_mode(
    first: &mut PgConnection,
    options: &PgConnectOptions,
) -> Result<Route, sqlx::Error> {
    let first_pid = backend_pid(first).await?;
    let mut second = options.connect().await?;
    let mut asked = Box::pin(backend_pid(&mut second));
    let second_pid = match tokio::time::timeout(SECOND_CONNECTION_TIMEOUT, &mut asked).await {
        Ok(second_pid) => second_pid?,
        // Clients that wait for a process get one in the order in which they came. The first connection does not wait behind
        // the second: it has a process of its own.
        Err(_) => tokio::select! {
            biased;
            second_pid = &mut asked => second_pid?,
            first_pid = backend_pid(first) => return first_pid.map(|_| Route::Session),
        },
    };
    drop(asked);
    let mut is_shared = first_pid == second_pid;
    for _ in 0..ROUNDS {
        // Twice in a row, as processes may be assigned in turn.
        for _ in 0..2 {
            is_shared = is_shared || backend_pid(first).await? != first_pid;
        }
        is_shared = is_shared || backend_pid(&mut second).await? != second_pid;
    }
    second.close().await?;
    Ok(if is_shared { Route::Transaction } else { Route::Session })
}

/// The id of the server process that runs a statement.
async fn backend_pid(connection: &mut PgConnection) -> Result<i32, sqlx::Error> {
    // As text, in one message: prepared, it would run in two processes.
    let row = connection.fetch_one("SELECT pg_backend_pid()::text").await?;
    row.try_get::<&str, _>(0)?.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))
}
