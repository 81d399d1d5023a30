//! Purge: permanent removal of items, locks and idempotency keys after their retention.

use resourceful_contract::{Change, Filter, Guard, Position, Query, Sort, Test, Value, Write};

use super::commit::{Output, PreparedWrite};
use super::commit_plan::LOCK_PREFIX;
use crate::access::Operation;
use crate::catalog::GuardedStorage;
use crate::engine::{Call, Engine};
use crate::error::Error;
use crate::tables::keys::EXPIRES_AT;
use crate::tables::leases::{EXPIRES_AT as LEASE_EXPIRES_AT, NAME as LEASE};

/// Batch size of the removal.
const BATCH_SIZE: u32 = 100;
/// Retention of a lock after it was taken: longer than a write takes.
const LOCK_RETENTION: chrono::TimeDelta = chrono::TimeDelta::days(1);

impl Engine {
    /// Removes items that were deleted longer ago than their retention. Items that others reference stay.
    pub(crate) async fn purge(&self, storage: &GuardedStorage) -> Result<(), Error> {
        for entry in self.catalog.entries().iter().filter(|entry| entry.storage.is_same(storage)) {
            let soft = entry.definition.soft_delete.as_ref();
            let (Some(field), Some(kept)) =
                (entry.definition.deleted_at, soft.and_then(|soft| soft.purge_after))
            else {
                continue;
            };
            let kept = chrono::Duration::from_std(kept).ok();
            let Some(before) = kept.and_then(|kept| crate::clock::now().checked_sub_signed(kept)) else {
                continue;
            };
            let call = Call::as_application(self, entry);
            let mut position = Position::Start;
            loop {
                let query = Query {
                    filter: Filter::Compare(field, Test::Lt(Value::DateTime(before))),
                    sort: vec![Sort::ascending(field), Sort::ascending(entry.schema.id)],
                    fields: vec![entry.schema.id],
                    keys: vec![entry.schema.id],
                    limit: BATCH_SIZE,
                    position,
                    ..Query::all(entry.schema.clone())
                };
                let query = call.allowed.guard_query(query);
                let rows = entry.storage.fetch(&query, &mut Vec::new()).await?;
                for id in rows.keys.into_iter().flatten() {
                    call.purge_item(id, Filter::Compare(field, Test::IsNull(false))).await?;
                }
                match rows.last {
                    // Items that cannot be removed must not block the rest.
                    Some(last) if rows.more => position = Position::After(last),
                    _ => break,
                }
            }
        }
        Ok(())
    }

    /// Removes locks that were not taken within their retention.
    pub(crate) async fn purge_locks(&self, storage: &GuardedStorage) -> Result<(), Error> {
        let before = crate::clock::now() - LOCK_RETENTION;
        let filter = Filter::Compare(LEASE, Test::Starts(LOCK_PREFIX.to_owned()))
            .and(Filter::Compare(LEASE_EXPIRES_AT, Test::Lt(Value::DateTime(before))));
        let write = Write::DeleteAll { filter };
        storage
            .commit_internal(vec![Change { schema: self.tables.leases.clone(), write, answer: None }])
            .await?;
        Ok(())
    }

    /// Removes idempotency keys that have expired.
    pub(crate) async fn purge_keys(&self, storage: &GuardedStorage) -> Result<(), Error> {
        let filter = Filter::Compare(EXPIRES_AT, Test::Lt(Value::DateTime(crate::clock::now())));
        let write = Write::DeleteAll { filter };
        storage
            .commit_internal(vec![Change { schema: self.tables.keys.clone(), write, answer: None }])
            .await?;
        Ok(())
    }
}

impl Call<'_> {
    /// Removes an item that is still deleted, where the storage permits it.
    async fn purge_item(&self, id: Value, deleted: Filter) -> Result<(), Error> {
        let Ok((current, version)) = self.current(id.clone()).await else { return Ok(()) };
        let guard = Guard { filter: deleted, version: Some(version) };
        let write = Write::Delete { id, guard };
        let mut main = self.pending_change(&self.allowed, Operation::Delete, write, Some(current), None);
        main.record.event = "purged".into();
        main.record.audit_operation = "purge".into();
        let prepared = vec![PreparedWrite { main, enlisted: Vec::new() }];
        match self.commit(prepared, &Output::Item).await {
            Ok(_) => Ok(()),
            Err(failure) => match Error::from(failure.error) {
                error if error.kind() == crate::error::ErrorKind::Unavailable => Err(error),
                error => {
                    tracing::debug!(%error, resource = &*self.entry.name, "an item is kept: it could not be purged");
                    Ok(())
                }
            },
        }
    }
}
