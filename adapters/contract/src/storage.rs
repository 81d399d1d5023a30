//! The contract itself.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::{Capabilities, ChangeSet, Committed, Migrated, Migration, Query, Rows, Schema, StorageError};

/// A future of a storage's answer.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StorageError>> + Send + 'a>>;

/// One database: it keeps the rows of any number of resources and changes them together.
///
/// Every future may be dropped at any point: a dropped [`fetch`](Self::fetch) leaves nothing behind, and a
/// dropped [`commit`](Self::commit) either happened or did not.
pub trait Storage: fmt::Debug + Send + Sync + 'static {
    /// A word for logs: `memory`, `sqlite`, `postgres`.
    fn name(&self) -> &'static str;

    /// What this storage can do.
    fn capabilities(&self) -> Capabilities;

    /// Creates the schema's table and indexes where they are absent, and leaves a table that is there as it
    /// is. Tables that the schema refers to must be there before.
    fn create_table_if_missing<'a>(&'a self, schema: &'a Arc<Schema>) -> Answer<'a, ()>;

    /// Compares these migrations, in this order, with those that were applied; with `apply` the missing ones are applied,
    /// all or none, under a lock of the database, so that nodes may start at once. A storage whose tables need no
    /// making has none missing.
    fn migrate<'a>(&'a self, migrations: &'a [Migration], apply: bool) -> Answer<'a, Migrated> {
        let _ = (migrations, apply);
        Box::pin(std::future::ready(Ok(Migrated::default())))
    }

    /// Compares the schema with what is really there: the table, its columns with their types, what may be null,
    /// what the database generates, and what is unique. Every mismatch is named; where none is left but warnings,
    /// queries and changes for this schema do what they should.
    ///
    /// Uniqueness and indexes are compared by their columns, whatever their names. A storage may keep what it finds
    /// here, so this is called before a schema is used.
    fn check<'a>(&'a self, schema: &'a Arc<Schema>) -> Answer<'a, Vec<Mismatch>>;

    /// Appends the rows that a query asks for to `out`, as [`Rows`] describes, and answers the rest.
    ///
    /// On an error `out` may hold part of the answer; the caller drops it.
    fn fetch<'a>(&'a self, query: &'a Query, out: &'a mut Vec<u8>) -> Answer<'a, Rows>;

    /// Makes every change of the set so, or none.
    ///
    /// Changes are durable, as far as the storage is, when the future is done. Guards are checked in the same
    /// transaction as the change: of several concurrent changes guarded by one version, one happens.
    fn commit(&self, changes: ChangeSet) -> Answer<'_, Committed>;

    /// Rings a bell that other nodes of the application may hear. Nothing depends on it but how soon they look.
    fn notify<'a>(&'a self, bell: &'a str) -> Answer<'a, ()> {
        let _ = bell;
        Box::pin(std::future::ready(Ok(())))
    }

    /// Listens to a bell; `None` where nodes cannot hear each other through this storage.
    fn listen<'a>(&'a self, bell: &'a str) -> Answer<'a, Option<Box<dyn NotificationStream>>> {
        let _ = bell;
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Whether the storage can serve reads and changes now, for readiness checks. One that takes no writes is not ready.
    fn ready(&self) -> Answer<'_, ()>;

    /// Ends connections after the work that is under way; later calls fail as unavailable.
    fn close(&self) -> Answer<'_, ()>;
}

/// Someone who listens to a bell.
pub trait NotificationStream: fmt::Debug + Send + 'static {
    /// Done when the bell was rung, or may have been while nobody could hear it. The future may be dropped at any point.
    fn rung(&mut self) -> Answer<'_, ()>;
}

/// A difference between a schema and the table it is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mismatch {
    /// The field concerned; `None` for the table as a whole.
    pub field: Option<String>,
    /// What is wrong and what would be right, in one sentence.
    pub message: String,
    /// The line that mends it, as exact as it can be: a statement of the database's language, or what to declare.
    pub help: Option<String>,
    /// Whether everything works all the same, only slower or less exactly: it is logged, and no application is
    /// refused for it.
    pub is_warning: bool,
}

impl Mismatch {
    /// A difference with which the schema cannot be served.
    #[must_use]
    pub fn new(field: Option<&str>, message: impl Into<String>) -> Self {
        Self { field: field.map(str::to_owned), message: message.into(), help: None, is_warning: false }
    }

    /// The same, with the line that mends it.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The same, as a warning.
    #[must_use]
    pub const fn as_warning(mut self) -> Self {
        self.is_warning = true;
        self
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.field {
            Some(field) => write!(f, "{field}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

/// A table of a storage, for a resource to be bound to.
///
/// A storage hands it out, and a declaration refines it: `.column("price_cents", "price")` binds a field to a column
/// of another name, `.create_table_if_missing()` makes the table.
#[derive(Clone, Debug)]
pub struct Table {
    storage: Arc<dyn Storage>,
    name: String,
    columns: BTreeMap<String, String>,
    create: bool,
}

impl Table {
    /// The table of this name, its columns named as the fields are.
    #[must_use]
    pub fn new(storage: Arc<dyn Storage>, name: impl Into<String>) -> Self {
        Self { storage, name: name.into(), columns: BTreeMap::new(), create: false }
    }

    /// Binds a field to a column of another name.
    #[must_use]
    pub fn column(mut self, field: impl Into<String>, column: impl Into<String>) -> Self {
        self.columns.insert(field.into(), column.into());
        self
    }

    /// Creates table and indexes from the declaration when the application is built and they are absent.
    ///
    /// For development and tests: a table that is there is never altered.
    #[must_use]
    pub fn create_table_if_missing(mut self) -> Self {
        self.create = true;
        self
    }

    /// The storage that holds the table.
    #[must_use]
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// The table's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The columns bound under other names, by field.
    #[must_use]
    pub fn columns(&self) -> &BTreeMap<String, String> {
        &self.columns
    }

    /// Whether the table is to be created where it is absent.
    #[must_use]
    pub fn creates(&self) -> bool {
        self.create
    }
}
