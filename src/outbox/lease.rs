//! Lease of a database's relay: determines the node that publishes and delivers its events.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use resourceful_contract::{Change, Filter, Guard, Query, Test, Value, Version, Write};

use super::queue::Outbox;
use super::queue::is_lost;
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
    pub(crate) const LENGTH: Duration = Duration::from_secs(30);
    /// Renewal interval.
    pub(crate) const RENEWED: Duration = Duration::from_secs(10);

    /// Whether it remains valid for longer than one renewal interval.
    pub(crate) fn is_fresh(&self) -> bool {
        self.expires_at > Utc::now() + Self::RENEWED
    }
}

/// Leases of other nodes with an expiry further ahead than a lease lasts. Only a node with a wrong clock writes such an
/// expiry, and the lease would outlive its holder by the clock error. The expiry is therefore ignored: the lease has
/// ended when this node has seen it unchanged for the length of a lease, by its own monotonic clock, since a live holder
/// renews it.
#[derive(Debug, Default)]
pub(crate) struct SkewedLeases {
    seen: Mutex<Vec<Seen>>,
    /// Number of leases taken over from a holder that was gone.
    outlived: AtomicU64,
}

#[derive(Debug)]
struct Seen {
    vault: GuardedStorage,
    version: i64,
    since: Instant,
}

impl SkewedLeases {
    /// Number of leases taken over before their expiry.
    pub(crate) fn outlived(&self) -> u64 {
        self.outlived.load(Ordering::Relaxed)
    }

    /// Whether the holder of a lease is gone although the lease has not expired. `now` is the clock that leases are
    /// written by, `at` this node's monotonic clock.
    fn are_outlived_by(
        &self,
        vault: &GuardedStorage,
        lease: &LeaseRow,
        now: DateTime<Utc>,
        at: Instant,
    ) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|one| !one.vault.is(vault) || one.version == lease.version);
        if lease.expires_at <= now + Lease::LENGTH {
            return false;
        }
        let Some(known) = seen.iter().find(|one| one.vault.is(vault)) else {
            let (holder, expires_at) = (&lease.holder, &lease.expires_at);
            tracing::warn!(%holder, %expires_at, "a lease ends later than it can: is the clock of its holder right?");
            seen.push(Seen { vault: vault.clone(), version: lease.version, since: at });
            return false;
        };
        let is_outlived = at.duration_since(known.since) >= Lease::LENGTH;
        if is_outlived {
            self.outlived.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(holder = %lease.holder, "the lease is taken: its holder has not renewed it");
        }
        is_outlived
    }
}

impl Outbox {
    /// Acquires or renews the lease of a database's relay; `None` where another node holds it.
    pub(crate) async fn lease(&self, vault: &GuardedStorage, holder: &str) -> Result<Option<Lease>, Error> {
        self.lease_at(vault, holder, Instant::now()).await
    }

    async fn lease_at(
        &self,
        vault: &GuardedStorage,
        holder: &str,
        at: Instant,
    ) -> Result<Option<Lease>, Error> {
        let mut query = Query::all(self.tables.leases.clone());
        query.filter = Filter::Compare(0, Test::Eq(Value::Text(RELAY.to_owned())));
        let held = vault.kept(query).await?.pop().map(LeaseRow::read);
        let now = crate::clock::now();
        let expires_at = now + Lease::LENGTH;
        let (write, version) = match held {
            Some(lease)
                if lease.holder != holder
                    && lease.expires_at > now
                    && !self.skewed_leases.are_outlived_by(vault, &lease, now, at) =>
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
                (Write::Insert { values: lease.values() }, 1)
            }
        };
        match vault.keep(vec![self.lease_change(write)]).await {
            Ok(_) => Ok(Some(Lease { version, expires_at })),
            Err(error) if is_lost(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Releases the lease, so that another node can acquire it at once.
    pub(crate) async fn give_up(&self, vault: &GuardedStorage, holder: &str) -> Result<(), Error> {
        let Some(lease) = self.lease(vault, holder).await? else { return Ok(()) };
        let set = vec![(EXPIRES_AT, Value::DateTime(crate::clock::now()))];
        let guard = Guard::version(Version::Counter(lease.version));
        let write = Write::Update { id: Value::Text(RELAY.to_owned()), set, guard };
        vault
            .keep(vec![self.lease_change(write)])
            .await
            .map(drop)
            .or_else(|error| if is_lost(&error) { Ok(()) } else { Err(error.into()) })
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
    async fn put_ahead(outbox: &Outbox, vault: &GuardedStorage) {
        let ahead = Value::DateTime(crate::clock::now() + chrono::TimeDelta::hours(2));
        let write = Write::UpdateAll { filter: Filter::everything(), set: vec![(EXPIRES_AT, ahead)] };
        vault.keep(vec![outbox.lease_change(write)]).await.unwrap();
    }

    #[tokio::test]
    async fn a_lease_does_not_outlive_its_holder_by_the_error_of_its_clock() {
        let schema = serde_json::json!({"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]});
        let things = define_dynamic_resource("things", schema)
            .adapter(resourceful_memory::Memory::new().table("things"))
            .permissions(Permissions::all(anyone()))
            .build()
            .unwrap();
        let (catalog, _) = Catalog::link(&[things], None);
        let tables = Arc::new(Tables::new());
        let outbox = &Outbox::new(Arc::new(catalog), tables.clone(), "", None);
        let vault = &outbox.storages()[0];
        for table in tables.all() {
            vault.create_table_if_missing(table).await.unwrap();
        }
        let began = Instant::now();
        let is_taken = async |holder: &str, seconds: u64| {
            let at = began + Duration::from_secs(seconds);
            outbox.lease_at(vault, holder, at).await.unwrap().is_some()
        };

        assert!(is_taken("ahead", 0).await);
        put_ahead(outbox, vault).await;
        // The holder may be alive, so the lease is left alone for the length of a lease.
        assert!(!is_taken("other", 0).await);
        assert!(!is_taken("other", 29).await);
        // The holder is alive: it has written to the lease, which restarts the wait.
        assert!(is_taken("ahead", 29).await);
        put_ahead(outbox, vault).await;
        assert!(!is_taken("other", 31).await);
        assert!(!is_taken("other", 60).await);
        assert_eq!(outbox.skewed_leases.outlived(), 0);
        // The holder is gone: another node takes over after the length of a lease, not after two hours.
        assert!(is_taken("other", 61).await);
        assert_eq!(outbox.skewed_leases.outlived(), 1);
        // A lease with a plausible expiry is respected.
        assert!(!is_taken("ahead", 10_000).await);
    }
}
