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
use super::shared::Shared;
use super::single_flight::Flights;
use super::tags::{Seen, Tag, TagVersions};
use crate::digest::DigestInput;
use crate::error::{Error, ErrorKind, Fault};
use crate::resource::Freshness;

/// Limit on concurrent background revalidations: they run beside the requests that are counted.
const REFRESHING: usize = 32;

/// How long to wait for a response that another node is computing, and how often to poll for it.
const WAITING: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(10);

/// The longest key, in bytes, that is kept as it is; longer ones are replaced by their digest.
const LONG: usize = 512;

/// Cache key: everything that a response depends on, or a digest of that where it is long.
///
/// Short keys are compared as they are, which costs a hit less than a digest would.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key(Vec<u8>);

impl Key {
    /// The key of a response that depends on all of this input.
    pub(crate) fn of(fed: DigestInput) -> Self {
        let bytes = fed.into_bytes();
        if bytes.len() <= LONG {
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
    pub(crate) life: Freshness,
}

/// Why a response could not be computed, for all requests that waited for it: they have the same query and the same
/// rights.
#[derive(Debug)]
pub(super) struct Failed {
    kind: ErrorKind,
    code: &'static str,
    detail: String,
    faults: Vec<Fault>,
}

impl Failed {
    fn of(error: &Error) -> Self {
        let (kind, code, detail) = (error.kind(), error.code(), error.detail().to_owned());
        Self { kind, code, detail, faults: error.faults().to_vec() }
    }

    fn again(&self) -> Error {
        Error::new(self.kind, self.code, self.detail.clone()).with_faults(self.faults.clone())
    }
}

/// Computes a response.
pub(crate) type Make<'a> = dyn Fn() -> BoxFuture<'a, Result<Content, Error>> + Send + Sync + 'a;

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
    largest: usize,
    generations: Arc<TagVersions>,
    flights: Flights,
    refreshing: Mutex<HashSet<Key>>,
    /// The store that nodes share, if there is one.
    shared: Option<Arc<Shared>>,
    /// Whether the bus is unreachable, so that changes on other nodes are not known here.
    pub(super) is_deaf: AtomicBool,
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
pub(crate) struct Refreshing {
    answers: Arc<ResponseCache>,
    key: Key,
}

impl Drop for Refreshing {
    fn drop(&mut self) {
        self.answers.refreshing.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

/// Expiry policy: an entry is removed when it may no longer be served, not even stale.
struct Ends;

impl Expiry<Key, Arc<CachedResponse>> for Ends {
    fn expire_after_create(&self, _: &Key, kept: &Arc<CachedResponse>, _: Instant) -> Option<Duration> {
        Some(kept.life.total().saturating_sub(kept.age()))
    }

    fn expire_after_update(
        &self,
        _: &Key,
        kept: &Arc<CachedResponse>,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(kept.life.total().saturating_sub(kept.age()))
    }
}

impl ResponseCache {
    /// The cache of an application; `application` is a name that all its nodes have and no other application has.
    pub(crate) fn new(settings: &QueryCache, generations: Arc<TagVersions>, application: String) -> Self {
        let shared = settings.shared.clone().map(|store| Arc::new(Shared::new(store, application)));
        let local = Local::builder()
            .max_capacity(settings.capacity)
            .weigher(|key: &Key, kept: &Arc<CachedResponse>| {
                u32::try_from(key.0.len() + kept.bytes()).unwrap_or(u32::MAX)
            })
            .expire_after(Ends)
            .build_with_hasher(RandomState::default());
        Self {
            local,
            largest: settings.largest,
            generations,
            flights: Flights::default(),
            refreshing: Mutex::default(),
            shared,
            is_deaf: AtomicBool::new(false),
            counts: Counts::default(),
        }
    }

    pub(crate) fn generations(&self) -> &Arc<TagVersions> {
        &self.generations
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
        if self.is_deaf.load(Ordering::SeqCst) {
            return None;
        }
        let kept = self.local.get(&lookup.key)?;
        if !self.generations.is_current(&kept.seen) {
            return None;
        }
        let (came, count) = match kept.age() {
            age if age < kept.life.fresh => (CacheStatus::Hit, &self.counts.hits),
            age if age < kept.life.total() => (CacheStatus::Stale, &self.counts.stale),
            _ => return None,
        };
        count.fetch_add(1, Ordering::Relaxed);
        Some((kept, came))
    }

    /// Whether a fresh response is cached.
    pub(crate) fn is_fresh(&self, lookup: &Lookup) -> bool {
        self.local
            .get(&lookup.key)
            .is_some_and(|kept| self.generations.is_current(&kept.seen) && kept.age() < kept.life.fresh)
    }

    /// Whether nodes share a store.
    pub(crate) const fn shares(&self) -> bool {
        self.shared.is_some()
    }

    /// Computes the response that these tags describe, once for all requests that wait for it, or finds one that
    /// another node has computed, and caches it unless one of its tags has changed meanwhile.
    ///
    /// # Errors
    /// Those of `make`.
    pub(crate) async fn make(
        &self,
        lookup: &Lookup,
        tags: &[Tag],
        make: &Make<'_>,
        sharing: Sharing,
    ) -> Result<(Arc<CachedResponse>, CacheStatus), Error> {
        let waiting = self.flights.join(&lookup.key, &self.generations, tags);
        let flight = &waiting.flight;
        let mut failure = None;
        let failed = &mut failure;
        let made = flight
            .cell
            .get_or_init(|| async {
                self.found_or_made(lookup, tags, &flight.seen, make, sharing).await.map_err(|error| {
                    let shared = Failed::of(&error);
                    *failed = Some(error);
                    shared
                })
            })
            .await;
        match (made, failure) {
            (Ok((kept, came)), _) => {
                let count = match came {
                    CacheStatus::Hit | CacheStatus::Stale => &self.counts.shared,
                    CacheStatus::Miss(_) | CacheStatus::Bypass => &self.counts.misses,
                };
                count.fetch_add(1, Ordering::Relaxed);
                Ok((kept.clone(), *came))
            }
            (Err(_), Some(error)) => Err(error),
            (Err(failed), None) => Err(failed.again()),
        }
    }

    async fn found_or_made(
        &self,
        lookup: &Lookup,
        tags: &[Tag],
        seen: &Seen,
        make: &Make<'_>,
        sharing: Sharing,
    ) -> Result<(Arc<CachedResponse>, CacheStatus), Error> {
        let together = self.shared.as_ref().zip(self.generations.course());
        let Some((shared, course)) = together.filter(|_| sharing != Sharing::No && !self.is_deaf()) else {
            let (kept, is_kept) = self.made(lookup, seen, make, true).await?;
            return Ok((kept, CacheStatus::Miss(is_kept)));
        };
        let began = Instant::now();
        // The holder of the claim computes the response; where that takes too long, it is computed here as well.
        let claimed = loop {
            // Read before anything else is.
            let stamp = course.stamp(tags);
            if let Some(found) = self.found(shared, course, lookup, tags, seen, sharing).await {
                return Ok(found);
            }
            match (stamp, shared.claim(&lookup.key).await) {
                (Some(stamp), Some(Ok(claimed))) => {
                    // The previous holder of the claim may have stored the response since.
                    if let Some(found) = self.found(shared, course, lookup, tags, seen, sharing).await {
                        return Ok(found);
                    }
                    break Some((stamp, claimed));
                }
                (Some(_), Some(Err(()))) if began.elapsed() < WAITING => tokio::time::sleep(LOOK).await,
                _ => break None,
            }
        };
        let made = Instant::now();
        let (kept, is_kept) = self.made(lookup, seen, make, true).await?;
        if let (Some((stamp, claimed)), true) = (claimed, kept.content.bytes() <= self.largest)
            && self.generations.is_current(seen)
        {
            shared.keep(&lookup.key, &kept.content, stamp, made, lookup.life).await;
            drop(claimed);
        }
        Ok((kept, CacheStatus::Miss(is_kept)))
    }

    /// A response that another node has computed, if it is valid on this node.
    async fn found(
        &self,
        shared: &Shared,
        course: &InvalidationHorizon,
        lookup: &Lookup,
        tags: &[Tag],
        seen: &Seen,
        sharing: Sharing,
    ) -> Option<(Arc<CachedResponse>, CacheStatus)> {
        let life = lookup.life;
        let found = shared.find(&lookup.key).await?;
        let came = if found.age < life.fresh { CacheStatus::Hit } else { CacheStatus::Stale };
        let is_wanted = found.age < life.total() && (came == CacheStatus::Hit || sharing == Sharing::Any);
        if !is_wanted || !course.is_good(found.stamp, tags, life.total()) {
            return None;
        }
        let made = Instant::now().checked_sub(found.age)?;
        let kept = CachedResponse::new(found.content, seen.clone(), made, life);
        if self.generations.is_current(seen) && !self.is_deaf() {
            self.local.insert(lookup.key.clone(), kept.clone());
        }
        Some((kept, came))
    }

    async fn made(
        &self,
        lookup: &Lookup,
        seen: &Seen,
        make: &Make<'_>,
        is_wanted: bool,
    ) -> Result<(Arc<CachedResponse>, bool), Error> {
        let began = Instant::now();
        let content = match make().await {
            Ok(content) => content,
            Err(error) if error.kind() == ErrorKind::NotFound => Content::Absent,
            Err(error) => return Err(error),
        };
        let may_be = is_wanted && content.bytes() <= self.largest && !self.is_deaf();
        let is_kept = may_be && self.generations.is_current(seen);
        let content = if is_kept { content.compact() } else { content };
        let kept = CachedResponse::new(content, seen.clone(), began, lookup.life);
        if is_kept {
            self.local.insert(lookup.key.clone(), kept.clone());
        }
        Ok((kept, is_kept))
    }

    /// A permit to revalidate a stale response; `None` while another request revalidates it, or where too many
    /// revalidations run.
    pub(crate) fn begin_refresh(self: &Arc<Self>, key: &Key) -> Option<Refreshing> {
        let mut refreshing = self.refreshing.lock().unwrap_or_else(PoisonError::into_inner);
        let may = refreshing.len() < REFRESHING && refreshing.insert(key.clone());
        drop(refreshing);
        may.then(|| Refreshing { answers: self.clone(), key: key.clone() })
    }

    /// Computes a response for a request that bypasses the cache, and caches it if `is_wanted`.
    ///
    /// # Errors
    /// Those of `make`.
    pub(crate) async fn bypass(
        &self,
        lookup: &Lookup,
        tags: &[Tag],
        make: &Make<'_>,
        is_wanted: bool,
    ) -> Result<(Arc<CachedResponse>, CacheStatus), Error> {
        self.counts.bypassed.fetch_add(1, Ordering::Relaxed);
        let seen = self.generations.now(tags);
        Ok((self.made(lookup, &seen, make, is_wanted).await?.0, CacheStatus::Bypass))
    }

    /// Whether responses that are computed now must not be cached.
    pub(crate) fn is_deaf(&self) -> bool {
        self.is_deaf.load(Ordering::SeqCst)
    }
}
