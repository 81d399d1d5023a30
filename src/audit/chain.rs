//! The audit trail as a hash chain: each entry's seal covers the entry and the previous seal, so that a removed or
//! altered entry is detected.
//!
//! Entries are written by many concurrent transactions, but a chain has one end. So they are sealed shortly afterwards,
//! in the order in which the holder of the chain's lease finds them; the lease's version prevents concurrent sealing.
//! Entries that are not sealed yet are sealed before a chain is verified.

use std::time::Duration;

use chrono::{DateTime, Utc};
use resourceful_contract::{
    Change, ErrorKind as StorageKind, Filter, Guard, Query, Sort, Test, Value, Version, Write,
};
use serde_json::json;

use crate::catalog::{Catalog, GuardedStorage};
use crate::error::Error;
use crate::tables::Tables;
use crate::tables::audit::{ACTOR, ADDRESS, AT, AuditRow, CHANGES, LINK, POSITION, REQUEST, RESOURCE, SEAL};
use crate::tables::leases::{LeaseRow, STATE};
use std::sync::Arc;

/// The lease that stores the chain's end.
const CHAIN_LEASE: &str = "audit";
/// Batch size for sealing and reading.
const BATCH_SIZE: u32 = 500;

/// Minimum retention: younger entries are never emptied.
const MIN_RETENTION: Duration = Duration::from_secs(24 * 3600);

/// The result of verifying an audit trail.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditVerdict {
    /// The number of entries that were found to be as written.
    pub entries: u64,
    /// The seal of the last entry, which covers all entries. A copy that is kept elsewhere reveals a trail that was
    /// rebuilt.
    pub head: Option<String>,
    /// The fault of the first entry that was changed after it was written.
    pub broken: Option<String>,
}

/// The end of a chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct ChainEnd {
    link: i64,
    seal: Option<String>,
}

impl ChainEnd {
    fn of(state: Option<&str>) -> Self {
        let state: serde_json::Value =
            state.and_then(|state| serde_json::from_str(state).ok()).unwrap_or_default();
        Self { link: state["link"].as_i64().unwrap_or(0), seal: state["seal"].as_str().map(str::to_owned) }
    }

    /// The end after one more entry.
    fn append(&self, digest: &str) -> Self {
        let link = self.link + 1;
        let covered = format!("{link} {} {digest}", self.seal.as_deref().unwrap_or_default());
        Self { link, seal: Some(blake3::hash(covered.as_bytes()).to_hex().to_string()) }
    }

    fn state(&self) -> String {
        json!({"link": self.link, "seal": self.seal}).to_string()
    }
}

/// The audit trails of an application: one in each storage whose resources keep records.
#[derive(Debug)]
pub(crate) struct AuditTrails {
    catalog: Arc<Catalog>,
    storages: Vec<GuardedStorage>,
    tables: Arc<Tables>,
}

impl AuditTrails {
    pub(crate) fn new(catalog: Arc<Catalog>, tables: Arc<Tables>) -> Self {
        Self { storages: catalog.recording_storages(), catalog, tables }
    }

    /// Seals every entry that is not part of the chain yet, and verifies the chains.
    pub(crate) async fn verify(&self) -> Result<Vec<AuditVerdict>, Error> {
        let mut verdicts = Vec::new();
        for storage in &self.storages {
            while self.seal(storage).await? > 0 {}
            verdicts.push(self.verify_storage(storage).await?);
        }
        Ok(verdicts)
    }

    /// Seals a batch of entries that are not part of the chain yet; returns how many.
    pub(crate) async fn seal(&self, storage: &GuardedStorage) -> Result<usize, Error> {
        let schema = &self.tables.audit;
        let query = Query {
            filter: Filter::Compare(LINK, Test::IsNull(true)),
            sort: vec![Sort::ascending(POSITION)],
            limit: BATCH_SIZE,
            ..Query::all(schema.clone())
        };
        let entries: Vec<_> =
            storage.read_internal(query).await?.into_iter().map(AuditRow::from_values).collect();
        if entries.is_empty() {
            return Ok(0);
        }
        let lease = self.chain_lease(storage).await?;
        let mut end = ChainEnd::of(lease.as_ref().and_then(|lease| lease.state.as_deref()));
        let mut changes = Vec::with_capacity(entries.len() + 1);
        for entry in &entries {
            end = end.append(&digest(entry));
            let seal = end.seal.clone().map_or(Value::Null, Value::Text);
            let write = Write::Update {
                id: Value::Integer(entry.position),
                set: vec![(LINK, Value::Integer(end.link)), (SEAL, seal)],
                guard: Guard { filter: Filter::Compare(LINK, Test::IsNull(true)), version: None },
            };
            changes.push(Change { schema: schema.clone(), write, answer: None });
        }
        let found = lease.as_ref().map(|lease| lease.version);
        changes.insert(0, self.chain_end_change(lease, &end));
        let Err(error) = storage.commit_internal(changes).await else {
            return Ok(entries.len());
        };
        match error.kind() {
            // Another node is sealing, or an entry was deleted, so there may be more.
            StorageKind::VersionMismatch | StorageKind::NotFound => Ok(1),
            StorageKind::UniqueViolation => {
                if self.chain_lease(storage).await?.map(|lease| lease.version) != found {
                    return Ok(1);
                }
                // No other node has sealed, so an entry that was never sealed has the next number, and will have it next
                // time too.
                tracing::error!(
                    "the audit trail was tampered with: an entry is numbered beyond the chain's end"
                );
                Ok(0)
            }
            _ => Err(error.into()),
        }
    }

    async fn chain_lease(&self, storage: &GuardedStorage) -> Result<Option<LeaseRow>, Error> {
        let mut query = Query::all(self.tables.leases.clone());
        query.filter = Filter::Compare(0, Test::Eq(Value::Text(CHAIN_LEASE.to_owned())));
        Ok(storage.read_internal(query).await?.pop().map(LeaseRow::from_values))
    }

    /// The write of the chain's end to its lease, guarded by the lease's version that was read.
    fn chain_end_change(&self, lease: Option<LeaseRow>, end: &ChainEnd) -> Change {
        let write = match lease {
            Some(lease) => Write::Update {
                id: Value::Text(lease.name),
                set: vec![(STATE, Value::Text(end.state()))],
                guard: Guard::version(Version::Counter(lease.version)),
            },
            None => {
                let lease = LeaseRow {
                    name: CHAIN_LEASE.to_owned(),
                    version: 1,
                    holder: String::new(),
                    expires_at: DateTime::<Utc>::UNIX_EPOCH,
                    state: Some(end.state()),
                };
                Write::Insert { values: lease.into_values() }
            }
        };
        Change { schema: self.tables.leases.clone(), write, answer: None }
    }

    /// Verifies the chain from its beginning.
    async fn verify_storage(&self, storage: &GuardedStorage) -> Result<AuditVerdict, Error> {
        // The chain's end is read first, since the chain may grow meanwhile.
        let lease = self.chain_lease(storage).await?;
        let last = ChainEnd::of(lease.as_ref().and_then(|lease| lease.state.as_deref()));
        let mut end = ChainEnd::default();
        let verdict = |end: &ChainEnd, broken: Option<String>| AuditVerdict {
            entries: u64::try_from(end.link).unwrap_or(0),
            head: end.seal.clone(),
            broken,
        };
        while end.link < last.link {
            let after = Filter::Compare(LINK, Test::Gt(Value::Integer(end.link)));
            let upto = Filter::Compare(LINK, Test::Lte(Value::Integer(last.link)));
            let query = Query {
                filter: after.and(upto),
                sort: vec![Sort::ascending(LINK), Sort::ascending(POSITION)],
                limit: BATCH_SIZE,
                ..Query::all(self.tables.audit.clone())
            };
            let entries: Vec<_> =
                storage.read_internal(query).await?.into_iter().map(AuditRow::from_values).collect();
            if entries.is_empty() {
                return Ok(verdict(&end, Some(format!("entry {} and all after it are gone", end.link + 1))));
            }
            for entry in entries {
                let next = end.append(&digest(&entry));
                let broken = if entry.link != Some(next.link) {
                    Some(format!("entry {} is gone", next.link))
                } else if entry.seal != next.seal {
                    Some(format!("entry {} was changed after it was written", next.link))
                } else if entry.is_emptied() && !self.is_past_retention(&entry) {
                    Some(format!("entry {} was emptied before its retention ended", next.link))
                } else {
                    None
                };
                if broken.is_some() {
                    return Ok(verdict(&end, broken));
                }
                end = next;
            }
        }
        let broken = match end != last {
            true => Some("the end of the chain does not match its record".to_owned()),
            false => self.find_unchained(storage, end.link).await?,
        };
        Ok(verdict(&end, broken))
    }

    /// The fault of an entry whose number was not assigned by the chain.
    async fn find_unchained(&self, storage: &GuardedStorage, last: i64) -> Result<Option<String>, Error> {
        let query = Query {
            filter: Filter::Any(vec![
                Filter::Compare(LINK, Test::Lt(Value::Integer(1))),
                Filter::Compare(LINK, Test::Gt(Value::Integer(last))),
            ]),
            sort: vec![Sort::ascending(LINK), Sort::ascending(POSITION)],
            limit: BATCH_SIZE,
            ..Query::all(self.tables.audit.clone())
        };
        let links: Vec<_> = storage
            .read_internal(query)
            .await?
            .into_iter()
            .filter_map(|row| AuditRow::from_values(row).link)
            .collect();
        if links.is_empty() {
            return Ok(None);
        }
        // The chain may have grown meanwhile: numbers and the chain's end are written in one commit.
        let lease = self.chain_lease(storage).await?;
        let last = ChainEnd::of(lease.as_ref().and_then(|lease| lease.state.as_deref())).link;
        let unchained = links.into_iter().find(|link| !(1..=last).contains(link));
        Ok(unchained.map(|link| format!("entry {link} was never sealed: the chain ends at {last}")))
    }

    /// The time before which entries of a resource may be emptied.
    fn retention_cutoff(&self, resource: &str) -> Option<DateTime<Utc>> {
        let entry = self.catalog.find(resource).ok()?;
        let retention = entry.definition.audit.as_ref()?.retention?.max(MIN_RETENTION);
        crate::clock::now().checked_sub_signed(chrono::Duration::from_std(retention).ok()?)
    }

    fn is_past_retention(&self, entry: &AuditRow) -> bool {
        // The retention of a resource that no longer exists is unknown.
        self.catalog.find(&entry.resource).is_err()
            || self.retention_cutoff(&entry.resource).is_some_and(|before| entry.at < before)
    }

    /// Empties a batch of entries after their retention: their digests stay, so that the chain can still be verified.
    pub(crate) async fn empty_expired(&self, storage: &GuardedStorage) -> Result<usize, Error> {
        let mut emptied_count = 0;
        for entry in self.catalog.entries().iter().filter(|entry| entry.storage.is_same(storage)) {
            let Some(before) = self.retention_cutoff(&entry.name) else { continue };
            let text = |text: &str| Value::Text(text.to_owned());
            let filters = vec![
                Filter::Compare(RESOURCE, Test::Eq(text(&entry.name))),
                Filter::Compare(AT, Test::Lt(Value::DateTime(before))),
                Filter::Compare(LINK, Test::IsNull(false)),
                Filter::Not(Box::new(Filter::Compare(
                    CHANGES,
                    Test::Starts(AuditRow::EMPTIED_PREFIX.to_owned()),
                ))),
            ];
            let query = Query {
                filter: Filter::All(filters),
                sort: vec![Sort::ascending(POSITION)],
                limit: BATCH_SIZE,
                ..Query::all(self.tables.audit.clone())
            };
            let entries = storage.read_internal(query).await?.into_iter().map(AuditRow::from_values);
            let emptied = |entry: AuditRow| {
                let left = format!("{}{}", AuditRow::EMPTIED_PREFIX, digest(&entry));
                let set = [(CHANGES, Value::Text(left)), (ACTOR, Value::Null), (REQUEST, Value::Null)];
                let set = set.into_iter().chain([(ADDRESS, Value::Null)]).collect();
                let (id, guard) = (Value::Integer(entry.position), Guard::none());
                let write = Write::Update { id, set, guard };
                Change { schema: self.tables.audit.clone(), write, answer: None }
            };
            let changes: Vec<_> = entries.map(emptied).collect();
            emptied_count += changes.len();
            if !changes.is_empty() {
                storage.commit_internal(changes).await?;
            }
        }
        Ok(emptied_count)
    }
}

/// Digest of the content of an entry.
fn digest(entry: &AuditRow) -> String {
    if let Some(digest) = entry.changes.strip_prefix(AuditRow::EMPTIED_PREFIX) {
        return digest.to_owned();
    }
    let content = json!([
        entry.position,
        entry.resource,
        entry.item,
        entry.operation,
        entry.at.timestamp_micros(),
        entry.actor,
        entry.tenant,
        entry.request,
        entry.address,
        entry.changes,
    ]);
    blake3::hash(content.to_string().as_bytes()).to_hex().to_string()
}
