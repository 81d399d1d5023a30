//! The storage contract.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::{Capabilities, ChangeSet, Committed, Migrated, Migration, Query, Rows, Schema, StorageError};

/// The boxed future that adapter methods return.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StorageError>> + Send + 'a>>;

/// A storage: it holds the rows of any number of resources and changes them in transactions.
///
/// Every future may be dropped at any point: a dropped [`fetch`](Self::fetch) leaves nothing behind, and a
/// dropped [`commit`](Self::commit) either happened or did not.
pub trait Storage: fmt::Debug + Send + Sync + 'static {
    /// The adapter's name for logs: `memory`, `sqlite`, `postgres`. Nothing else depends on it.
    fn name(&self) -> &'static str;

    /// The dialect of SQL migrations that [`migrate`](Self::migrate) applies; `None`, the default, for a storage without
    /// migrations. The library's own tables are created by its migrations in that dialect, and otherwise by
    /// [`create_table_if_missing`](Self::create_table_if_missing) from their schemas.
    fn dialect(&self) -> Option<SqlDialect> {
        None
    }

    /// The optional features that this storage supports.
    fn capabilities(&self) -> Capabilities;

    /// Creates the schema's table and indexes if they do not exist, and leaves an existing table unchanged. Tables that the
    /// schema references must exist before.
    fn create_table_if_missing<'a>(&'a self, schema: &'a Arc<Schema>) -> Answer<'a, ()>;

    /// Compares these migrations, in this order, with the applied ones; with `apply` the missing ones are applied, all or
    /// none, under a lock of the database, so that several nodes may start at the same time. A storage whose tables need no
    /// migrations has none missing.
    fn migrate<'a>(&'a self, migrations: &'a [Migration], apply: bool) -> Answer<'a, Migrated> {
        let _ = (migrations, apply);
        Box::pin(std::future::ready(Ok(Migrated::default())))
    }

    /// Compares the schema with the existing table: its columns with their types, nullability, generated columns, and
    /// uniqueness. Every mismatch is reported; if there are only warnings, queries and changes for this schema work as
    /// documented.
    ///
    /// Uniqueness and indexes are compared by their columns, whatever their names. A storage may keep what it finds here, so
    /// this is called before a schema is used.
    fn check<'a>(&'a self, schema: &'a Arc<Schema>) -> Answer<'a, Vec<Mismatch>>;

    /// Appends the rows of a query to `out`, as [`Rows`] describes, and returns the rest of the result.
    ///
    /// On an error `out` may hold part of the rows; the caller discards it.
    fn fetch<'a>(&'a self, query: &'a Query, out: &'a mut Vec<u8>) -> Answer<'a, Rows>;

    /// Applies all changes of a set in one transaction, or none.
    ///
    /// When the future is done, changes are durable as far as the storage is. Guards are checked in the same transaction as
    /// the change: of several concurrent changes guarded by one version, one succeeds.
    fn commit(&self, changes: ChangeSet) -> Answer<'_, Committed>;

    /// Sends a notification on a channel to other nodes of the application. Only the latency of their reaction depends on
    /// it.
    fn notify<'a>(&'a self, channel: &'a str) -> Answer<'a, ()> {
        let _ = channel;
        Box::pin(std::future::ready(Ok(())))
    }

    /// Listens to a channel; `None` if nodes cannot notify each other through this storage.
    fn listen<'a>(&'a self, channel: &'a str) -> Answer<'a, Option<Box<dyn NotificationStream>>> {
        let _ = channel;
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Whether the storage can serve reads and changes now, for readiness checks. A storage that accepts no writes is not
    /// ready.
    fn ready(&self) -> Answer<'_, ()>;

    /// Closes connections after the work in progress; later calls fail as unavailable.
    fn close(&self) -> Answer<'_, ()>;
}

/// A dialect of SQL that the library has migrations of its own tables for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SqlDialect {
    /// SQLite 3.35 or later.
    Sqlite,
    /// PostgreSQL 14 or later.
    Postgres,
}

/// A subscription to the notifications of one channel.
pub trait NotificationStream: fmt::Debug + Send + 'static {
    /// Done when a notification was sent, or may have been missed while the connection was lost. The future may be dropped
    /// at any point.
    fn notified(&mut self) -> Answer<'_, ()>;
}

/// A difference between a schema and its table.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mismatch {
    /// The affected field; `None` for the table as a whole.
    pub field: Option<String>,
    /// What is wrong and what would be right, in one sentence.
    pub message: String,
    /// The fix, as exact as possible: a statement in the database's language, or what to declare.
    pub help: Option<String>,
    /// Whether everything works all the same, only slower or less exactly: it is logged, and the application is not refused.
    pub is_warning: bool,
}

impl Mismatch {
    /// A mismatch that makes the schema unusable.
    #[must_use]
    pub fn new(field: Option<&str>, message: impl Into<String>) -> Self {
        Self { field: field.map(str::to_owned), message: message.into(), help: None, is_warning: false }
    }

    /// Sets the fix.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Makes it a warning.
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

/// A table of a storage, to bind a resource to.
///
/// The storage creates the handle, and a declaration refines it: `.column("price_cents", "price")` binds a field to a column
/// of another name, `.create_table_if_missing()` creates the table.
#[derive(Clone, Debug)]
pub struct Table {
    storage: Arc<dyn Storage>,
    name: String,
    columns: BTreeMap<String, String>,
    create: bool,
}

impl Table {
    /// The table with this name, with columns named like the fields.
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

    /// Creates table and indexes from the declaration when the application is built, if they do not exist.
    ///
    /// For development and tests: an existing table is never altered.
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

    /// The column names that differ from their field's, by field.
    #[must_use]
    pub fn columns(&self) -> &BTreeMap<String, String> {
        &self.columns
    }

    /// Whether the table is created if it does not exist.
    #[must_use]
    pub fn creates(&self) -> bool {
        self.create
    }
}
