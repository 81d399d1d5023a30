//! Published events, in the order in which every node sees them, and their retention.
//!
//! An event gets its position in a commit of the node that holds the relay's lease, and positions increase with each such
//! commit. So no event ever appears below a position that a reader has seen, however late a transaction commits and
//! whichever node reads.

use std::sync::Arc;
use std::time::Duration;

use resourceful_contract::{
    Change, Filter, Guard, Position as Place, Query, Sort, Test, Value, Version, Write,
};
use serde_json::json;

use super::lease::RELAY;
use super::publish::is_concurrent_write;
use super::queue::Outbox;
use crate::catalog::{Entry, GuardedStorage};
use crate::error::Error;
use crate::tables::events::{BATCH, DELIVERED_AT, EventRow, Position, RESOURCE, SEQUENCE, TIME};
use crate::tables::leases::{EXPIRES_AT, LeaseRow, NAME, STATE};

/// Name of the row that stores the position up to which events may have been removed.
const REMOVED_UP_TO: &str = "forgotten";
/// Limit of unpublished events that are listed.
const MAX_UNPUBLISHED: u32 = 64;
/// Batch size for removing events.
const BATCH_SIZE: u32 = 1_000;

/// The events of a resource that were committed at one point in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommittedEvents {
    /// All events up to this position.
    pub(crate) up_to: Position,
    /// Sequence numbers of further committed events that are not published yet, up to a limit.
    pub(crate) unpublished: Vec<i64>,
}

/// The range of positions in which no published event is missing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Events up to this position may have been removed.
    pub(crate) removed_up_to: Position,
    /// Events that are published later have positions after this one.
    pub(crate) last: Position,
}

impl Bounds {
    /// Whether all events after a position can be read.
    pub(crate) fn covers(&self, position: Position) -> bool {
        // A position above the last one is from another database, or from this one before it was restored.
        position >= self.removed_up_to && position <= self.last
    }
}

impl Outbox {
    /// The last published position, and the position up to which events may have been removed.
    pub(crate) async fn bounds(&self, storage: &GuardedStorage) -> Result<Bounds, Error> {
        let names = [RELAY, REMOVED_UP_TO].map(|name| Value::Text(name.to_owned())).to_vec();
        let mut query = Query::all(self.tables.leases.clone());
        query.filter = Filter::Compare(NAME, Test::In(names));
        let mut bounds = Bounds { removed_up_to: Position::after_batch(0), last: Position::after_batch(0) };
        for lease in storage.read_internal(query).await?.into_iter().map(LeaseRow::from_values) {
            if lease.name == RELAY {
                bounds.last = Position::after_batch(lease.version);
            } else {
                bounds.removed_up_to = Position::after_batch(removed_batch(&lease));
            }
        }
        Ok(bounds)
    }

    /// The next published events after a position, of these resources or of all.
    pub(crate) async fn published_after(
        &self,
        storage: &GuardedStorage,
        after: Position,
        limit: u32,
        resources: Option<&[Arc<str>]>,
    ) -> Result<Vec<EventRow>, Error> {
        let filter = match resources {
            Some(names) => {
                let names = names.iter().map(|name| Value::Text(name.to_string())).collect();
                published_filter().and(Filter::Compare(RESOURCE, Test::In(names)))
            }
            None => published_filter(),
        };
        let after = Place::After(vec![Value::Integer(after.batch), Value::Integer(after.sequence)]);
        let query = Query { position: after, limit, ..self.by_position(filter) };
        Ok(storage.read_internal(query).await?.into_iter().map(EventRow::from_values).collect())
    }

    /// The committed events of a resource: the last published position, and the unpublished events.
    pub(crate) async fn committed(&self, entry: &Entry) -> Result<CommittedEvents, Error> {
        let storage = &entry.storage;
        // Unpublished events are read first: an event that is published meanwhile is then found twice, and in the other
        // order not at all.
        let new = self.unpublished(storage, MAX_UNPUBLISHED).await?;
        let sort = vec![Sort::descending(BATCH), Sort::descending(SEQUENCE)];
        let query = Query { sort, limit: 1, ..self.by_position(published_filter()) };
        let last = storage.read_internal_fields(query, vec![BATCH, SEQUENCE]).await?;
        let last = match last.first().map(Vec::as_slice) {
            Some([Value::Integer(batch), Value::Integer(sequence)]) => {
                Position { batch: *batch, sequence: *sequence }
            }
            _ => Position::after_batch(0),
        };
        let forgotten = self.bounds(storage).await?.removed_up_to;
        let is_of = |event_type: &str| event_type.split('.').next() == Some(&*entry.name);
        let new = new.into_iter().filter(|(_, event_type)| is_of(event_type));
        let new = new.map(|(sequence, _)| sequence).collect();
        Ok(CommittedEvents { up_to: last.max(forgotten), unpublished: new })
    }

    fn by_position(&self, filter: Filter) -> Query {
        let sort = vec![Sort::ascending(BATCH), Sort::ascending(SEQUENCE)];
        Query { filter, sort, ..Query::all(self.tables.events.clone()) }
    }

    /// Removes delivered events after their retention and records up to which position; returns how many.
    pub(crate) async fn remove_expired_events(
        &self,
        storage: &GuardedStorage,
        retention: Duration,
    ) -> Result<u64, Error> {
        let Some(before) = chrono::Duration::from_std(retention)
            .ok()
            .and_then(|retention| crate::clock::now().checked_sub_signed(retention))
        else {
            return Ok(0);
        };
        let old = published_filter()
            .and(Filter::Compare(DELIVERED_AT, Test::IsNull(false)))
            .and(Filter::Compare(TIME, Test::Lt(Value::DateTime(before))));
        let mut removed = 0;
        loop {
            let query = Query { limit: BATCH_SIZE, ..self.by_position(old.clone()) };
            let rows = storage.read_internal_fields(query, vec![BATCH]).await?;
            let Some([Value::Integer(last)]) = rows.last().map(Vec::as_slice) else { return Ok(removed) };
            let last = *last;
            let up_to = Filter::Compare(BATCH, Test::Lte(Value::Integer(last)));
            let write = Write::DeleteAll { filter: old.clone().and(up_to) };
            let delete = Change { schema: self.tables.events.clone(), write, answer: None };
            // In one commit, so that a subscriber that resumes from before it learns that events may be missing.
            match storage.commit_internal(vec![self.record_removal(storage, last).await?, delete]).await {
                Ok(committed) => removed += committed.rows.last().map_or(0, |row| row.rows),
                // Another node does the same.
                Err(error) if is_concurrent_write(&error) => return Ok(removed),
                Err(error) => return Err(error.into()),
            }
            if rows.len() < BATCH_SIZE as usize {
                return Ok(removed);
            }
        }
    }

    async fn record_removal(&self, storage: &GuardedStorage, last: i64) -> Result<Change, Error> {
        let mut query = Query::all(self.tables.leases.clone());
        query.filter = Filter::Compare(NAME, Test::Eq(Value::Text(REMOVED_UP_TO.to_owned())));
        let known = storage.read_internal(query).await?.pop().map(LeaseRow::from_values);
        let now = crate::clock::now();
        let state = |batch: i64| json!({ "batch": batch }).to_string();
        let write = match known {
            Some(known) => {
                let state = state(last.max(removed_batch(&known)));
                let set = vec![(EXPIRES_AT, Value::DateTime(now)), (STATE, Value::Text(state))];
                let guard = Guard::version(Version::Counter(known.version));
                Write::Update { id: Value::Text(known.name), set, guard }
            }
            None => {
                let (name, holder) = (REMOVED_UP_TO.to_owned(), String::new());
                let state = Some(state(last));
                Write::Insert {
                    values: LeaseRow { name, version: 1, holder, expires_at: now, state }.into_values(),
                }
            }
        };
        Ok(Change { schema: self.tables.leases.clone(), write, answer: None })
    }
}

fn published_filter() -> Filter {
    Filter::Compare(BATCH, Test::IsNull(false))
}

fn removed_batch(lease: &LeaseRow) -> i64 {
    let state = lease.state.as_deref().and_then(|state| serde_json::from_str(state).ok());
    state.and_then(|state: serde_json::Value| state["batch"].as_i64()).unwrap_or_default()
}
