//! What nodes remember together.

use std::fmt;
use std::time::Duration;

use crate::storage::Answer;

/// Keeps bytes under keys, for all nodes of an application, and forgets them: when their time is over, when there is no
/// room, or altogether. Nothing depends on it but speed: whoever finds nothing makes it anew, and whoever finds something
/// judges by itself whether it is still good.
pub trait CacheStore: fmt::Debug + Send + Sync + 'static {
    /// A word for logs: `memory`, `redis`.
    fn name(&self) -> &'static str;

    /// What is kept under a key.
    fn get<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Vec<u8>>>;

    /// Keeps something for so long, instead of what was there.
    fn put<'a>(&'a self, key: &'a str, value: Vec<u8>, keep: Duration) -> Answer<'a, ()>;

    /// Claims a key for so long: of those who do at once one is told yes, and the others no until it is released.
    fn claim<'a>(&'a self, key: &'a str, keep: Duration) -> Answer<'a, bool>;

    /// Releases a key that was claimed.
    fn release<'a>(&'a self, key: &'a str) -> Answer<'a, ()>;
}
