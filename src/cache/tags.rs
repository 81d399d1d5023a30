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
pub(super) const PLACES: usize = 1 << 16;
/// How many changed tags are announced one by one; beyond, other nodes invalidate everything.
const TOLD: usize = 16_384;

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
    pub(crate) fn anybodys(table: &str) -> Self {
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

    pub(super) const fn place(&self) -> u16 {
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
    untold: Mutex<Untold>,
    tell: Notify,
    /// The horizon, where responses of other nodes are validated.
    course: Option<InvalidationHorizon>,
}

#[derive(Debug, Default)]
struct Untold {
    /// Whether invalidations are published.
    is_told: bool,
    tags: Vec<Tag>,
    /// The events of these changes.
    events: Vec<Uuid>,
    /// Whether one of the changes has no event.
    unsaid: bool,
    everything: bool,
}

/// An invalidation, as it is sent between nodes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Forget {
    Everything,
    /// The changed tags, the events of the changes, and whether there is a change without an event.
    Tags {
        tags: Vec<Tag>,
        events: Vec<Uuid>,
        unsaid: bool,
    },
}

/// The versions of some tags at one time.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    all: u64,
    counts: Box<[(Tag, u64)]>,
}

impl Default for TagVersions {
    fn default() -> Self {
        Self {
            counts: std::iter::repeat_with(AtomicU64::default).take(PLACES).collect(),
            all: AtomicU64::new(0),
            untold: Mutex::default(),
            tell: Notify::new(),
            course: None,
        }
    }
}

impl Seen {
    pub(super) fn bytes(&self) -> usize {
        self.counts.len() * size_of::<(Tag, u64)>()
    }
}

impl TagVersions {
    /// Tag versions with an invalidation horizon.
    pub(crate) fn on_course() -> Self {
        Self { course: Some(InvalidationHorizon::default()), ..Self::default() }
    }

    pub(crate) const fn course(&self) -> Option<&InvalidationHorizon> {
        self.course.as_ref()
    }

    pub(crate) fn now(&self, tags: &[Tag]) -> Seen {
        let all = self.all.load(Ordering::SeqCst);
        let counts = tags.iter().map(|tag| (*tag, self.count(*tag).load(Ordering::SeqCst))).collect();
        Seen { all, counts }
    }

    /// Whether none of these tags has changed since.
    pub(crate) fn is_current(&self, seen: &Seen) -> bool {
        self.all.load(Ordering::SeqCst) == seen.all
            && seen.counts.iter().all(|(tag, count)| self.count(*tag).load(Ordering::SeqCst) == *count)
    }

    /// Invalidates these tags, here and, as soon as it is published, on other nodes. `events` are the events of the
    /// change; empty if none will be published for it.
    pub(crate) fn changed(&self, tags: &[Tag], events: &[Uuid]) {
        self.told(tags, events, events.is_empty());
        self.to_be_told(|untold| {
            untold.tags.extend_from_slice(tags);
            untold.events.extend_from_slice(events);
            untold.unsaid |= events.is_empty();
        });
    }

    /// Records a change that was made on this node or announced by another one.
    pub(super) fn told(&self, tags: &[Tag], events: &[Uuid], unsaid: bool) {
        if let Some(course) = &self.course {
            // The horizon first: a request that finds nothing in this node's cache looks at the responses of other
            // nodes.
            if !events.is_empty() {
                course.changed(tags, events);
            }
            if unsaid {
                course.changed(tags, &[]);
            }
        }
        self.forget(tags);
    }

    /// Increments the versions of these tags on this node.
    pub(super) fn forget(&self, tags: &[Tag]) {
        for tag in tags {
            self.count(*tag).fetch_add(1, Ordering::SeqCst);
        }
    }

    pub(super) fn forget_all(&self) {
        if let Some(course) = &self.course {
            course.everything_changed();
        }
        self.forget_all_here();
    }

    /// Invalidates everything that is cached on this node.
    pub(super) fn forget_all_here(&self) {
        self.all.fetch_add(1, Ordering::SeqCst);
    }

    fn count(&self, tag: Tag) -> &AtomicU64 {
        &self.counts[usize::from(tag.0)]
    }

    fn to_be_told(&self, note: impl FnOnce(&mut Untold)) {
        let mut untold = self.untold.lock().unwrap_or_else(PoisonError::into_inner);
        if !untold.is_told {
            return;
        }
        note(&mut untold);
        if untold.tags.len() > TOLD {
            untold.tags.sort_unstable_by_key(|tag| tag.0);
            untold.tags.dedup();
        }
        untold.everything |= untold.tags.len() > TOLD || untold.events.len() > TOLD;
        if untold.everything {
            (untold.tags, untold.events, untold.unsaid) = (Vec::new(), Vec::new(), false);
        }
        drop(untold);
        self.tell.notify_one();
    }

    /// Collects invalidations from here on, to be published to other nodes.
    pub(super) fn begin_telling(&self) {
        self.untold.lock().unwrap_or_else(PoisonError::into_inner).is_told = true;
    }

    /// The next invalidation to publish.
    pub(super) async fn to_tell(&self) -> Forget {
        loop {
            if let Some(forget) = self.next_to_tell() {
                return forget;
            }
            self.tell.notified().await;
        }
    }

    fn next_to_tell(&self) -> Option<Forget> {
        let mut untold = self.untold.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::take(&mut untold.everything) {
            return Some(Forget::Everything);
        }
        (!untold.tags.is_empty()).then(|| Forget::Tags {
            tags: std::mem::take(&mut untold.tags),
            events: std::mem::take(&mut untold.events),
            unsaid: std::mem::take(&mut untold.unsaid),
        })
    }
}

impl Forget {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Everything => Vec::new(),
            Self::Tags { tags, events, unsaid } => {
                let mut bytes = vec![u8::from(*unsaid)];
                bytes.extend(u32::try_from(events.len()).unwrap_or(u32::MAX).to_le_bytes());
                bytes.extend(events.iter().flat_map(|id| id.into_bytes()));
                bytes.extend(tags.iter().flat_map(|tag| tag.0.to_le_bytes()));
                bytes
            }
        }
    }

    pub(super) fn of_bytes(bytes: &[u8]) -> Self {
        // An unreadable message may mean anything.
        Self::read(bytes).unwrap_or(Self::Everything)
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (unsaid, rest) = bytes.split_first()?;
        let (count, rest) = rest.split_first_chunk()?;
        let length = usize::try_from(u32::from_le_bytes(*count)).ok()?.checked_mul(16)?;
        let (events, tags) = rest.split_at_checked(length)?;
        let events = events.chunks_exact(16).map(Uuid::from_slice).collect::<Result<_, _>>().ok()?;
        let is_whole = tags.len().is_multiple_of(2) && !tags.is_empty();
        let tags = tags.chunks_exact(2).map(|tag| Tag(u16::from_le_bytes([tag[0], tag[1]]))).collect();
        is_whole.then_some(Self::Tags { tags, events, unsaid: *unsaid != 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_before_a_change_is_current_no_more() {
        let generations = TagVersions::default();
        let [one, other] = [Tag::row("products", "1"), Tag::row("products", "2")];
        let (seen, both) = (generations.now(&[one]), generations.now(&[one, other]));
        generations.changed(&[other], &[]);
        assert!(generations.is_current(&seen) && !generations.is_current(&both));
        generations.forget_all();
        assert!(!generations.is_current(&seen));
    }

    #[test]
    fn names_do_not_run_into_each_other() {
        assert_ne!(Tag::tenant("a", "bc"), Tag::tenant("ab", "c"));
        assert_ne!(Tag::row("a", ""), Tag::rows("a"));
    }

    #[test]
    fn what_is_to_be_told_survives_the_way() {
        for (events, unsaid) in [(Vec::new(), true), (vec![Uuid::from_u128(1), Uuid::from_u128(2)], false)] {
            let tags = vec![Tag::row("products", "1"), Tag::table("products")];
            let told = Forget::Tags { tags, events, unsaid };
            assert_eq!(Forget::of_bytes(&told.to_bytes()), told);
        }
        assert_eq!(Forget::of_bytes(&Forget::Everything.to_bytes()), Forget::Everything);
        for broken in [&[1][..], &[0, 1, 0, 0, 0], &[0, 0, 0, 0, 0, 1]] {
            assert_eq!(Forget::of_bytes(broken), Forget::Everything);
        }
    }

    #[tokio::test]
    async fn so_much_that_changed_at_once_is_told_as_everything() {
        let generations = TagVersions::default();
        generations.begin_telling();
        for number in 0..100_000 {
            generations.changed(&[Tag::row("products", &number.to_string())], &[]);
        }
        assert_eq!(generations.to_tell().await, Forget::Everything);
    }
}
