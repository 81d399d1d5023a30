//! How an application remembers answers.

use std::sync::Arc;

use resourceful_contract::CacheStore;

/// How an application remembers the answers of resources that declare a [`Cache`](crate::Cache).
///
/// ```
/// use resourceful::prelude::*;
/// use resourceful::QueryCache;
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
    pub(super) largest: usize,
    pub(super) shared: Option<Arc<dyn CacheStore>>,
}

impl Default for QueryCache {
    fn default() -> Self {
        Self { is_on: true, capacity: 64 << 20, largest: 1 << 20, shared: None }
    }
}

impl QueryCache {
    /// Answers are remembered in memory, 64 MiB of them at most.
    pub fn new() -> Self {
        Self::default()
    }

    /// Nothing is remembered, whatever resources declare.
    pub fn off() -> Self {
        Self { is_on: false, ..Self::default() }
    }

    /// The most bytes that remembered answers take on this node, with what is kept beside them; 64 MiB by default. What is
    /// asked for least makes room.
    pub const fn capacity(mut self, bytes: u64) -> Self {
        self.capacity = bytes;
        self
    }

    /// A store that all nodes share: what one has made the others need not make, and of all that need the same answer at
    /// once one makes it. Without it each node remembers for itself.
    ///
    /// What a node finds there it judges by the outbox's order of changes, so it is no older than what the node has heard
    /// of; therefore only answers are shared that are made of resources with events, in one database. A store that is away
    /// is not waited for ([`CacheCounts::failures`]). It holds what callers are answered with: protect it as the database
    /// is. With `.capacity(0)` nothing is kept in memory beside it.
    pub fn shared(mut self, store: Arc<dyn CacheStore>) -> Self {
        self.shared = Some(store);
        self
    }

    pub(crate) const fn is_shared(&self) -> bool {
        self.shared.is_some()
    }

    /// The most bytes that a remembered answer says, headers included; 1 MiB by default. Longer ones are answered as ever.
    pub const fn max_entry_size(mut self, bytes: usize) -> Self {
        self.largest = bytes;
        self
    }
}

/// What became of requests that a remembered answer could have been for, on this node since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheCounts {
    /// Answered by a fresh answer.
    pub hits: u64,
    /// Answered by one that was not fresh any more, while a new one was made.
    pub stale: u64,
    /// Answered by what another node has made ([`QueryCache::shared`]).
    pub shared: u64,
    /// Made anew, or answered by one that was being made for somebody else.
    pub misses: u64,
    /// Made anew since the client asked for that, or since this node could not hear what other nodes change.
    pub bypassed: u64,
    /// How often the store that nodes share failed, or took too long.
    pub failures: u64,
}
