//! Cache settings of a resource: which responses are cached, for how long, and what invalidates them.

use std::time::Duration;

use crate::access::Operation;

/// Cache settings of a resource's responses, which are then served without a query to its storage.
///
/// Permissions are checked on every request, before the cache is consulted; callers who have the same rights to the
/// same rows and fields share responses, and others never do. A cached response is invalidated by each change that it
/// could show: the item, a new item that belongs in a list, an item of another resource that was included. The node
/// that made a change has invalidated before it responds; the others do when the change reaches them, through the bus
/// or the outbox.
///
/// Lists (`GET`, `QUERY`) with their totals and includes are cached, and so are items and the absence of an item.
/// Requests with `as_of` or `deleted` are not cached.
///
/// ```
/// use resourceful::prelude::*;
///
/// # #[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
/// # struct Product { id: Uuid, name: String }
/// let products = define_resource::<Product>("products")
///     .adapter(Memory::new().table("products"))
///     .permissions(Permissions::read(anyone()).write(role("admin")))
///     .cache(Cache::fresh(Duration::from_secs(30)).stale(Duration::from_secs(300)).tag("catalog"))
///     .build()?;
/// # let _ = products; Ok::<(), DefinitionErrors>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    pub(crate) freshness: Freshness,
    /// Settings of single operations; `None` if the operation is not cached.
    pub(crate) operations: Vec<(Operation, Option<Freshness>)>,
    pub(crate) tags: Vec<String>,
    pub(crate) invalidated_by: Vec<String>,
}

/// Freshness lifetime of a response, and how long it may be served stale after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Freshness {
    pub(crate) fresh: Duration,
    pub(crate) stale: Duration,
}

impl Freshness {
    /// How long a response may be served, fresh or stale.
    pub(crate) const fn total(&self) -> Duration {
        self.fresh.saturating_add(self.stale)
    }
}

impl Cache {
    /// Caches responses for this long, at most a day.
    #[must_use]
    pub const fn fresh(fresh: Duration) -> Self {
        Self {
            freshness: Freshness { fresh, stale: Duration::ZERO },
            operations: Vec::new(),
            tags: Vec::new(),
            invalidated_by: Vec::new(),
        }
    }

    /// How long a stale response may be served after that while it is revalidated (`stale-while-revalidate`, RFC 5861);
    /// not at all by default, and at most a day. A response is never served once a change made through the application
    /// has invalidated it.
    #[must_use]
    pub const fn stale(mut self, stale: Duration) -> Self {
        self.freshness.stale = stale;
        self
    }

    /// Overrides both times for one operation: [`Operation::List`] or [`Operation::Read`].
    #[must_use]
    pub fn operation(mut self, operation: Operation, fresh: Duration, stale: Duration) -> Self {
        self.operations.push((operation, Some(Freshness { fresh, stale })));
        self
    }

    /// Excludes an operation from the cache.
    #[must_use]
    pub fn except(mut self, operation: Operation) -> Self {
        self.operations.push((operation, None));
        self
    }

    /// A tag by which responses can be invalidated ([`App::invalidate`](crate::App::invalidate)), and which several
    /// resources may share: visible ASCII without quotes, at most 32 characters.
    #[must_use]
    pub fn tag(mut self, name: impl Into<String>) -> Self {
        self.tags.push(name.into());
        self
    }

    /// Invalidates all responses on events of another resource of the application: `categories.*`,
    /// `categories.created`, or `categories.deleted`. Items that are requested through relations do not need this.
    #[must_use]
    pub fn invalidate_on(mut self, pattern: impl Into<String>) -> Self {
        self.invalidated_by.push(pattern.into());
        self
    }

    /// Freshness of an operation's responses; `None` if they are not cached.
    pub(crate) fn freshness(&self, operation: Operation) -> Option<Freshness> {
        let setting = self.operations.iter().rev().find(|(of, _)| *of == operation);
        setting.map_or(Some(self.freshness), |(_, freshness)| *freshness)
    }

    /// Every freshness setting, with those of single operations.
    pub(crate) fn freshness_settings(&self) -> impl Iterator<Item = Freshness> {
        self.operations.iter().filter_map(|(_, freshness)| *freshness).chain([self.freshness])
    }
}
