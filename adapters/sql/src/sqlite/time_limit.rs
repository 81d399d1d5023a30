//! Statements that end when their time limit is reached, or when their future is dropped.
//!
//! A statement runs on its connection's own thread, which does not notice that the future of its rows was dropped until it
//! has a row to send. A count over a large join may take minutes to its first row, so a progress handler tells SQLite, every
//! few thousand of its steps, whether to go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use sqlx::Executor as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::SqliteDialect;
use crate::storage::SqlQuery;

/// The number of SQLite's virtual machine steps between two calls of the handler: well below a millisecond of work.
const PROGRESS_STEPS: i32 = 20_000;

const RUNNING: u8 = 0;
const DONE: u8 = 1;
const ABANDONED: u8 = 2;

/// Runs a statement for at most this long.
pub(super) async fn fetch_within(
    connection: &mut SqliteConnection,
    query: SqlQuery<'_, SqliteDialect>,
    limit: Duration,
) -> Result<Vec<SqliteRow>, sqlx::Error> {
    let state = Arc::new(AtomicU8::new(RUNNING));
    let handler_state = state.clone();
    let deadline = Instant::now() + limit;
    let mut handle = connection.lock_handle().await?;
    handle.set_progress_handler(PROGRESS_STEPS, move || match handler_state.load(Ordering::Acquire) {
        RUNNING => Instant::now() < deadline,
        // Interrupts once: the connection's next statement belongs to another caller.
        ABANDONED => handler_state.swap(DONE, Ordering::AcqRel) != ABANDONED,
        _ => true,
    });
    drop(handle);
    let guard = InterruptGuard(state);
    let rows = connection.fetch_all(query).await;
    guard.0.store(DONE, Ordering::Release);
    rows
}

/// Guard of a running statement; when it is dropped before the rows came, the statement is interrupted.
struct InterruptGuard(Arc<AtomicU8>);

impl Drop for InterruptGuard {
    fn drop(&mut self) {
        let _ = self.0.compare_exchange(RUNNING, ABANDONED, Ordering::AcqRel, Ordering::Acquire);
    }
}
