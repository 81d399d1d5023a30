//! The outbox as a queue: pending and postponed events, and dead letters.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use resourceful_contract::{Change, Filter, Query, Sort, Test, Value, Write};
use uuid::Uuid;

use super::event::Event;
use super::lease::SkewedLeases;
use crate::catalog::{Catalog, Entry, GuardedStorage};
use crate::error::Error;
use crate::tables::Tables;
use crate::tables::events::{
    ATTEMPTS, BATCH, DEAD_AT, DELIVERED_AT, DUE_AT, EVENT_TYPE, EventRow, ID, SEQUENCE,
};
use tokio::sync::watch;

/// Limit of postponed events that are read at once; beyond it, later events of the remaining items may be delivered
/// early.
const MAX_POSTPONED: u32 = 10_000;

/// Upper bound of the delay before a retry. A later due time was written by a node with a wrong clock, and the event is
/// due.
pub(crate) const MAX_RETRY_DELAY: Duration = Duration::from_secs(30 * 60);

/// The outboxes of an application: one in each storage whose resources keep records.
#[derive(Debug)]
pub(crate) struct Outbox {
    catalog: Arc<Catalog>,
    storages: Vec<GuardedStorage>,
    pub(super) tables: Arc<Tables>,
    /// Path prefix of every resource.
    pub(crate) prefix: String,
    /// URL prefix of schemas, where clients can reach them (`CloudEvents` 1.0.2, `dataschema`).
    schemas: Option<String>,
    /// Incremented when an outbox has new events.
    pub(crate) appended: watch::Sender<u64>,
    /// Incremented when there may be newly published events.
    pub(crate) published: watch::Sender<u64>,
    /// Leases of other nodes that were written with a wrong clock.
    pub(crate) skewed_leases: SkewedLeases,
}

impl Outbox {
    /// Over the storages whose resources keep records of their changes.
    pub(crate) fn new(
        catalog: Arc<Catalog>,
        tables: Arc<Tables>,
        prefix: &str,
        schemas: Option<String>,
    ) -> Self {
        Self {
            storages: catalog.recording_storages(),
            catalog,
            tables,
            prefix: prefix.to_owned(),
            schemas,
            appended: watch::Sender::new(0),
            published: watch::Sender::new(0),
            skewed_leases: SkewedLeases::default(),
        }
    }

    /// The storages with an outbox, without duplicates.
    pub(crate) fn storages(&self) -> &[GuardedStorage] {
        &self.storages
    }

    /// Index of a resource's storage among these.
    pub(crate) fn database_of(&self, entry: &Entry) -> Option<usize> {
        self.storages.iter().position(|storage| storage.is_same(&entry.storage))
    }

    /// An event in the form that subscribers receive.
    pub(crate) fn to_event(&self, row: &EventRow) -> Event {
        let title = self.catalog.find(&row.resource).map_or("", |entry| entry.definition.title.as_str());
        Event::of(row, &self.prefix, self.schemas.as_deref(), title)
    }

    fn query(&self, filter: Filter, limit: u32) -> Query {
        let sort = vec![Sort::ascending(SEQUENCE)];
        Query { filter, sort, limit, ..Query::all(self.tables.events.clone()) }
    }

    /// Every event in the outbox.
    #[cfg(feature = "testing")]
    pub(crate) async fn events(&self) -> Result<Vec<Event>, Error> {
        let mut events = Vec::new();
        for storage in &self.storages {
            let rows = storage.read_internal(self.query(Filter::everything(), 100_000)).await?;
            events.extend(rows.into_iter().map(|row| self.to_event(&EventRow::from_values(row))));
        }
        Ok(events)
    }

    /// The first unpublished events: their sequence numbers and types.
    pub(crate) async fn unpublished(
        &self,
        storage: &GuardedStorage,
        limit: u32,
    ) -> Result<Vec<(i64, String)>, Error> {
        let query = self.query(Filter::Compare(BATCH, Test::IsNull(true)), limit);
        let rows = storage.read_internal_fields(query, vec![SEQUENCE, EVENT_TYPE]).await?;
        let read = |row: Vec<Value>| {
            let mut row = crate::tables::RowReader::new(row);
            (row.number(), row.text())
        };
        Ok(rows.into_iter().map(read).collect())
    }

    /// The next events to deliver, after a sequence number.
    pub(crate) async fn pending(
        &self,
        storage: &GuardedStorage,
        after: i64,
        limit: u32,
    ) -> Result<Vec<EventRow>, Error> {
        let later = Filter::Compare(SEQUENCE, Test::Gt(Value::Integer(after)));
        let now = crate::clock::now();
        let due = Filter::Any(vec![
            Filter::Compare(DUE_AT, Test::IsNull(true)),
            Filter::Compare(DUE_AT, Test::Lte(Value::DateTime(now))),
            Filter::Compare(DUE_AT, Test::Gt(Value::DateTime(now + MAX_RETRY_DELAY))),
        ]);
        let rows = storage.read_internal(self.query(undelivered_filter().and(later).and(due), limit)).await?;
        Ok(rows.into_iter().map(EventRow::from_values).collect())
    }

    /// The items with an event that waits for a retry.
    pub(crate) async fn postponed(
        &self,
        storage: &GuardedStorage,
    ) -> Result<HashSet<(String, String)>, Error> {
        let now = crate::clock::now();
        let later = Filter::All(vec![
            Filter::Compare(DUE_AT, Test::Gt(Value::DateTime(now))),
            Filter::Compare(DUE_AT, Test::Lte(Value::DateTime(now + MAX_RETRY_DELAY))),
        ]);
        let sort = vec![Sort::ascending(DUE_AT), Sort::ascending(SEQUENCE)];
        let query = Query { sort, ..self.query(undelivered_filter().and(later), MAX_POSTPONED) };
        let rows = storage.read_internal(query).await?;
        Ok(rows.into_iter().map(EventRow::from_values).map(|row| (row.resource, row.subject)).collect())
    }

    /// Dead letters, the oldest first.
    pub(crate) async fn dead_letters(&self, limit: u32) -> Result<Vec<EventRow>, Error> {
        let mut dead = Vec::new();
        for storage in &self.storages {
            let filter = Filter::Compare(DEAD_AT, Test::IsNull(false));
            dead.extend(
                storage
                    .read_internal(self.query(filter, limit))
                    .await?
                    .into_iter()
                    .map(EventRow::from_values),
            );
        }
        Ok(dead)
    }

    /// Schedules dead letters for another delivery; returns how many.
    pub(crate) async fn revive(&self, ids: &[Uuid]) -> Result<u64, Error> {
        let mut revived = 0;
        for storage in &self.storages {
            let ids = ids.iter().copied().map(Value::Uuid).collect();
            let filter =
                Filter::Compare(ID, Test::In(ids)).and(Filter::Compare(DEAD_AT, Test::IsNull(false)));
            let set = vec![(ATTEMPTS, Value::Integer(0)), (DUE_AT, Value::Null), (DEAD_AT, Value::Null)];
            let write = Write::UpdateAll { filter, set };
            let change = Change { schema: self.tables.events.clone(), write, answer: None };
            let committed = storage.commit_internal(vec![change]).await?;
            revived += committed.rows.first().map_or(0, |row| row.rows);
        }
        self.appended.send_modify(|count| *count += 1);
        Ok(revived)
    }
}

/// Events that are neither delivered to all subscribers nor dead letters.
fn undelivered_filter() -> Filter {
    Filter::Compare(DELIVERED_AT, Test::IsNull(true)).and(Filter::Compare(DEAD_AT, Test::IsNull(true)))
}
