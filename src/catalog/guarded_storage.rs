//! Guarded storage: the only access to rows of resources, with queries and changes that a row filter restricts.

use std::sync::Arc;

use resourceful_contract::{
    Change, ChangeSet, Committed, NotificationStream, Query, Rows, Schema, Storage, StorageError, Then, Value,
};

use super::row_filter::{GuardedChange, GuardedQuery};
use crate::cache::WriteObserver;
use crate::tables;

/// Guarded storage: rows of resources are accessible only with an authorization decision.
#[derive(Clone, Debug)]
pub(crate) struct GuardedStorage(Arc<dyn Storage>, Option<Arc<WriteObserver>>);

impl GuardedStorage {
    /// Wraps a storage, with the watch that tracks its changes where responses are cached.
    pub(crate) fn new(storage: Arc<dyn Storage>, observer: Option<Arc<WriteObserver>>) -> Self {
        Self(storage, observer)
    }

    pub(crate) async fn fetch(&self, query: &GuardedQuery, out: &mut Vec<u8>) -> Result<Rows, StorageError> {
        self.0.fetch(&query.0, out).await
    }

    /// Commits changes of admitted rows and their follow-up changes, or rolls them back in a dry run.
    pub(crate) async fn commit(
        &self,
        changes: Vec<GuardedChange>,
        then: Option<Then>,
        dry_run: bool,
    ) -> Result<Committed, StorageError> {
        let changes = changes.into_iter().map(|change| change.0).collect();
        self.commit_observed(ChangeSet { then, dry_run, ..ChangeSet::of(changes) }).await
    }

    /// Commits rows that the application itself loads.
    pub(crate) async fn load(&self, changes: ChangeSet) -> Result<Committed, StorageError> {
        self.commit_observed(changes).await
    }

    /// Commits, and invalidates the affected cached responses before the commit is reported.
    async fn commit_observed(&self, mut changes: ChangeSet) -> Result<Committed, StorageError> {
        let observer = self.1.as_ref().filter(|_| !changes.dry_run);
        let pending = observer.and_then(|observer| observer.observe(&changes.changes));
        if let Some(pending) = &pending {
            changes.then = changes.then.map(|then| pending.record_events(then));
        }
        let committed = self.0.commit(changes).await;
        if let Some(pending) = pending {
            pending.complete(&committed);
        }
        committed
    }

    /// Reads rows of one of the library's own tables, with the values of all fields.
    pub(crate) async fn read_internal(&self, query: Query) -> Result<Vec<Vec<Value>>, StorageError> {
        let all = (0..query.schema.fields.len()).collect();
        self.read_internal_fields(query, all).await
    }

    /// Reads rows of one of the library's own tables, with the values of some fields only.
    pub(crate) async fn read_internal_fields(
        &self,
        mut query: Query,
        fields: Vec<usize>,
    ) -> Result<Vec<Vec<Value>>, StorageError> {
        check_internal(&query.schema)?;
        query.keys = fields;
        query.fields = vec![query.schema.id];
        Ok(self.0.fetch(&query, &mut Vec::new()).await?.keys)
    }

    /// Commits changes to the library's own tables.
    pub(crate) async fn commit_internal(&self, changes: Vec<Change>) -> Result<Committed, StorageError> {
        for change in &changes {
            check_internal(&change.schema)?;
        }
        self.0.commit(ChangeSet::of(changes)).await
    }

    /// Notifies other nodes.
    pub(crate) async fn notify(&self, channel: &str) -> Result<(), StorageError> {
        self.0.notify(channel).await
    }

    /// Listens for notifications from other nodes; `None` where the storage does not support them.
    pub(crate) async fn listen(
        &self,
        channel: &str,
    ) -> Result<Option<Box<dyn NotificationStream>>, StorageError> {
        self.0.listen(channel).await
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(crate) async fn create_table_if_missing(&self, schema: &Arc<Schema>) -> Result<(), StorageError> {
        self.0.create_table_if_missing(schema).await
    }

    pub(crate) async fn check(
        &self,
        schema: &Arc<Schema>,
    ) -> Result<Vec<resourceful_contract::Mismatch>, StorageError> {
        self.0.check(schema).await
    }

    pub(crate) async fn ready(&self) -> Result<(), StorageError> {
        self.0.ready().await
    }

    pub(crate) async fn close(&self) -> Result<(), StorageError> {
        self.0.close().await
    }
}

/// Checks that a schema is one of the library's own tables.
///
/// # Errors
/// Where a table belongs to a resource, whose rows are accessible only with an authorization decision.
fn check_internal(schema: &Schema) -> Result<(), StorageError> {
    if tables::is_library_table(schema) {
        return Ok(());
    }
    Err(StorageError::new(resourceful_contract::ErrorKind::Internal)
        .with_context("not the library's", schema.table.clone()))
}
