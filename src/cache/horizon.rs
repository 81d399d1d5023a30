//! Invalidation horizon: the last published position that this node has observed; validates responses computed by other
//! nodes.
//!
//! Tag versions are local to a node, so they say nothing about the responses of other nodes. What all nodes have in
//! common are the positions of published events: a response is stamped with the last position that its node had
//! observed before it read anything, and reflects every change published up to there. It is valid as long as none of
//! its tags has changed after its stamp.
//!
//! A change is known before it is published: on the node that made it, and on nodes that the bus informed. Until its
//! event is observed it counts as later than every stamp, so that no response with its tags is valid. A change that is
//! never published (an explicit invalidation, changes that may have been missed) is waited out: no response is kept for
//! longer than its lifetime.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::tags::{SLOTS, Tag};
use crate::tables::events::Position;

/// How many observed events are remembered, to recognise bus messages that arrive after the event itself.
const MAX_OBSERVED_EVENTS: usize = 10_000;
/// How long a change may remain unpublished before its event is no longer expected.
const PUBLICATION_TIMEOUT: Duration = Duration::from_secs(60);

/// How far this node knows the changes of the one database that it follows.
#[derive(Debug)]
pub(crate) struct InvalidationHorizon(Mutex<State>);

#[derive(Debug)]
struct State {
    /// The position from which on every change is known; `None` before the first one was received.
    since: Option<Position>,
    last_position: Position,
    /// By tag: the position of its last change.
    changed: Vec<Position>,
    /// Changes whose events were not all observed yet, by number; and by event, the number of its change.
    pending: HashMap<u64, Pending>,
    events: HashMap<Uuid, u64>,
    last_number: u64,
    /// By tag: how many of these pending changes concern it.
    pending_counts: HashMap<Tag, u32>,
    observed: HashSet<Uuid>,
    observed_order: VecDeque<Uuid>,
    /// By tag: when it changed without an event that will be published.
    unpublished: HashMap<Tag, Instant>,
    all_unpublished: Option<Instant>,
}

#[derive(Debug)]
struct Pending {
    tags: Box<[Tag]>,
    /// The events that were not observed yet.
    remaining_events: HashSet<Uuid>,
    since: Instant,
}

impl Default for InvalidationHorizon {
    fn default() -> Self {
        Self(Mutex::new(State {
            since: None,
            last_position: Position::after_batch(0),
            changed: vec![Position::after_batch(0); SLOTS],
            pending: HashMap::new(),
            events: HashMap::new(),
            last_number: 0,
            pending_counts: HashMap::new(),
            observed: HashSet::new(),
            observed_order: VecDeque::new(),
            unpublished: HashMap::new(),
            all_unpublished: None,
        }))
    }
}

impl InvalidationHorizon {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the position from which on every change is known.
    pub(super) fn start_from(&self, at: Position) {
        let now = Instant::now();
        let mut state = self.state();
        if state.since.is_some() {
            // Changes in between are unknown.
            state.all_unpublished = Some(now);
        }
        // Their events may have been published before this position.
        state.expire_pending(now, Duration::ZERO);
        (state.since, state.last_position) = (Some(at), at);
    }

    /// Records a change that will be published as these events; without events, one that is never published.
    pub(super) fn record_change(&self, tags: &[Tag], events: &[Uuid]) {
        let now = Instant::now();
        let mut state = self.state();
        if events.is_empty() {
            state.unpublished.extend(tags.iter().map(|tag| (*tag, now)));
            return;
        }
        state.expire_pending(now, PUBLICATION_TIMEOUT);
        let is_new = |id: &&Uuid| !state.observed.contains(*id) && !state.events.contains_key(*id);
        let remaining_events: HashSet<Uuid> = events.iter().filter(is_new).copied().collect();
        if remaining_events.is_empty() {
            return;
        }
        // Counted once per change, however many events it has.
        for tag in tags {
            *state.pending_counts.entry(*tag).or_default() += 1;
        }
        state.last_number += 1;
        let number = state.last_number;
        state.events.extend(remaining_events.iter().map(|id| (*id, number)));
        state.pending.insert(number, Pending { tags: tags.into(), remaining_events, since: now });
    }

    /// Records that any tag may have changed without an announcement.
    pub(super) fn record_all_changed(&self) {
        self.state().all_unpublished = Some(Instant::now());
    }

    /// Records that an event was observed, and the tags that it concerns.
    pub(super) fn record_event(&self, id: Uuid, position: Position, tags: &[Tag]) {
        let mut state = self.state();
        for tag in tags {
            let slot = usize::from(tag.slot());
            state.changed[slot] = state.changed[slot].max(position);
        }
        if let Some(number) = state.events.remove(&id)
            && let Some(pending) = state.pending.get_mut(&number)
        {
            pending.remaining_events.remove(&id);
            if pending.remaining_events.is_empty()
                && let Some(pending) = state.pending.remove(&number)
            {
                state.resolve_pending(&pending.tags, Some(position));
            }
        }
        state.last_position = state.last_position.max(position);
        if state.observed.insert(id) {
            state.observed_order.push_back(id);
        }
        if state.observed_order.len() > MAX_OBSERVED_EVENTS
            && let Some(oldest) = state.observed_order.pop_front()
        {
            state.observed.remove(&oldest);
        }
    }

    /// The stamp of a response that is computed from these tags from now on; `None` where it would not be valid on
    /// other nodes.
    pub(super) fn stamp(&self, tags: &[Tag]) -> Option<Position> {
        let state = self.state();
        state.since?;
        (!tags.iter().any(|tag| state.pending_counts.contains_key(tag))).then_some(state.last_position)
    }

    /// Whether a response with this stamp reflects every known change of its tags, where responses are kept for `life`.
    pub(super) fn is_valid(&self, stamp: Position, tags: &[Tag], freshness: Duration) -> bool {
        let state = self.state();
        // A stamp above every observed position is from another database, or from this one before it was restored.
        if state.since.is_none_or(|since| stamp < since) || stamp > state.last_position {
            return false;
        }
        let is_expired = |since: &Instant| since.elapsed() > freshness;
        state.all_unpublished.as_ref().is_none_or(is_expired)
            && tags.iter().all(|tag| {
                state.changed[usize::from(tag.slot())] <= stamp
                    && !state.pending_counts.contains_key(tag)
                    && state.unpublished.get(tag).is_none_or(is_expired)
            })
    }
}

impl State {
    fn resolve_pending(&mut self, tags: &[Tag], position: Option<Position>) {
        for tag in tags {
            if let Some(position) = position {
                let slot = usize::from(tag.slot());
                self.changed[slot] = self.changed[slot].max(position);
            }
            if let Some(count) = self.pending_counts.get_mut(tag) {
                *count -= 1;
                if *count == 0 {
                    self.pending_counts.remove(tag);
                }
            }
        }
    }

    /// Treats changes whose events were not observed in time as never published.
    fn expire_pending(&mut self, now: Instant, late: Duration) {
        let is_late = |pending: &Pending| now.duration_since(pending.since) >= late;
        if !self.pending.values().any(is_late) {
            return;
        }
        let late: Vec<_> =
            self.pending.iter().filter(|(_, pending)| is_late(pending)).map(|(number, _)| *number).collect();
        for number in late {
            if let Some(pending) = self.pending.remove(&number) {
                for id in &pending.remaining_events {
                    self.events.remove(id);
                }
                self.resolve_pending(&pending.tags, None);
                self.unpublished.extend(pending.tags.iter().map(|tag| (*tag, now)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIME: Duration = Duration::from_secs(3_600);

    fn at(batch: i64, sequence: i64) -> Position {
        Position { batch, sequence }
    }

    #[test]
    fn response_is_valid_until_tag_changes_after_stamp() {
        let horizon = InvalidationHorizon::default();
        let [one, other] = [Tag::row("things", "1"), Tag::row("things", "2")];
        assert_eq!(horizon.stamp(&[one]), None);
        horizon.start_from(at(5, 0));
        assert_eq!(horizon.stamp(&[one]), Some(at(5, 0)));
        assert!(horizon.is_valid(at(5, 0), &[one, other], LIFETIME));
        assert!(!horizon.is_valid(at(4, 9), &[one], LIFETIME), "from before everything was known");
        assert!(!horizon.is_valid(at(6, 0), &[one], LIFETIME), "from after everything that was seen");
        horizon.record_event(Uuid::from_u128(1), at(6, 1), &[one]);
        assert!(!horizon.is_valid(at(5, 0), &[one], LIFETIME));
        assert!(horizon.is_valid(at(5, 0), &[other], LIFETIME));
        assert!(horizon.is_valid(at(6, 1), &[one], LIFETIME));
    }

    #[test]
    fn pending_change_invalidates_every_stamp() {
        let horizon = InvalidationHorizon::default();
        let tag = Tag::row("things", "1");
        let [id, late] = [Uuid::from_u128(1), Uuid::from_u128(2)];
        horizon.start_from(at(5, 0));
        horizon.record_change(&[tag], &[id]);
        assert!(!horizon.is_valid(at(5, 0), &[tag], LIFETIME));
        assert_eq!(horizon.stamp(&[tag]), None);
        horizon.record_event(id, at(7, 1), &[]);
        assert!(!horizon.is_valid(at(5, 0), &[tag], LIFETIME));
        assert!(horizon.is_valid(at(7, 1), &[tag], LIFETIME));
        // A bus message that arrives after the event has no effect.
        horizon.record_event(late, at(7, 2), &[]);
        horizon.record_change(&[tag], &[late]);
        assert_eq!(horizon.stamp(&[tag]), Some(at(7, 2)));
    }

    #[test]
    fn unpublished_change_is_waited_out() {
        let horizon = InvalidationHorizon::default();
        let tag = Tag::declared("catalog");
        horizon.start_from(at(5, 0));
        horizon.record_change(&[tag], &[]);
        assert!(!horizon.is_valid(at(5, 0), &[tag], LIFETIME));
        std::thread::sleep(Duration::from_millis(2));
        assert!(horizon.is_valid(at(5, 0), &[tag], Duration::from_millis(1)));
        horizon.record_all_changed();
        assert!(!horizon.is_valid(at(5, 0), &[Tag::row("things", "1")], LIFETIME));
    }
}
