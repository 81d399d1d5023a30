//! How far this node knows what has changed, by which answers are judged that other nodes made.
//!
//! Counts of tags are a node's own, so they say nothing of another one's answers. What all nodes have in common are the
//! positions of published events: an answer is stamped with the last one that its maker had seen before it read anything,
//! and shows everything that was published up to there. So it is good as long as nothing that it is made of has changed
//! after its stamp.
//!
//! A change is known before it is published: where it was made, and where the bus told of it. Until it is seen published
//! it stands after every stamp, so that nothing is good that it concerns. What is never published (what was forgotten on
//! purpose, what may have been missed) is waited out: no answer is kept for longer than its life.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::tags::{PLACES, Tag};
use crate::engine::Position;

/// How many events that were seen published are remembered, for a word of the bus that comes after them.
const PASSED: usize = 10_000;
/// After what time it is not believed any more that a change will be published.
const LATE: Duration = Duration::from_secs(60);

/// How far this node knows what has changed in the one database that it follows.
#[derive(Debug)]
pub(crate) struct InvalidationHorizon(Mutex<State>);

#[derive(Debug)]
struct State {
    /// From where on everything is known; nothing is before the first look.
    since: Option<Position>,
    at: Position,
    /// By tag: where it changed last.
    changed: Vec<Position>,
    /// What has changed and was not seen published, by number, and by each event which one it tells of.
    pending: HashMap<u64, Pending>,
    events: HashMap<Uuid, u64>,
    last: u64,
    /// By tag: how many of those concern it.
    waited_for: HashMap<Tag, u32>,
    passed: HashSet<Uuid>,
    passed_in_order: VecDeque<Uuid>,
    /// By tag: when it changed by something that is never published.
    unsaid: HashMap<Tag, Instant>,
    all_unsaid: Option<Instant>,
}

#[derive(Debug)]
struct Pending {
    tags: Box<[Tag]>,
    /// The events that were not seen yet.
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

    /// From this position on everything is known.
    pub(super) fn begins(&self, at: Position) {
        let now = Instant::now();
        let mut state = self.state();
        if state.since.is_some() {
            // What happened between is not.
            state.all_unsaid = Some(now);
        }
        // They may have been published before.
        state.give_up(now, Duration::ZERO);
        (state.since, state.at) = (Some(at), at);
    }

    /// Notes a change that will be published as these events; where there are none, one that never will.
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
        // Once for all of its events, however many there are.
        for tag in tags {
            *state.waited_for.entry(*tag).or_default() += 1;
        }
        state.last += 1;
        let number = state.last;
        state.events.extend(left.iter().map(|id| (*id, number)));
        state.pending.insert(number, Pending { tags: tags.into(), left, since: now });
    }

    /// Something may have changed that nobody told of.
    pub(super) fn everything_changed(&self) {
        self.state().all_unsaid = Some(Instant::now());
    }

    /// An event was seen published, and what it concerns.
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

    /// What an answer is stamped with that is made of these from here on; nothing where it would not be good for others.
    pub(super) fn stamp(&self, tags: &[Tag]) -> Option<Position> {
        let state = self.state();
        state.since?;
        (!tags.iter().any(|tag| state.waited_for.contains_key(tag))).then_some(state.at)
    }

    /// Whether an answer with this stamp shows everything that is known to have changed, by one that is kept for `life`.
    pub(super) fn is_good(&self, stamp: Position, tags: &[Tag], life: Duration) -> bool {
        let state = self.state();
        // What is above all that was seen is of another database, or of this one before it was put back.
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

    /// What was not seen published for long is waited out.
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
        // A word that comes after the event is none.
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
