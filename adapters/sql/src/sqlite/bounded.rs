//! Statements that end when their time is up, or when nobody waits for them any more.
//!
//! A statement runs on its connection's own thread, which does not notice that the future of its rows was dropped
//! until it has a row to send. A count over a large join may take minutes to its first row, so SQLite is asked,
//! every few thousand of its steps, whether to go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use sqlx::Executor as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::SqliteDialect;
use crate::storage::SqlQuery;

/// How many of SQLite's steps lie between two questions: well below a millisecond of work.
const STEPS: i32 = 20_000;

const RUNNING: u8 = 0;
const DONE: u8 = 1;
const ABANDONED: u8 = 2;

/// Runs a statement for at most this long.
pub(super) async fn rows(
    connection: &mut SqliteConnection,
    query: SqlQuery<'_, SqliteDialect>,
    limit: Duration,
) -> Result<Vec<SqliteRow>, sqlx::Error> {
    let state = Arc::new(AtomicU8::new(RUNNING));
    let asked = state.clone();
    let deadline = Instant::now() + limit;
    let mut handle = connection.lock_handle().await?;
    handle.set_progress_handler(STEPS, move || match asked.load(Ordering::Acquire) {
        RUNNING => Instant::now() < deadline,
        // Once: the connection's next statement is another's.
        ABANDONED => asked.swap(DONE, Ordering::AcqRel) != ABANDONED,
        _ => true,
    });
    drop(handle);
    let waiting = Waiting(state);
    let rows = connection.fetch_all(query).await;
    waiting.0.store(DONE, Ordering::Release);
    rows
}

/// Someone waits for the rows; dropped before they came, nobody does.
struct Waiting(Arc<AtomicU8>);

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.0.compare_exchange(RUNNING, ABANDONED, Ordering::AcqRel, Ordering::Acquire);
    }
}
