//! An in-process cache store.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use resourceful_contract::{Answer, CacheStore};

/// The number of entries from which expired ones are searched for and removed.
const SWEEP_THRESHOLD: usize = 1_024;

/// A cache store for the nodes of one process, such as those of a test. Clones share it. Its size is unlimited: it does not
/// replace the local cache that every node has.
#[derive(Clone, Default)]
pub struct MemoryCache(Arc<Mutex<Entries>>);

#[derive(Default)]
struct Entries {
    stored: HashMap<String, (Vec<u8>, Instant)>,
    claims: HashMap<String, Instant>,
}

impl MemoryCache {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemoryCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryCache").field("kept", &self.entries().stored.len()).finish_non_exhaustive()
    }
}

fn ready<'a, T: Send + 'a>(value: T) -> Answer<'a, T> {
    Box::pin(std::future::ready(Ok(value)))
}

impl CacheStore for MemoryCache {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn get<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Vec<u8>>> {
        let entries = self.entries();
        let stored = entries.stored.get(key).filter(|(_, expires_at)| *expires_at > Instant::now());
        ready(stored.map(|(value, _)| value.clone()))
    }

    fn put<'a>(&'a self, key: &'a str, value: Vec<u8>, ttl: Duration) -> Answer<'a, ()> {
        let now = Instant::now();
        let mut entries = self.entries();
        if entries.stored.len() >= SWEEP_THRESHOLD {
            entries.stored.retain(|_, (_, expires_at)| *expires_at > now);
        }
        entries.stored.insert(key.to_owned(), (value, now + ttl));
        ready(())
    }

    fn claim<'a>(&'a self, key: &'a str, ttl: Duration) -> Answer<'a, bool> {
        let now = Instant::now();
        let mut entries = self.entries();
        entries.claims.retain(|_, expires_at| *expires_at > now);
        let is_free = !entries.claims.contains_key(key);
        if is_free {
            entries.claims.insert(key.to_owned(), now + ttl);
        }
        ready(is_free)
    }

    fn release<'a>(&'a self, key: &'a str) -> Answer<'a, ()> {
        self.entries().claims.remove(key);
        ready(())
    }
}
