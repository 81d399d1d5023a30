//! Lease of a database's relay: determines the node that publishes and delivers its events.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use resourceful_contract::{Change, Filter, Guard, Query, Test, Value, Version, Write};

use super::publish::is_concurrent_write;
use super::queue::Outbox;
use crate::catalog::GuardedStorage;
use crate::error::Error;
use crate::tables::leases::{EXPIRES_AT, HOLDER, LeaseRow};

/// The name of a relay's lease.
pub(crate) const RELAY: &str = "relay";

/// A lease that this node holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lease {
    pub(super) version: i64,
    pub(super) expires_at: DateTime<Utc>,
}

impl Lease {
    /// Validity of a lease without renewal.
    pub(crate) const DURATION: Duration = Duration::from_secs(30);
    /// Renewal interval.
    pub(crate) const RENEWAL_INTERVAL: Duration = Duration::from_secs(10);

    /// Whether it remains valid for longer than one renewal interval.
    pub(crate) fn is_fresh(&self) -> bool {
        self.expires_at > Utc::now() + Self::RENEWAL_INTERVAL
    }
}

/// Leases of other nodes with an expiry further ahead than a lease lasts. Only a node with a wrong clock writes such an
/// expiry, and the lease would outlive its holder by the clock error. The expiry is therefore ignored: the lease has
/// ended when this node has seen it unchanged for the length of a lease, by its own monotonic clock, since a live holder
/// renews it.
#[derive(Debug, Default)]
pub(crate) struct SkewedLeases {
    leases: Mutex<Vec<SkewedLease>>,
    /// Number of leases taken over from a holder that was gone.
    taken_over: AtomicU64,
}

#[derive(Debug)]
struct SkewedLease {
    storage: GuardedStorage,
    version: i64,
    since: Instant,
}

impl SkewedLeases {
    /// Number of leases taken over before their expiry.
    pub(crate) fn taken_over(&self) -> u64 {
        self.taken_over.load(Ordering::Relaxed)
    }

    /// Whether the holder of a lease is gone although the lease has not expired. `now` is the clock that leases are
    /// written by, `at` this node's monotonic clock.
    fn is_holder_gone(
        &self,
        storage: &GuardedStorage,
        lease: &LeaseRow,
        now: DateTime<Utc>,
        at: Instant,
    ) -> bool {
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        leases.retain(|one| !one.storage.is_same(storage) || one.version == lease.version);
        if lease.expires_at <= now + Lease::DURATION {
            return false;
        }
        let Some(known) = leases.iter().find(|one| one.storage.is_same(storage)) else {
            let (holder, expires_at) = (&lease.holder, &lease.expires_at);
            tracing::warn!(%holder, %expires_at, "a lease expires later than possible: check the clock of its holder");
            leases.push(SkewedLease { storage: storage.clone(), version: lease.version, since: at });
            return false;
        };
        let is_holder_gone = at.duration_since(known.since) >= Lease::DURATION;
        if is_holder_gone {
            self.taken_over.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(holder = %lease.holder, "the lease is taken: its holder has not renewed it");
        }
        is_holder_gone
    }
}

impl Outbox {
    /// Acquires or renews the lease of a database's relay; `None` where another node holds it.
    pub(crate) async fn acquire_lease(
        &self,
        storage: &GuardedStorage,
        holder: &str,
    ) -> Result<Option<Lease>, Error> {
        self.acquire_lease_at(storage, holder, Instant::now()).await
    }

    async fn acquire_lease_at(
        &self,
        storage: &GuardedStorage,
        holder: &str,
        at: Instant,
    ) -> Result<Option<Lease>, Error> {
        let mut query = Query::all(self.tables.leases.clone());
        query.filter = Filter::Compare(0, Test::Eq(Value::Text(RELAY.to_owned())));
        let existing = storage.read_internal(query).await?.pop().map(LeaseRow::from_values);
        let now = crate::clock::now();
        let expires_at = now + Lease::DURATION;
        let (write, version) = match existing {
            Some(lease)
                if lease.holder != holder
                    && lease.expires_at > now
                    && !self.skewed_leases.is_holder_gone(storage, &lease, now, at) =>
            {
                return Ok(None);
            }
            Some(lease) => {
                let set =
                    vec![(HOLDER, Value::Text(holder.to_owned())), (EXPIRES_AT, Value::DateTime(expires_at))];
                let guard = Guard::version(Version::Counter(lease.version));
                (Write::Update { id: Value::Text(lease.name), set, guard }, lease.version + 1)
            }
            None => {
                let (name, holder) = (RELAY.to_owned(), holder.to_owned());
                let lease = LeaseRow { name, version: 1, holder, expires_at, state: None };
                (Write::Insert { values: lease.into_values() }, 1)
            }
        };
        match storage.commit_internal(vec![self.lease_change(write)]).await {
            Ok(_) => Ok(Some(Lease { version, expires_at })),
            Err(error) if is_concurrent_write(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Releases the lease, so that another node can acquire it at once.
    pub(crate) async fn release_lease(&self, storage: &GuardedStorage, holder: &str) -> Result<(), Error> {
        let Some(lease) = self.acquire_lease(storage, holder).await? else { return Ok(()) };
        let set = vec![(EXPIRES_AT, Value::DateTime(crate::clock::now()))];
        let guard = Guard::version(Version::Counter(lease.version));
        let write = Write::Update { id: Value::Text(RELAY.to_owned()), set, guard };
        storage
            .commit_internal(vec![self.lease_change(write)])
            .await
            .map(drop)
            .or_else(|error| if is_concurrent_write(&error) { Ok(()) } else { Err(error.into()) })
    }

    pub(crate) fn lease_change(&self, write: Write) -> Change {
        Change { schema: self.tables.leases.clone(), write, answer: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Permissions, anyone};
    use crate::catalog::Catalog;
    use crate::resource::define_dynamic_resource;
    use crate::tables::Tables;
    use std::sync::Arc;

    /// Sets the lease's expiry two hours ahead, as a holder with a wrong clock would.
    async fn set_skewed_expiry(outbox: &Outbox, storage: &GuardedStorage) {
        let ahead = Value::DateTime(crate::clock::now() + chrono::TimeDelta::hours(2));
        let write = Write::UpdateAll { filter: Filter::everything(), set: vec![(EXPIRES_AT, ahead)] };
        storage.commit_internal(vec![outbox.lease_change(write)]).await.unwrap();
    }

    #[tokio::test]
    async fn lease_of_skewed_holder_is_taken_over() {
        let schema = serde_json::json!({"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]});
        let things = define_dynamic_resource("things", schema)
            .adapter(resourceful_memory::Memory::new().table("things"))
            .permissions(Permissions::all(anyone()))
            .build()
            .unwrap();
        let (catalog, _) = Catalog::link(&[things], None);
        let tables = Arc::new(Tables::new());
        let outbox = &Outbox::new(Arc::new(catalog), tables.clone(), "", None);
        let storage = &outbox.storages()[0];
        for table in tables.all() {
            storage.create_table_if_missing(table).await.unwrap();
        }
        let began = Instant::now();
        let is_taken = async |holder: &str, seconds: u64| {
            let at = began + Duration::from_secs(seconds);
            outbox.acquire_lease_at(storage, holder, at).await.unwrap().is_some()
        };

        assert!(is_taken("ahead", 0).await);
        set_skewed_expiry(outbox, storage).await;
        // The holder may be alive, so the lease is left alone for the length of a lease.
        assert!(!is_taken("other", 0).await);
        assert!(!is_taken("other", 29).await);
        // The holder is alive: it has written to the lease, which restarts the wait.
        assert!(is_taken("ahead", 29).await);
        set_skewed_expiry(outbox, storage).await;
        assert!(!is_taken("other", 31).await);
        assert!(!is_taken("other", 60).await);
        assert_eq!(outbox.skewed_leases.taken_over(), 0);
        // The holder is gone: another node takes over after the length of a lease, not after two hours.
        assert!(is_taken("other", 61).await);
        assert_eq!(outbox.skewed_leases.taken_over(), 1);
        // A lease with a plausible expiry is respected.
        assert!(!is_taken("ahead", 10_000).await);
    }
}
