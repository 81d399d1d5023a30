//! How long answers of a resource are remembered, and what has them forgotten.

use std::time::Duration;

use super::Operation;

/// How answers of a resource are remembered, to be answered again without a look at its storage.
///
/// Whether a caller may ask is decided each time, before it is looked for an answer; callers who have the same rights to the
/// same rows and fields share answers, and others never do. What is remembered is forgotten with each change that it could
/// show: the item, a new item that belongs into a list, an item of another resource that was included. The node that
/// changed something has forgotten before it answers; the others have as soon as they hear of it, through the bus or the
/// outbox.
///
/// Lists (`GET`, `QUERY`) with their totals and includes are remembered, items, and that there is no such item. What was
/// asked for with `as_of` or `deleted` is not.
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
    pub(crate) life: Freshness,
    /// Of single operations; `None` where it is not remembered at all.
    pub(crate) operations: Vec<(Operation, Option<Freshness>)>,
    pub(crate) tags: Vec<String>,
    pub(crate) invalidated_by: Vec<String>,
}

/// For how long an answer is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Freshness {
    pub(crate) fresh: Duration,
    pub(crate) stale: Duration,
}

impl Freshness {
    /// For how long an answer may be given at all.
    pub(crate) const fn total(&self) -> Duration {
        self.fresh.saturating_add(self.stale)
    }
}

impl Cache {
    /// Remembers answers for this long, at most a day.
    #[must_use]
    pub const fn fresh(fresh: Duration) -> Self {
        Self {
            life: Freshness { fresh, stale: Duration::ZERO },
            operations: Vec::new(),
            tags: Vec::new(),
            invalidated_by: Vec::new(),
        }
    }

    /// For how long after that an answer may still be given while a new one is made (`stale-while-revalidate`, RFC 5861);
    /// not at all by default, and at most a day. What was
    /// changed through the application since is never given.
    #[must_use]
    pub const fn stale(mut self, stale: Duration) -> Self {
        self.life.stale = stale;
        self
    }

    /// The same for one operation alone: [`Operation::List`] or [`Operation::Read`].
    #[must_use]
    pub fn operation(mut self, operation: Operation, fresh: Duration, stale: Duration) -> Self {
        self.operations.push((operation, Some(Freshness { fresh, stale })));
        self
    }

    /// Remembers no answers of an operation.
    #[must_use]
    pub fn except(mut self, operation: Operation) -> Self {
        self.operations.push((operation, None));
        self
    }

    /// A name by which answers can be forgotten ([`App::invalidate`](crate::App::invalidate)), and which several resources
    /// may share: visible ASCII without quotes, at most 32 characters.
    #[must_use]
    pub fn tag(mut self, name: impl Into<String>) -> Self {
        self.tags.push(name.into());
        self
    }

    /// Forgets every answer when something happens to another resource of the application: `categories.*`,
    /// `categories.created`, or `categories.deleted`. What is asked for through relations needs none of this.
    #[must_use]
    pub fn invalidate_on(mut self, pattern: impl Into<String>) -> Self {
        self.invalidated_by.push(pattern.into());
        self
    }

    /// How long answers of an operation are good, where they are remembered.
    pub(crate) fn life(&self, operation: Operation) -> Option<Freshness> {
        let own = self.operations.iter().rev().find(|(of, _)| *of == operation);
        own.map_or(Some(self.life), |(_, life)| *life)
    }

    /// How long any of them is.
    pub(crate) fn lives(&self) -> impl Iterator<Item = Freshness> {
        self.operations.iter().filter_map(|(_, life)| *life).chain([self.life])
    }
}
