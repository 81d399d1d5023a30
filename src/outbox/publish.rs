//! Publication: events get their position, and deliveries their result, in commits of the node that holds the lease.

use chrono::{DateTime, Utc};
use resourceful_contract::{
    Change, ErrorKind as StorageKind, Filter, Guard, StorageError, Test, Value, Version, Write,
};
use serde_json::json;

use super::Outbox;
use super::lease::{Lease, RELAY};
use crate::catalog::GuardedStorage;
use crate::error::Error;
use crate::tables::events::{ATTEMPTS, BATCH, DEAD_AT, DELIVERED_AT, DUE_AT, HANDLED, REASON, SEQUENCE};
use crate::tables::leases::EXPIRES_AT;

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

impl Outbox {
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
}

/// Whether a concurrent write of another node came first.
pub(crate) fn is_concurrent_write(error: &StorageError) -> bool {
    matches!(
        error.kind(),
        StorageKind::VersionMismatch | StorageKind::UniqueViolation | StorageKind::NotFound
    )
}
