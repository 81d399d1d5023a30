//! The outbox: pending events, their publication, delivery results and dead letters.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use resourceful_contract::{
    Change, ErrorKind as StorageKind, Filter, Guard, Query, Sort, StorageError, Test, Value, Version, Write,
};
use serde_json::json;
use uuid::Uuid;

use super::event::Event;
use super::lease::{Lease, RELAY, SkewedLeases};
use crate::catalog::{Catalog, Entry, GuardedStorage};
use crate::error::Error;
use crate::tables::Tables;
use crate::tables::events::{
    ATTEMPTS, BATCH, DEAD_AT, DELIVERED_AT, DUE_AT, EVENT_TYPE, EventRow, HANDLED, ID, REASON, SEQUENCE,
};
use crate::tables::leases::EXPIRES_AT;
use tokio::sync::watch;

/// Limit of postponed events that are read at once; beyond it, later events of the remaining items may be delivered
/// early.
const MAX_POSTPONED: u32 = 10_000;

/// Upper bound of the delay before a retry. A later due time was written by a node with a wrong clock, and the event is
/// due.
pub(crate) const MAX_RETRY_DELAY: Duration = Duration::from_secs(30 * 60);

/// State changes of events that are written in one commit.
#[derive(Debug, Default)]
pub(crate) struct EventUpdates {
    /// Events that get their position, to be delivered from now on.
    pub(crate) published: Vec<i64>,
    /// Events that get their position but are not to be delivered.
    pub(crate) published_only: Vec<i64>,
    /// Events that were delivered to all subscribers.
    pub(crate) delivered: Vec<i64>,
    pub(crate) failed: Vec<FailedDelivery>,
}

impl EventUpdates {
    pub(crate) fn is_empty(&self) -> bool {
        let Self { published, published_only, delivered, failed } = self;
        published.is_empty() && published_only.is_empty() && delivered.is_empty() && failed.is_empty()
    }

    /// Whether any event gets its position.
    pub(crate) const fn has_publications(&self) -> bool {
        !self.published.is_empty() || !self.published_only.is_empty()
    }

    /// The number of events.
    pub(crate) fn len(&self) -> usize {
        self.published.len() + self.published_only.len() + self.delivered.len() + self.failed.len()
    }
}

/// The result of a failed delivery.
#[derive(Debug)]
pub(crate) struct FailedDelivery {
    pub(crate) sequence: i64,
    pub(crate) attempts: i64,
    pub(crate) reason: String,
    /// Time of the next retry.
    pub(crate) due_at: Option<DateTime<Utc>>,
    /// Time at which the event became a dead letter.
    pub(crate) dead_at: Option<DateTime<Utc>>,
    /// The subscribers that handled it.
    pub(crate) handled: Vec<String>,
}

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

    /// Publishes new events, records successful and failed deliveries, and renews the lease; returns `None` where the
    /// lease was lost meanwhile.
    pub(crate) async fn commit_updates(
        &self,
        storage: &GuardedStorage,
        lease: Lease,
        updates: EventUpdates,
    ) -> Result<Option<Lease>, Error> {
        let schema = &self.tables.events;
        let of = |write| Change { schema: schema.clone(), write, answer: None };
        let now = crate::clock::now();
        let expires_at = now + Lease::DURATION;
        let guard = Guard::version(Version::Counter(lease.version));
        let set = vec![(EXPIRES_AT, Value::DateTime(expires_at))];
        let fence = Write::Update { id: Value::Text(RELAY.to_owned()), set, guard };
        let mut changes = vec![self.lease_change(fence)];
        // The fencing token increases with each commit, so readers that order by it miss nothing.
        let position = || (BATCH, Value::Integer(lease.version + 1));
        let delivered_now = || (DELIVERED_AT, Value::DateTime(now));
        for (sequences, set) in [
            (updates.published, vec![position()]),
            (updates.published_only, vec![position(), delivered_now()]),
            (updates.delivered, vec![delivered_now(), (DUE_AT, Value::Null)]),
        ] {
            if !sequences.is_empty() {
                let sequences = sequences.into_iter().map(Value::Integer).collect();
                let filter = Filter::Compare(SEQUENCE, Test::In(sequences));
                changes.push(of(Write::UpdateAll { filter, set }));
            }
        }
        let instant = |at: Option<DateTime<Utc>>| at.map_or(Value::Null, Value::DateTime);
        for one in updates.failed {
            let mut reason = one.reason;
            reason.retain(|character| character != '\0');
            let set = vec![
                (ATTEMPTS, Value::Integer(one.attempts)),
                (DUE_AT, instant(one.due_at)),
                (REASON, Value::Text(reason.chars().take(2_000).collect())),
                (DEAD_AT, instant(one.dead_at)),
                (HANDLED, Value::Text(json!(one.handled).to_string())),
            ];
            let id = Value::Integer(one.sequence);
            changes.push(of(Write::Update { id, set, guard: Guard::none() }));
        }
        match storage.commit_internal(changes).await {
            Ok(_) => Ok(Some(Lease { version: lease.version + 1, expires_at })),
            Err(error) if is_concurrent_write(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
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

/// Whether a concurrent write of another node came first.
pub(crate) fn is_concurrent_write(error: &StorageError) -> bool {
    matches!(
        error.kind(),
        StorageKind::VersionMismatch | StorageKind::UniqueViolation | StorageKind::NotFound
    )
}
