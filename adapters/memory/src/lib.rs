//! The reference storage of `resourceful`, in memory.
//!
//! Rows are stored in persistent B-trees, one by id and one for each index. A reader takes a snapshot, which costs a
//! reference count and blocks no writer; a commit works on a snapshot of its own, which replaces the current state if every
//! change has succeeded.

mod bus;
mod cache;
mod commit;
mod fetch;
mod filter;
mod queue;
mod render;
mod state;
mod table;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use resourceful_contract::{Answer, Capabilities, ChangeSet, Mismatch, Query, Rows, Schema, Storage, Table};

pub use bus::MemoryBus;
pub use cache::MemoryCache;

use state::State;

/// An in-memory database. Clones share it; its data is dropped with the last of them.
///
/// ```
/// use resourceful_memory::Memory;
///
/// let memory = Memory::new();
/// let notes = memory.table("notes");
/// assert_eq!(notes.name(), "notes");
/// ```
#[derive(Clone, Default)]
pub struct Memory {
    database: Arc<Database>,
}

impl Memory {
    /// An empty database.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A table of this database, created from the declaration that is bound to it.
    #[must_use]
    pub fn table(&self, name: impl Into<String>) -> Table {
        Table::new(self.storage(), name).create_table_if_missing()
    }

    /// The database as a storage.
    #[must_use]
    pub fn storage(&self) -> Arc<dyn Storage> {
        self.database.clone()
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("tables", &self.database.snapshot().table_names()).finish()
    }
}

#[derive(Default)]
struct Database {
    /// Locked only to copy a pointer, never while rows are read or changed.
    current: RwLock<Arc<State>>,
    /// Held by the one commit in progress.
    writer: Mutex<()>,
}

impl Database {
    fn snapshot(&self) -> Arc<State> {
        // A panic cannot leave a half-written pointer, so the value in a poisoned lock is valid.
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Builds the next state from the current one; on an error the current state stays.
    fn change<T, E>(&self, change: impl FnOnce(&mut State) -> Result<T, E>) -> Result<T, E> {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = State::clone(&self.snapshot());
        let outcome = change(&mut next)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
        Ok(outcome)
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").finish_non_exhaustive()
    }
}

impl Storage for Database {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::core();
        capabilities.relations = true;
        capabilities.foreign_keys = true;
        capabilities
    }

    fn create_table_if_missing<'a>(&'a self, schema: &'a Arc<Schema>) -> Answer<'a, ()> {
        ready(self.change(|state| {
            state.create(schema);
            Ok(())
        }))
    }

    fn check<'a>(&'a self, schema: &'a Arc<Schema>) -> Answer<'a, Vec<Mismatch>> {
        ready(Ok(self.snapshot().check(schema)))
    }

    fn fetch<'a>(&'a self, query: &'a Query, out: &'a mut Vec<u8>) -> Answer<'a, Rows> {
        ready(fetch::fetch(&self.snapshot(), query, out))
    }

    fn commit(&self, changes: ChangeSet) -> Answer<'_, resourceful_contract::Committed> {
        if changes.dry_run {
            let mut scratch = State::clone(&self.snapshot());
            return ready(commit::apply(&mut scratch, &changes));
        }
        ready(self.change(|state| commit::apply(state, &changes)))
    }

    fn ready(&self) -> Answer<'_, ()> {
        ready(Ok(()))
    }

    fn close(&self) -> Answer<'_, ()> {
        ready(Ok(()))
    }
}

fn ready<'a, T: Send + 'a>(outcome: Result<T, resourceful_contract::StorageError>) -> Answer<'a, T> {
    Box::pin(std::future::ready(outcome))
}
