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

use super::tags::{PLACES, Tag};
use crate::tables::events::Position;

/// How many observed events are remembered, to recognise bus messages that arrive after the event itself.
const PASSED: usize = 10_000;
/// How long a change may remain unpublished before its event is no longer expected.
const LATE: Duration = Duration::from_secs(60);

/// How far this node knows the changes of the one database that it follows.
#[derive(Debug)]
pub(crate) struct InvalidationHorizon(Mutex<State>);

#[derive(Debug)]
struct State {
    /// The position from which on every change is known; `None` before the first one was received.
    since: Option<Position>,
    at: Position,
    /// By tag: the position of its last change.
    changed: Vec<Position>,
    /// Changes whose events were not all observed yet, by number; and by event, the number of its change.
    pending: HashMap<u64, Pending>,
    events: HashMap<Uuid, u64>,
    last: u64,
    /// By tag: how many of these pending changes concern it.
    waited_for: HashMap<Tag, u32>,
    passed: HashSet<Uuid>,
    passed_in_order: VecDeque<Uuid>,
    /// By tag: when it changed without an event that will be published.
    unsaid: HashMap<Tag, Instant>,
    all_unsaid: Option<Instant>,
}

#[derive(Debug)]
struct Pending {
    tags: Box<[Tag]>,
    /// The events that were not observed yet.
    left: HashSet<Uuid>,
    since: Instant,
}

impl Default for InvalidationHorizon {
    fn default() -> Self {
        Self(Mutex::new(State {
            since: None,
            at: Position::after_batch(0),
            changed: vec![Position::after_batch(0); PLACES],
            pending: HashMap::new(),
            events: HashMap::new(),
            last: 0,
            waited_for: HashMap::new(),
            passed: HashSet::new(),
            passed_in_order: VecDeque::new(),
            unsaid: HashMap::new(),
            all_unsaid: None,
        }))
    }
}

impl InvalidationHorizon {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the position from which on every change is known.
    pub(super) fn begins(&self, at: Position) {
        let now = Instant::now();
        let mut state = self.state();
        if state.since.is_some() {
            // Changes in between are unknown.
            state.all_unsaid = Some(now);
        }
        // Their events may have been published before this position.
        state.give_up(now, Duration::ZERO);
        (state.since, state.at) = (Some(at), at);
    }

    /// Records a change that will be published as these events; without events, one that is never published.
    pub(super) fn changed(&self, tags: &[Tag], events: &[Uuid]) {
        let now = Instant::now();
        let mut state = self.state();
        if events.is_empty() {
            state.unsaid.extend(tags.iter().map(|tag| (*tag, now)));
            return;
        }
        state.give_up(now, LATE);
        let is_new = |id: &&Uuid| !state.passed.contains(*id) && !state.events.contains_key(*id);
        let left: HashSet<Uuid> = events.iter().filter(is_new).copied().collect();
        if left.is_empty() {
            return;
        }
        // Counted once per change, however many events it has.
        for tag in tags {
            *state.waited_for.entry(*tag).or_default() += 1;
        }
        state.last += 1;
        let number = state.last;
        state.events.extend(left.iter().map(|id| (*id, number)));
        state.pending.insert(number, Pending { tags: tags.into(), left, since: now });
    }

    /// Records that any tag may have changed without an announcement.
    pub(super) fn everything_changed(&self) {
        self.state().all_unsaid = Some(Instant::now());
    }

    /// Records that an event was observed, and the tags that it concerns.
    pub(super) fn passed(&self, id: Uuid, position: Position, tags: &[Tag]) {
        let mut state = self.state();
        for tag in tags {
            let place = usize::from(tag.place());
            state.changed[place] = state.changed[place].max(position);
        }
        if let Some(number) = state.events.remove(&id)
            && let Some(pending) = state.pending.get_mut(&number)
        {
            pending.left.remove(&id);
            if pending.left.is_empty()
                && let Some(pending) = state.pending.remove(&number)
            {
                state.wait_no_more(&pending.tags, Some(position));
            }
        }
        state.at = state.at.max(position);
        if state.passed.insert(id) {
            state.passed_in_order.push_back(id);
        }
        if state.passed_in_order.len() > PASSED
            && let Some(oldest) = state.passed_in_order.pop_front()
        {
            state.passed.remove(&oldest);
        }
    }

    /// The stamp of a response that is computed from these tags from now on; `None` where it would not be valid on
    /// other nodes.
    pub(super) fn stamp(&self, tags: &[Tag]) -> Option<Position> {
        let state = self.state();
        state.since?;
        (!tags.iter().any(|tag| state.waited_for.contains_key(tag))).then_some(state.at)
    }

    /// Whether a response with this stamp reflects every known change of its tags, where responses are kept for `life`.
    pub(super) fn is_good(&self, stamp: Position, tags: &[Tag], life: Duration) -> bool {
        let state = self.state();
        // A stamp above every observed position is from another database, or from this one before it was restored.
        if state.since.is_none_or(|since| stamp < since) || stamp > state.at {
            return false;
        }
        let is_over = |since: &Instant| since.elapsed() > life;
        state.all_unsaid.as_ref().is_none_or(is_over)
            && tags.iter().all(|tag| {
                state.changed[usize::from(tag.place())] <= stamp
                    && !state.waited_for.contains_key(tag)
                    && state.unsaid.get(tag).is_none_or(is_over)
            })
    }
}

impl State {
    fn wait_no_more(&mut self, tags: &[Tag], position: Option<Position>) {
        for tag in tags {
            if let Some(position) = position {
                let place = usize::from(tag.place());
                self.changed[place] = self.changed[place].max(position);
            }
            if let Some(count) = self.waited_for.get_mut(tag) {
                *count -= 1;
                if *count == 0 {
                    self.waited_for.remove(tag);
                }
            }
        }
    }

    /// Treats changes whose events were not observed in time as never published.
    fn give_up(&mut self, now: Instant, late: Duration) {
        let is_late = |pending: &Pending| now.duration_since(pending.since) >= late;
        if !self.pending.values().any(is_late) {
            return;
        }
        let late: Vec<_> =
            self.pending.iter().filter(|(_, pending)| is_late(pending)).map(|(number, _)| *number).collect();
        for number in late {
            if let Some(pending) = self.pending.remove(&number) {
                for id in &pending.left {
                    self.events.remove(id);
                }
                self.wait_no_more(&pending.tags, None);
                self.unsaid.extend(pending.tags.iter().map(|tag| (*tag, now)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Duration = Duration::from_secs(3_600);

    fn at(batch: i64, sequence: i64) -> Position {
        Position { batch, sequence }
    }

    #[test]
    fn an_answer_is_good_until_something_changes_after_its_stamp() {
        let course = InvalidationHorizon::default();
        let [one, other] = [Tag::row("things", "1"), Tag::row("things", "2")];
        assert_eq!(course.stamp(&[one]), None);
        course.begins(at(5, 0));
        assert_eq!(course.stamp(&[one]), Some(at(5, 0)));
        assert!(course.is_good(at(5, 0), &[one, other], LIFE));
        assert!(!course.is_good(at(4, 9), &[one], LIFE), "from before everything was known");
        assert!(!course.is_good(at(6, 0), &[one], LIFE), "from after everything that was seen");
        course.passed(Uuid::from_u128(1), at(6, 1), &[one]);
        assert!(!course.is_good(at(5, 0), &[one], LIFE));
        assert!(course.is_good(at(5, 0), &[other], LIFE));
        assert!(course.is_good(at(6, 1), &[one], LIFE));
    }

    #[test]
    fn a_change_that_is_not_published_yet_stands_after_every_stamp() {
        let course = InvalidationHorizon::default();
        let tag = Tag::row("things", "1");
        let [id, late] = [Uuid::from_u128(1), Uuid::from_u128(2)];
        course.begins(at(5, 0));
        course.changed(&[tag], &[id]);
        assert!(!course.is_good(at(5, 0), &[tag], LIFE));
        assert_eq!(course.stamp(&[tag]), None);
        course.passed(id, at(7, 1), &[]);
        assert!(!course.is_good(at(5, 0), &[tag], LIFE));
        assert!(course.is_good(at(7, 1), &[tag], LIFE));
        // A bus message that arrives after the event has no effect.
        course.passed(late, at(7, 2), &[]);
        course.changed(&[tag], &[late]);
        assert_eq!(course.stamp(&[tag]), Some(at(7, 2)));
    }

    #[test]
    fn what_is_never_published_is_waited_out() {
        let course = InvalidationHorizon::default();
        let tag = Tag::declared("catalog");
        course.begins(at(5, 0));
        course.changed(&[tag], &[]);
        assert!(!course.is_good(at(5, 0), &[tag], LIFE));
        std::thread::sleep(Duration::from_millis(2));
        assert!(course.is_good(at(5, 0), &[tag], Duration::from_millis(1)));
        course.everything_changed();
        assert!(!course.is_good(at(5, 0), &[Tag::row("things", "1")], LIFE));
    }
}
