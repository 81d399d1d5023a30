//! The contract of a cache that all nodes share.

use std::fmt;
use std::time::Duration;

use crate::storage::Answer;

/// A key-value cache shared by all nodes of an application. Entries are dropped when they expire, when space is needed, or
/// all at once. Only speed depends on it: on a miss callers compute the value again, and on a hit they check themselves
/// whether the value is still valid.
pub trait CacheStore: fmt::Debug + Send + Sync + 'static {
    /// The adapter's name for logs: `memory`, `redis`.
    fn name(&self) -> &'static str;

    /// The value under a key.
    fn get<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Vec<u8>>>;

    /// Stores a value under a key for this long, replacing the previous one.
    fn put<'a>(&'a self, key: &'a str, value: Vec<u8>, ttl: Duration) -> Answer<'a, ()>;

    /// Claims a key for this long: of concurrent callers one gets `true`, and the others `false` until the key is released
    /// or the claim expires.
    fn claim<'a>(&'a self, key: &'a str, ttl: Duration) -> Answer<'a, bool>;

    /// Releases a claimed key.
    fn release<'a>(&'a self, key: &'a str) -> Answer<'a, ()>;
}
