//! Settings of the response cache.

use std::sync::Arc;

use resourceful_contract::CacheStore;

/// Settings of the cache for responses of resources that declare a [`Cache`](crate::cache::Cache).
///
/// ```
/// use resourceful::prelude::*;
/// use resourceful::cache::QueryCache;
///
/// # let _ =
/// create_app(AppPreset::Testing).query_cache(QueryCache::new().capacity(256 << 20))
/// # ;
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct QueryCache {
    pub(crate) is_on: bool,
    pub(super) capacity: u64,
    pub(super) max_entry_size: usize,
    pub(super) shared: Option<Arc<dyn CacheStore>>,
}

impl Default for QueryCache {
    fn default() -> Self {
        Self { is_on: true, capacity: 64 << 20, max_entry_size: 1 << 20, shared: None }
    }
}

impl QueryCache {
    /// Responses are cached in memory, in 64 MiB at most.
    pub fn new() -> Self {
        Self::default()
    }

    /// Nothing is cached, whatever resources declare.
    pub fn off() -> Self {
        Self { is_on: false, ..Self::default() }
    }

    /// The most bytes that cached responses take on this node, including their overhead; 64 MiB by default. The least
    /// requested responses are evicted.
    pub const fn capacity(mut self, bytes: u64) -> Self {
        self.capacity = bytes;
        self
    }

    /// A store that all nodes share: a response that one node has computed is reused by the others, and concurrent
    /// requests for it on several nodes are answered by one computation. Without it each node has its own cache.
    ///
    /// A node validates stored responses by the outbox's order of changes, so they are no older than the changes that
    /// the node knows of; therefore only responses made of resources with events, in one database, are shared. An
    /// unreachable store is not waited for ([`CacheCounts::failures`]). The store holds the content of responses:
    /// protect it as you protect the database. With `.capacity(0)` nothing is kept in memory beside it.
    pub fn shared(mut self, store: Arc<dyn CacheStore>) -> Self {
        self.shared = Some(store);
        self
    }

    pub(crate) const fn is_shared(&self) -> bool {
        self.shared.is_some()
    }

    /// The most bytes of a cached response, headers included; 1 MiB by default. Longer responses are sent, but not
    /// cached.
    pub const fn max_entry_size(mut self, bytes: usize) -> Self {
        self.max_entry_size = bytes;
        self
    }
}

/// Counts of requests for cacheable responses, by outcome, on this node since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheCounts {
    /// Answered with a fresh cached response.
    pub hits: u64,
    /// Answered with a stale cached response, while it was revalidated.
    pub stale: u64,
    /// Answered with a response that another node has computed ([`QueryCache::shared`]).
    pub shared: u64,
    /// Computed, or answered with the result of a concurrent request for the same response.
    pub misses: u64,
    /// Computed because the client asked for that, or because this node could not receive the changes of other nodes.
    pub bypassed: u64,
    /// Calls of the shared store that failed or took too long.
    pub failures: u64,
}
