//! Tags: what a response was made of, each with a version that a change increments.
//!
//! A response is valid as long as none of its tags' versions was incremented since before it was computed. So nothing
//! has to be searched for when something changes, and a response that was being computed meanwhile is never valid.
//! Versions are kept in a fixed number of slots: two tags may share one, which makes a response invalid once more than
//! needed, and never once too few.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;
use uuid::Uuid;

use super::horizon::InvalidationHorizon;

/// The number of slots.
pub(super) const SLOTS: usize = 1 << 16;
/// How many changed tags are announced one by one; beyond, other nodes invalidate everything.
const MAX_QUEUED_TAGS: usize = 16_384;

/// The slot of one tag; the same on every node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Tag(u16);

impl Tag {
    fn of(kind: &[u8], names: &[&str]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(kind);
        for name in names {
            hasher.update(&(name.len() as u64).to_le_bytes()).update(name.as_bytes());
        }
        let digest = hasher.finalize();
        Self(u16::from_le_bytes([digest.as_bytes()[0], digest.as_bytes()[1]]))
    }

    /// Any row of a table.
    pub(crate) fn table(table: &str) -> Self {
        Self::of(b"table", &[table])
    }

    /// Any row of a table that belongs to a tenant.
    pub(crate) fn tenant(table: &str, tenant: &str) -> Self {
        Self::of(b"tenant", &[table, tenant])
    }

    /// A row of unknown tenant, in a table.
    pub(crate) fn unknown_tenant(table: &str) -> Self {
        Self::of(b"anybody's", &[table])
    }

    /// One row.
    pub(crate) fn row(table: &str, id: &str) -> Self {
        Self::of(b"row", &[table, id])
    }

    /// Any number of rows of a table that are not known one by one.
    pub(crate) fn rows(table: &str) -> Self {
        Self::of(b"rows", &[table])
    }

    pub(super) const fn slot(&self) -> u16 {
        self.0
    }

    /// Every response of a resource.
    pub(crate) fn resource(name: &str) -> Self {
        Self::of(b"resource", &[name])
    }

    /// A tag that declarations name.
    pub(crate) fn declared(name: &str) -> Self {
        Self::of(b"declared", &[name])
    }
}

/// The versions of all tags.
#[derive(Debug)]
pub(crate) struct TagVersions {
    counts: Box<[AtomicU64]>,
    /// Incremented when everything is invalidated.
    all: AtomicU64,
    /// Invalidations that other nodes have yet to receive.
    queue: Mutex<InvalidationQueue>,
    queue_notify: Notify,
    /// The horizon, where responses of other nodes are validated.
    horizon: Option<InvalidationHorizon>,
}

#[derive(Debug, Default)]
struct InvalidationQueue {
    /// Whether invalidations are published.
    is_publishing: bool,
    tags: Vec<Tag>,
    /// The events of these changes.
    events: Vec<Uuid>,
    /// Whether one of the changes has no event.
    has_unpublished: bool,
    everything: bool,
}

/// An invalidation, as it is sent between nodes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Invalidation {
    Everything,
    /// The changed tags, the events of the changes, and whether there is a change without an event.
    Tags {
        tags: Vec<Tag>,
        events: Vec<Uuid>,
        has_unpublished: bool,
    },
}

/// The versions of some tags at one time.
#[derive(Clone, Debug)]
pub(crate) struct TagSnapshot {
    all: u64,
    counts: Box<[(Tag, u64)]>,
}

impl Default for TagVersions {
    fn default() -> Self {
        Self {
            counts: std::iter::repeat_with(AtomicU64::default).take(SLOTS).collect(),
            all: AtomicU64::new(0),
            queue: Mutex::default(),
            queue_notify: Notify::new(),
            horizon: None,
        }
    }
}

impl TagSnapshot {
    pub(super) fn size(&self) -> usize {
        self.counts.len() * size_of::<(Tag, u64)>()
    }
}

impl TagVersions {
    /// Tag versions with an invalidation horizon.
    pub(crate) fn with_horizon() -> Self {
        Self { horizon: Some(InvalidationHorizon::default()), ..Self::default() }
    }

    pub(crate) const fn horizon(&self) -> Option<&InvalidationHorizon> {
        self.horizon.as_ref()
    }

    pub(crate) fn snapshot(&self, tags: &[Tag]) -> TagSnapshot {
        let all = self.all.load(Ordering::SeqCst);
        let counts = tags.iter().map(|tag| (*tag, self.count(*tag).load(Ordering::SeqCst))).collect();
        TagSnapshot { all, counts }
    }

    /// Whether none of these tags has changed since.
    pub(crate) fn is_current(&self, snapshot: &TagSnapshot) -> bool {
        self.all.load(Ordering::SeqCst) == snapshot.all
            && snapshot.counts.iter().all(|(tag, count)| self.count(*tag).load(Ordering::SeqCst) == *count)
    }

    /// Invalidates these tags, here and, as soon as it is published, on other nodes. `events` are the events of the
    /// change; empty if none will be published for it.
    pub(crate) fn invalidate(&self, tags: &[Tag], events: &[Uuid]) {
        self.apply_invalidation(tags, events, events.is_empty());
        self.enqueue(|queue| {
            queue.tags.extend_from_slice(tags);
            queue.events.extend_from_slice(events);
            queue.has_unpublished |= events.is_empty();
        });
    }

    /// Records a change that was made on this node or announced by another one.
    pub(super) fn apply_invalidation(&self, tags: &[Tag], events: &[Uuid], has_unpublished: bool) {
        if let Some(horizon) = &self.horizon {
            // The horizon first: a request that finds nothing in this node's cache looks at the responses of other
            // nodes.
            if !events.is_empty() {
                horizon.record_change(tags, events);
            }
            if has_unpublished {
                horizon.record_change(tags, &[]);
            }
        }
        self.increment(tags);
    }

    /// Increments the versions of these tags on this node.
    pub(super) fn increment(&self, tags: &[Tag]) {
        for tag in tags {
            self.count(*tag).fetch_add(1, Ordering::SeqCst);
        }
    }

    pub(super) fn invalidate_all(&self) {
        if let Some(horizon) = &self.horizon {
            horizon.record_all_changed();
        }
        self.increment_all();
    }

    /// Invalidates everything that is cached on this node.
    pub(super) fn increment_all(&self) {
        self.all.fetch_add(1, Ordering::SeqCst);
    }

    fn count(&self, tag: Tag) -> &AtomicU64 {
        &self.counts[usize::from(tag.0)]
    }

    fn enqueue(&self, note: impl FnOnce(&mut InvalidationQueue)) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if !queue.is_publishing {
            return;
        }
        note(&mut queue);
        if queue.tags.len() > MAX_QUEUED_TAGS {
            queue.tags.sort_unstable_by_key(|tag| tag.0);
            queue.tags.dedup();
        }
        queue.everything |= queue.tags.len() > MAX_QUEUED_TAGS || queue.events.len() > MAX_QUEUED_TAGS;
        if queue.everything {
            (queue.tags, queue.events, queue.has_unpublished) = (Vec::new(), Vec::new(), false);
        }
        drop(queue);
        self.queue_notify.notify_one();
    }

    /// Collects invalidations from here on, to be published to other nodes.
    pub(super) fn start_publishing(&self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).is_publishing = true;
    }

    /// The next invalidation to publish.
    pub(super) async fn next_invalidation(&self) -> Invalidation {
        loop {
            if let Some(invalidation) = self.take_queued() {
                return invalidation;
            }
            self.queue_notify.notified().await;
        }
    }

    fn take_queued(&self) -> Option<Invalidation> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::take(&mut queue.everything) {
            return Some(Invalidation::Everything);
        }
        (!queue.tags.is_empty()).then(|| Invalidation::Tags {
            tags: std::mem::take(&mut queue.tags),
            events: std::mem::take(&mut queue.events),
            has_unpublished: std::mem::take(&mut queue.has_unpublished),
        })
    }
}

impl Invalidation {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Everything => Vec::new(),
            Self::Tags { tags, events, has_unpublished } => {
                let mut bytes = vec![u8::from(*has_unpublished)];
                bytes.extend(u32::try_from(events.len()).unwrap_or(u32::MAX).to_le_bytes());
                bytes.extend(events.iter().flat_map(|id| id.into_bytes()));
                bytes.extend(tags.iter().flat_map(|tag| tag.0.to_le_bytes()));
                bytes
            }
        }
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        // An unreadable message may mean anything.
        Self::parse(bytes).unwrap_or(Self::Everything)
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (has_unpublished, rest) = bytes.split_first()?;
        let (count, rest) = rest.split_first_chunk()?;
        let length = usize::try_from(u32::from_le_bytes(*count)).ok()?.checked_mul(16)?;
        let (events, tags) = rest.split_at_checked(length)?;
        let events = events.chunks_exact(16).map(Uuid::from_slice).collect::<Result<_, _>>().ok()?;
        let is_whole = tags.len().is_multiple_of(2) && !tags.is_empty();
        let tags = tags.chunks_exact(2).map(|tag| Tag(u16::from_le_bytes([tag[0], tag[1]]))).collect();
        is_whole.then_some(Self::Tags { tags, events, has_unpublished: *has_unpublished != 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn change_outdates_earlier_snapshot() {
        let tag_versions = TagVersions::default();
        let [one, other] = [Tag::row("products", "1"), Tag::row("products", "2")];
        let (snapshot, both) = (tag_versions.snapshot(&[one]), tag_versions.snapshot(&[one, other]));
        tag_versions.invalidate(&[other], &[]);
        assert!(tag_versions.is_current(&snapshot) && !tag_versions.is_current(&both));
        tag_versions.invalidate_all();
        assert!(!tag_versions.is_current(&snapshot));
    }

    #[test]
    fn tag_names_are_not_concatenated() {
        assert_ne!(Tag::tenant("a", "bc"), Tag::tenant("ab", "c"));
        assert_ne!(Tag::row("a", ""), Tag::rows("a"));
    }

    #[test]
    fn invalidation_round_trips_as_bytes() {
        for (events, has_unpublished) in
            [(Vec::new(), true), (vec![Uuid::from_u128(1), Uuid::from_u128(2)], false)]
        {
            let tags = vec![Tag::row("products", "1"), Tag::table("products")];
            let invalidation = Invalidation::Tags { tags, events, has_unpublished };
            assert_eq!(Invalidation::from_bytes(&invalidation.to_bytes()), invalidation);
        }
        assert_eq!(Invalidation::from_bytes(&Invalidation::Everything.to_bytes()), Invalidation::Everything);
        for broken in [&[1][..], &[0, 1, 0, 0, 0], &[0, 0, 0, 0, 0, 1]] {
            assert_eq!(Invalidation::from_bytes(broken), Invalidation::Everything);
        }
    }

    #[tokio::test]
    async fn too_many_tags_invalidate_everything() {
        let tag_versions = TagVersions::default();
        tag_versions.start_publishing();
        for number in 0..100_000 {
            tag_versions.invalidate(&[Tag::row("products", &number.to_string())], &[]);
        }
        assert_eq!(tag_versions.next_invalidation().await, Invalidation::Everything);
    }
}
