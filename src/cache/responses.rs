//! Response cache: looks up responses, computes missing ones, and has stale ones revalidated in the background.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use futures::future::BoxFuture;
use moka::Expiry;
use moka::sync::Cache as Local;

use super::cached_response::{CachedResponse, Content};
use super::horizon::InvalidationHorizon;
use super::settings::{CacheCounts, QueryCache};
use super::shared::SharedStore;
use super::single_flight::Flights;
use super::tags::{Tag, TagSnapshot, TagVersions};
use crate::digest::DigestInput;
use crate::error::{Error, ErrorKind, Fault};
use crate::resource::Freshness;

/// Limit on concurrent background revalidations: they run beside the requests that are counted.
const MAX_REVALIDATIONS: usize = 32;

/// How long to wait for a response that another node is computing, and how often to poll for it.
const CLAIM_WAIT: Duration = Duration::from_secs(2);
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// The longest key, in bytes, that is kept as it is; longer ones are replaced by their digest.
const MAX_KEY_LENGTH: usize = 512;

/// Cache key: everything that a response depends on, or a digest of that where it is long.
///
/// Short keys are compared as they are, which costs a hit less than a digest would.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key(Vec<u8>);

impl Key {
    /// The key of a response that depends on all of this input.
    pub(crate) fn of(input: DigestInput) -> Self {
        let bytes = input.into_bytes();
        if bytes.len() <= MAX_KEY_LENGTH {
            return Self(bytes);
        }
        // No other key is as short: those begin with a word and a digest.
        Self(blake3::hash(&bytes).as_bytes().to_vec())
    }

    /// The name of the key outside this node.
    pub(super) fn digest(&self) -> blake3::Hash {
        blake3::hash(&self.0)
    }
}

/// A cacheable response: its key and its freshness lifetimes.
#[derive(Clone, Debug)]
pub(crate) struct Lookup {
    pub(crate) key: Key,
    pub(crate) freshness: Freshness,
}

/// Why a response could not be computed, for all requests that waited for it: they have the same query and the same
/// rights.
#[derive(Debug)]
pub(super) struct ComputeFailure {
    kind: ErrorKind,
    code: &'static str,
    detail: String,
    faults: Vec<Fault>,
}

impl ComputeFailure {
    fn of(error: &Error) -> Self {
        let (kind, code, detail) = (error.kind(), error.code(), error.detail().to_owned());
        Self { kind, code, detail, faults: error.faults().to_vec() }
    }

    fn to_error(&self) -> Error {
        Error::new(self.kind, self.code, self.detail.clone()).with_faults(self.faults.clone())
    }
}

/// Computes a response.
pub(crate) type ComputeFn<'a> = dyn Fn() -> BoxFuture<'a, Result<Content, Error>> + Send + Sync + 'a;

/// Whether responses computed by other nodes may be served, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    No,
    Any,
    /// Fresh ones only: for a revalidation, for which a stale response is of no use.
    Fresh,
}

/// How a response was obtained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CacheStatus {
    Hit,
    Stale,
    /// Computed; `true` if it is cached from now on.
    Miss(bool),
    Bypass,
}

/// The response cache of one application.
#[derive(Debug)]
pub(crate) struct ResponseCache {
    local: Local<Key, Arc<CachedResponse>, RandomState>,
    max_entry_size: usize,
    tag_versions: Arc<TagVersions>,
    flights: Flights,
    revalidating: Mutex<HashSet<Key>>,
    /// The store that nodes share, if there is one.
    shared: Option<Arc<SharedStore>>,
    /// Whether the bus is unreachable, so that changes on other nodes are not known here.
    pub(super) is_disconnected: AtomicBool,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    hits: AtomicU64,
    stale: AtomicU64,
    shared: AtomicU64,
    misses: AtomicU64,
    bypassed: AtomicU64,
}

/// A permit to revalidate one cached response, until it is dropped.
#[derive(Debug)]
pub(crate) struct RevalidationPermit {
    cache: Arc<ResponseCache>,
    key: Key,
}

impl Drop for RevalidationPermit {
    fn drop(&mut self) {
        self.cache.revalidating.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

/// Expiry policy: an entry is removed when it may no longer be served, not even stale.
struct ResponseExpiry;

impl Expiry<Key, Arc<CachedResponse>> for ResponseExpiry {
    fn expire_after_create(&self, _: &Key, response: &Arc<CachedResponse>, _: Instant) -> Option<Duration> {
        Some(response.freshness.total().saturating_sub(response.age()))
    }

    fn expire_after_update(
        &self,
        _: &Key,
        response: &Arc<CachedResponse>,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(response.freshness.total().saturating_sub(response.age()))
    }
}

impl ResponseCache {
    /// The cache of an application; `application` is a name that all its nodes have and no other application has.
    pub(crate) fn new(settings: &QueryCache, tag_versions: Arc<TagVersions>, application: String) -> Self {
        let shared = settings.shared.clone().map(|store| Arc::new(SharedStore::new(store, application)));
        let local = Local::builder()
            .max_capacity(settings.capacity)
            .weigher(|key: &Key, response: &Arc<CachedResponse>| {
                u32::try_from(key.0.len() + response.size()).unwrap_or(u32::MAX)
            })
            .expire_after(ResponseExpiry)
            .build_with_hasher(RandomState::default());
        Self {
            local,
            max_entry_size: settings.max_entry_size,
            tag_versions,
            flights: Flights::default(),
            revalidating: Mutex::default(),
            shared,
            is_disconnected: AtomicBool::new(false),
            counts: Counts::default(),
        }
    }

    pub(crate) fn tag_versions(&self) -> &Arc<TagVersions> {
        &self.tag_versions
    }

    pub(crate) fn counts(&self) -> CacheCounts {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Counts { hits, stale, shared, misses, bypassed } = &self.counts;
        CacheCounts {
            hits: of(hits),
            stale: of(stale),
            shared: of(shared),
            misses: of(misses),
            bypassed: of(bypassed),
            failures: self.shared.as_ref().map_or(0, |shared| of(&shared.failures)),
        }
    }

    /// A cached response that may be served, and its status: a stale one is to be revalidated.
    pub(crate) fn find(&self, lookup: &Lookup) -> Option<(Arc<CachedResponse>, CacheStatus)> {
        if self.is_disconnected.load(Ordering::SeqCst) {
            return None;
        }
        let response = self.local.get(&lookup.key)?;
        if !self.tag_versions.is_current(&response.snapshot) {
            return None;
        }
        let (status, count) = match response.age() {
            age if age < response.freshness.fresh => (CacheStatus::Hit, &self.counts.hits),
            age if age < response.freshness.total() => (CacheStatus::Stale, &self.counts.stale),
            _ => return None,
        };
        count.fetch_add(1, Ordering::Relaxed);
        Some((response, status))
    }

    /// Whether a fresh response is cached.
    pub(crate) fn is_fresh(&self, lookup: &Lookup) -> bool {
        self.local.get(&lookup.key).is_some_and(|response| {
            self.tag_versions.is_current(&response.snapshot) && response.age() < response.freshness.fresh
        })
    }

    /// Whether nodes share a store.
    pub(crate) const fn has_shared_store(&self) -> bool {
        self.shared.is_some()
    }

    /// Computes the response that these tags describe, once for all requests that wait for it, or finds one that
    /// another node has computed, and caches it unless one of its tags has changed meanwhile.
    ///
    /// # Errors
    /// Those of `make`.
    pub(crate) async fn get_or_compute(
        &self,
        lookup: &Lookup,
        tags: &[Tag],
        make: &ComputeFn<'_>,
        sharing: Sharing,
    ) -> Result<(Arc<CachedResponse>, CacheStatus), Error> {
        let waiter = self.flights.join(&lookup.key, &self.tag_versions, tags);
        let flight = &waiter.flight;
        let mut failure = None;
        let failed = &mut failure;
        let computed = flight
            .cell
            .get_or_init(|| async {
                self.find_shared_or_compute(lookup, tags, &flight.snapshot, make, sharing).await.map_err(
                    |error| {
                        let shared = ComputeFailure::of(&error);
                        *failed = Some(error);
                        shared
                    },
                )
            })
            .await;
        match (computed, failure) {
            (Ok((response, status)), _) => {
                let count = match status {
                    CacheStatus::Hit | CacheStatus::Stale => &self.counts.shared,
                    CacheStatus::Miss(_) | CacheStatus::Bypass => &self.counts.misses,
                };
                count.fetch_add(1, Ordering::Relaxed);
                Ok((response.clone(), *status))
            }
            (Err(_), Some(error)) => Err(error),
            (Err(failed), None) => Err(failed.to_error()),
        }
    }

    async fn find_shared_or_compute(
        &self,
        lookup: &Lookup,
        tags: &[Tag],
        snapshot: &TagSnapshot,
        make: &ComputeFn<'_>,
        sharing: Sharing,
    ) -> Result<(Arc<CachedResponse>, CacheStatus), Error> {
        let store_and_horizon = self.shared.as_ref().zip(self.tag_versions.horizon());
        let Some((shared, horizon)) =
            store_and_horizon.filter(|_| sharing != Sharing::No && !self.is_disconnected())
        else {
            let (response, is_stored) = self.compute(lookup, snapshot, make, true).await?;
            return Ok((response, CacheStatus::Miss(is_stored)));
        };
        let began = Instant::now();
        // The holder of the claim computes the response; where that takes too long, it is computed here as well.
        let claimed = loop {
            // Read before anything else is.
            let stamp = horizon.stamp(tags);
            if let Some(found) = self.find_shared(shared, horizon, lookup, tags, snapshot, sharing).await {
                return Ok(found);
            }
            match (stamp, shared.claim(&lookup.key).await) {
                (Some(stamp), Some(Ok(claimed))) => {
                    // The previous holder of the claim may have stored the response since.
                    if let Some(found) =
                        self.find_shared(shared, horizon, lookup, tags, snapshot, sharing).await
                    {
                        return Ok(found);
                    }
                    break Some((stamp, claimed));
                }
                (Some(_), Some(Err(()))) if began.elapsed() < CLAIM_WAIT => {
                    tokio::time::sleep(POLL_INTERVAL).await;
                }
                _ => break None,
            }
        };
        let computed = Instant::now();
        let (response, is_stored) = self.compute(lookup, snapshot, make, true).await?;
        if let (Some((stamp, claimed)), true) = (claimed, response.content.size() <= self.max_entry_size)
            && self.tag_versions.is_current(snapshot)
        {
            shared.put(&lookup.key, &response.content, stamp, computed, lookup.freshness).await;
            drop(claimed);
        }
        Ok((response, CacheStatus::Miss(is_stored)))
    }

    /// A response that another node has computed, if it is valid on this node.
    async fn find_shared(
        &self,
        shared: &SharedStore,
        horizon: &InvalidationHorizon,
        lookup: &Lookup,
        tags: &[Tag],
        snapshot: &TagSnapshot,
        sharing: Sharing,
    ) -> Option<(Arc<CachedResponse>, CacheStatus)> {
        let freshness = lookup.freshness;
        let found = shared.find(&lookup.key).await?;
        let status = if found.age < freshness.fresh { CacheStatus::Hit } else { CacheStatus::Stale };
        let is_wanted =
            found.age < freshness.total() && (status == CacheStatus::Hit || sharing == Sharing::Any);
        if !is_wanted || !horizon.is_valid(found.stamp, tags, freshness.total()) {
            return None;
        }
        let computed = Instant::now().checked_sub(found.age)?;
        let response = CachedResponse::new(found.content, snapshot.clone(), computed, freshness);
        if self.tag_versions.is_current(snapshot) && !self.is_disconnected() {
            self.local.insert(lookup.key.clone(), response.clone());
        }
        Some((response, status))
    }

    async fn compute(
        &self,
        lookup: &Lookup,
        snapshot: &TagSnapshot,
        make: &ComputeFn<'_>,
        is_wanted: bool,
    ) -> Result<(Arc<CachedResponse>, bool), Error> {
        let began = Instant::now();
        let content = match make().await {
            Ok(content) => content,
            Err(error) if error.kind() == ErrorKind::NotFound => Content::Absent,
            Err(error) => return Err(error),
        };
        let can_store = is_wanted && content.size() <= self.max_entry_size && !self.is_disconnected();
        let is_stored = can_store && self.tag_versions.is_current(snapshot);
        let content = if is_stored { content.compact() } else { content };
        let response = CachedResponse::new(content, snapshot.clone(), began, lookup.freshness);
        if is_stored {
            self.local.insert(lookup.key.clone(), response.clone());
        }
        Ok((response, is_stored))
    }

    /// A permit to revalidate a stale response; `None` while another request revalidates it, or where too many
    /// revalidations run.
    pub(crate) fn begin_revalidation(self: &Arc<Self>, key: &Key) -> Option<RevalidationPermit> {
        let mut revalidating = self.revalidating.lock().unwrap_or_else(PoisonError::into_inner);
        let is_permitted = revalidating.len() < MAX_REVALIDATIONS && revalidating.insert(key.clone());
        drop(revalidating);
        is_permitted.then(|| RevalidationPermit { cache: self.clone(), key: key.clone() })
    }

    /// Computes a response for a request that bypasses the cache, and caches it if `is_wanted`.
    ///
    /// # Errors
    /// Those of `make`.
    pub(crate) async fn bypass(
        &self,
        lookup: &Lookup,
        tags: &[Tag],
        make: &ComputeFn<'_>,
        is_wanted: bool,
    ) -> Result<(Arc<CachedResponse>, CacheStatus), Error> {
        self.counts.bypassed.fetch_add(1, Ordering::Relaxed);
        let snapshot = self.tag_versions.snapshot(tags);
        Ok((self.compute(lookup, &snapshot, make, is_wanted).await?.0, CacheStatus::Bypass))
    }

    /// Whether responses that are computed now must not be cached.
    pub(crate) fn is_disconnected(&self) -> bool {
        self.is_disconnected.load(Ordering::SeqCst)
    }
}
