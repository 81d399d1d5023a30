//! The states that an item has had, read back from its audit entries, and which of them a caller may see.

use chrono::{DateTime, Utc};
use resourceful_contract::{Filter, Query, Sort, Test, Value};
use serde_json::{Map, Value as Json};

use super::item::Fields;
use super::record::spelled;
use super::visibility::{self, RowFilter};
use super::{Call, Engine};
use crate::error::{Error, ErrorKind};
use crate::resource::Right;
use crate::tables::audit::{AuditRow, ITEM, POSITION, RESOURCE};

/// How many entries are read at once.
pub(super) const STEP: u32 = 200;

/// Which states of an item a caller may see: the policy, and for deleted states the right to see those.
#[derive(Debug)]
pub(super) struct StatePolicy {
    rows: RowFilter,
    /// The field that says since when an item is deleted, and the deleted rows that the caller may see.
    deleted: Option<(String, Option<RowFilter>)>,
}

impl StatePolicy {
    /// Whether every state is admitted, whatever it holds.
    pub(super) const fn is_everything(&self) -> bool {
        self.rows.is_everything() && self.deleted.is_none()
    }
}

/// An audit entry and the states that it leads from and to, where the item was there.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) entry: AuditRow,
    pub(super) before: Option<Fields>,
    pub(super) after: Option<Fields>,
}

impl Engine {
    /// Entries of an item, the newest first, those among them that retention emptied.
    pub(super) async fn trail(
        &self,
        call: &Call<'_>,
        id: &Value,
        below: Option<i64>,
        limit: u32,
    ) -> Result<Vec<AuditRow>, Error> {
        let is = |field, text: String| Filter::Compare(field, Test::Eq(Value::Text(text)));
        let mut filter = is(RESOURCE, call.entry.name.to_string()).and(is(ITEM, spelled(id)));
        if let Some(below) = below {
            filter = filter.and(Filter::Compare(POSITION, Test::Lt(Value::Integer(below))));
        }
        let query = Query {
            filter,
            sort: vec![Sort::descending(POSITION)],
            limit,
            ..Query::all(self.tables.audit.clone())
        };
        let rows = call.entry.storage.kept(query).await?;
        Ok(rows.into_iter().map(AuditRow::read).collect())
    }
}

#[cfg(feature = "testing")]
impl Engine {
    /// The operations and changes of an item's entries as they were written, the newest first, back to its creation.
    pub(crate) async fn audit_entries(
        &self,
        entry: &std::sync::Arc<super::Entry>,
        id: &str,
    ) -> Result<Vec<(String, Fields)>, Error> {
        let call = Call::by_the_application(self, entry);
        let entries = self.trail(&call, &call.id(id)?, None, 10_000).await?;
        let first = entries.iter().position(|entry| entry.operation == "create");
        let entries = entries.into_iter().take(first.map_or(usize::MAX, |first| first + 1));
        let read = |entry: AuditRow| {
            let changes = serde_json::from_str(&entry.changes).map_err(Error::internal)?;
            Ok((entry.operation, changes))
        };
        entries.map(read).collect()
    }
}

impl Call<'_> {
    /// Which states of an item the caller may see, of these rows.
    pub(super) async fn state_policy(&self, rows: RowFilter) -> Result<StatePolicy, Error> {
        let Some(field) = self.definition().deleted_at else {
            return Ok(StatePolicy { rows, deleted: None });
        };
        let may = visibility::decide(&self.engine.catalog, self.entry, self.actor, Right::Deleted).await;
        let may = match RowFilter::of(&may) {
            Some(may) => Some(may.resolved(self.entry, &self.engine.catalog).await?),
            None => None,
        };
        let name = self.entry.schema.fields[field].name.clone();
        Ok(StatePolicy { rows, deleted: Some((name, may)) })
    }

    /// Whether the caller may see an item in this state.
    pub(super) async fn admits_state(&self, policy: &StatePolicy, state: &Fields) -> Result<bool, Error> {
        if !self.surely_admits(&policy.rows, state).await? {
            return Ok(false);
        }
        match &policy.deleted {
            Some((field, may)) if state.get(field).is_some_and(|at| !at.is_null()) => match may {
                Some(may) => self.surely_admits(may, state).await,
                None => Ok(false),
            },
            _ => Ok(true),
        }
    }

    /// Whether a filter admits a state, of which some fields may be unknown: never where it hangs on one of those.
    pub(super) async fn surely_admits(&self, rows: &RowFilter, state: &Fields) -> Result<bool, Error> {
        let holds = |field: usize| state.contains_key(&self.entry.schema.fields[field].name);
        Ok(speaks_of(rows.filter(), &holds) && self.admits(rows, &self.values_of(state)).await?)
    }

    /// The values of an item that may lack some.
    pub(super) fn values_of(&self, item: &Fields) -> Vec<Value> {
        let fields = self.entry.schema.fields.iter();
        let value = |json: Option<&Json>, field: &resourceful_contract::Field| {
            field.field_type.read_json(json.unwrap_or(&Json::Null)).unwrap_or(Value::Null)
        };
        fields.map(|field| value(item.get(&field.name), field)).collect()
    }

    /// The item as it is stored now, whoever may see it.
    pub(super) async fn stored_now(&self, id: &Value) -> Result<Option<Fields>, Error> {
        match Call::by_the_application(self.engine, self.entry).current(id.clone()).await {
            Ok((item, _)) => Ok(Some(item)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The item as it was right after the newest entry below a position; as it is now where there is no position.
    pub(super) async fn state_below(
        &self,
        id: &Value,
        position: Option<i64>,
    ) -> Result<Option<Fields>, Error> {
        let mut state = self.stored_now(id).await?;
        let Some(position) = position else { return Ok(state) };
        let mut below = None;
        loop {
            let entries = self.engine.trail(self, id, below, STEP).await?;
            for entry in &entries {
                if entry.position < position {
                    return Ok(state);
                }
                state = undone(state, entry)?;
            }
            below = entries.last().map(|entry| entry.position);
            if entries.len() < STEP as usize {
                return Ok(state);
            }
        }
    }

    /// What an item was at a time; nothing where it was not there then.
    ///
    /// # Errors
    /// As `unknown` makes it of the earliest time that is known, where entries since then were emptied.
    pub(super) async fn past(
        &self,
        id: &Value,
        at: DateTime<Utc>,
        unknown: impl FnOnce(DateTime<Utc>) -> Error,
    ) -> Result<Option<Fields>, Error> {
        let mut item = self.stored_now(id).await?;
        // Since when the item is known, where that is not from its beginning.
        let mut known_since = None;
        let mut below = None;
        'pages: loop {
            let entries = self.engine.trail(self, id, below, STEP).await?;
            for entry in &entries {
                if entry.at <= at {
                    break 'pages;
                }
                if entry.operation == "create" {
                    // Before it there was nothing, whatever the entries after it said.
                    (item, known_since) = (None, None);
                } else if entry.is_forgotten() {
                    known_since = known_since.or(Some(entry.at));
                } else {
                    item = undone(item, entry)?;
                }
            }
            below = entries.last().map(|entry| entry.position);
            if entries.len() < STEP as usize {
                break;
            }
        }
        match known_since {
            Some(earliest) => Err(unknown(earliest)),
            None => Ok(item),
        }
    }
}

impl Step {
    /// An entry with the state after it; the state before it follows.
    pub(super) fn of(entry: AuditRow, after: Option<Fields>) -> Result<Self, Error> {
        let before = undone(after.clone(), &entry)?;
        Ok(Self { entry, before, after })
    }
}

/// Whether a filter speaks of no other fields of a row than these.
pub(super) fn speaks_of(filter: &Filter, holds: &dyn Fn(usize) -> bool) -> bool {
    match filter {
        Filter::All(filters) | Filter::Any(filters) => filters.iter().all(|filter| speaks_of(filter, holds)),
        Filter::Not(inner) => speaks_of(inner, holds),
        Filter::Compare(field, _) => holds(*field),
        Filter::Related(by, _) => holds(by.0.local),
        Filter::Search(fields, _) => fields.iter().all(|field| holds(*field)),
    }
}

/// An item before an entry, given what it was after it. A field whose earlier value no entry keeps is left out: it is
/// unknown. Where retention emptied the entry every field is.
pub(super) fn undone(item: Option<Fields>, entry: &AuditRow) -> Result<Option<Fields>, Error> {
    if entry.operation == "create" {
        return Ok(None);
    }
    if entry.is_forgotten() {
        return Ok(Some(Fields::new()));
    }
    let changes: Map<String, Json> = serde_json::from_str(&entry.changes).map_err(Error::internal)?;
    let mut item = item.unwrap_or_default();
    for (name, change) in changes {
        match change.get("from") {
            Some(from) => item.insert(name, from.clone()),
            None => item.shift_remove(&name),
        };
    }
    Ok(Some(item))
}
