//! Past states of an item, reconstructed from its audit entries, and the caller's visibility of them.

use chrono::{DateTime, Utc};
use resourceful_contract::{Filter, Query, Sort, Test, Value};
use serde_json::{Map, Value as Json};

use crate::authz::decision;
use crate::catalog::RowFilter;
use crate::engine::write::assemble::Fields;
use crate::engine::{Call, Engine};
use crate::error::{Error, ErrorKind};
use crate::resource::Right;
use crate::resource::id_text;
use crate::tables::audit::{AuditRow, ITEM, POSITION, RESOURCE};

/// Batch size for reading entries.
pub(in crate::engine) const STEP: u32 = 200;

/// The states of an item that a caller may see: the policy and, for deleted states, the right to see deleted items.
#[derive(Debug)]
pub(in crate::engine) struct StatePolicy {
    rows: RowFilter,
    /// The field with the time of deletion, and the deleted rows that the caller may see.
    deleted: Option<(String, Option<RowFilter>)>,
}

impl StatePolicy {
    /// Whether every state is admitted, whatever its values.
    pub(in crate::engine) const fn is_everything(&self) -> bool {
        self.rows.is_everything() && self.deleted.is_none()
    }
}

/// An audit entry with the states before and after it, where the item existed.
#[derive(Debug)]
pub(in crate::engine) struct Step {
    pub(in crate::engine) entry: AuditRow,
    pub(in crate::engine) before: Option<Fields>,
    pub(in crate::engine) after: Option<Fields>,
}

impl Engine {
    /// Entries of an item, newest first, including those that retention emptied.
    pub(in crate::engine) async fn trail(
        &self,
        call: &Call<'_>,
        id: &Value,
        below: Option<i64>,
        limit: u32,
    ) -> Result<Vec<AuditRow>, Error> {
        let is = |field, text: String| Filter::Compare(field, Test::Eq(Value::Text(text)));
        let mut filter = is(RESOURCE, call.entry.name.to_string()).and(is(ITEM, id_text(id)));
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
    /// The operations and changes of an item's entries as they were written, newest first, back to its creation.
    pub(crate) async fn audit_entries(
        &self,
        entry: &std::sync::Arc<crate::catalog::Entry>,
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
    /// The states of an item that the caller may see, within these rows.
    pub(in crate::engine) async fn state_policy(&self, rows: RowFilter) -> Result<StatePolicy, Error> {
        let Some(field) = self.definition().deleted_at else {
            return Ok(StatePolicy { rows, deleted: None });
        };
        let may = decision::decide(&self.engine.catalog, self.entry, self.actor, Right::Deleted).await;
        let may = match RowFilter::of(&may) {
            Some(may) => Some(may.resolved(self.entry, &self.engine.catalog).await?),
            None => None,
        };
        let name = self.entry.schema.fields[field].name.clone();
        Ok(StatePolicy { rows, deleted: Some((name, may)) })
    }

    /// Whether the caller may see an item in this state.
    pub(in crate::engine) async fn admits_state(
        &self,
        policy: &StatePolicy,
        state: &Fields,
    ) -> Result<bool, Error> {
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

    /// Whether a row filter admits a state, of which some fields may be unknown: never where it depends on one of those.
    pub(in crate::engine) async fn surely_admits(
        &self,
        rows: &RowFilter,
        state: &Fields,
    ) -> Result<bool, Error> {
        let holds = |field: usize| state.contains_key(&self.entry.schema.fields[field].name);
        Ok(speaks_of(rows.filter(), &holds) && self.admits(rows, &self.values_of(state)).await?)
    }

    /// The values of an item that may lack some fields.
    pub(crate) fn values_of(&self, item: &Fields) -> Vec<Value> {
        let fields = self.entry.schema.fields.iter();
        let value = |json: Option<&Json>, field: &resourceful_contract::Field| {
            field.field_type.read_json(json.unwrap_or(&Json::Null)).unwrap_or(Value::Null)
        };
        fields.map(|field| value(item.get(&field.name), field)).collect()
    }

    /// The item as it is stored now, regardless of visibility.
    pub(in crate::engine) async fn stored_now(&self, id: &Value) -> Result<Option<Fields>, Error> {
        match Call::by_the_application(self.engine, self.entry).current(id.clone()).await {
            Ok((item, _)) => Ok(Some(item)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The item's state right after the newest entry below a position; the current state where there is no position.
    pub(in crate::engine) async fn state_below(
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

    /// The item's state at a point in time; `None` where it did not exist then.
    ///
    /// # Errors
    /// The error that `unknown` makes of the earliest known time, where entries since then were emptied.
    pub(in crate::engine) async fn past(
        &self,
        id: &Value,
        at: DateTime<Utc>,
        unknown: impl FnOnce(DateTime<Utc>) -> Error,
    ) -> Result<Option<Fields>, Error> {
        let mut item = self.stored_now(id).await?;
        // The time since which the item is known, where that is not its creation.
        let mut known_since = None;
        let mut below = None;
        'pages: loop {
            let entries = self.engine.trail(self, id, below, STEP).await?;
            for entry in &entries {
                if entry.at <= at {
                    break 'pages;
                }
                if entry.operation == "create" {
                    // Before its creation there was no item, whatever the later entries said.
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
    /// An entry with the state after it; the state before it is derived.
    pub(in crate::engine) fn of(entry: AuditRow, after: Option<Fields>) -> Result<Self, Error> {
        let before = undone(after.clone(), &entry)?;
        Ok(Self { entry, before, after })
    }
}

/// Whether a filter refers only to these fields of a row.
pub(crate) fn speaks_of(filter: &Filter, holds: &dyn Fn(usize) -> bool) -> bool {
    match filter {
        Filter::All(filters) | Filter::Any(filters) => filters.iter().all(|filter| speaks_of(filter, holds)),
        Filter::Not(inner) => speaks_of(inner, holds),
        Filter::Compare(field, _) => holds(*field),
        Filter::Related(by, _) => holds(by.0.local),
        Filter::Search(fields, _) => fields.iter().all(|field| holds(*field)),
    }
}

/// The state of an item before an entry, given the state after it. A field whose earlier value no entry holds is left
/// out, since it is unknown; where retention emptied the entry, that is every field.
pub(in crate::engine) fn undone(item: Option<Fields>, entry: &AuditRow) -> Result<Option<Fields>, Error> {
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
