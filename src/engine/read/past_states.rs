//! Past states of an item, reconstructed from its audit entries, and the caller's visibility of them.

use chrono::{DateTime, Utc};
use resourceful_contract::{Filter, Query, Sort, Test, Value};
use serde_json::{Map, Value as Json};

use crate::authz::decision;
use crate::catalog::RowFilter;
use crate::engine::write::input::Fields;
use crate::engine::{Call, Engine};
use crate::error::{Error, ErrorKind};
use crate::resource::Right;
use crate::resource::id_text;
use crate::tables::audit::{AuditRow, ITEM, POSITION, RESOURCE};

/// Batch size for reading entries.
pub(in crate::engine) const BATCH_SIZE: u32 = 200;

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
        self.rows.is_unrestricted() && self.deleted.is_none()
    }
}

/// An audit entry with the states before and after it, where the item existed.
#[derive(Debug)]
pub(in crate::engine) struct StateTransition {
    pub(in crate::engine) entry: AuditRow,
    pub(in crate::engine) before: Option<Fields>,
    pub(in crate::engine) after: Option<Fields>,
}

impl Engine {
    /// Entries of an item, newest first, including those that retention emptied.
    pub(in crate::engine) async fn read_entries(
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
        let rows = call.entry.storage.read_internal(query).await?;
        Ok(rows.into_iter().map(AuditRow::from_values).collect())
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
        let call = Call::as_application(self, entry);
        let entries = self.read_entries(&call, &call.parse_id(id)?, None, 10_000).await?;
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
        if !self.admits_known(&policy.rows, state).await? {
            return Ok(false);
        }
        match &policy.deleted {
            Some((field, may)) if state.get(field).is_some_and(|at| !at.is_null()) => match may {
                Some(may) => self.admits_known(may, state).await,
                None => Ok(false),
            },
            _ => Ok(true),
        }
    }

    /// Whether a row filter admits a state, of which some fields may be unknown: never where it depends on one of those.
    pub(in crate::engine) async fn admits_known(
        &self,
        rows: &RowFilter,
        state: &Fields,
    ) -> Result<bool, Error> {
        let is_known = |field: usize| state.contains_key(&self.entry.schema.fields[field].name);
        Ok(can_evaluate(rows.filter(), &is_known) && self.admits(rows, &self.partial_values(state)).await?)
    }

    /// The values of an item that may lack some fields.
    pub(crate) fn partial_values(&self, item: &Fields) -> Vec<Value> {
        let fields = self.entry.schema.fields.iter();
        let value = |json: Option<&Json>, field: &resourceful_contract::Field| {
            field.field_type.read_json(json.unwrap_or(&Json::Null)).unwrap_or(Value::Null)
        };
        fields.map(|field| value(item.get(&field.name), field)).collect()
    }

    /// The item as it is stored now, regardless of visibility.
    pub(in crate::engine) async fn current_state(&self, id: &Value) -> Result<Option<Fields>, Error> {
        match Call::as_application(self.engine, self.entry).current(id.clone()).await {
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
        let mut state = self.current_state(id).await?;
        let Some(position) = position else { return Ok(state) };
        let mut below = None;
        loop {
            let entries = self.engine.read_entries(self, id, below, BATCH_SIZE).await?;
            for entry in &entries {
                if entry.position < position {
                    return Ok(state);
                }
                state = undo_entry(state, entry)?;
            }
            below = entries.last().map(|entry| entry.position);
            if entries.len() < BATCH_SIZE as usize {
                return Ok(state);
            }
        }
    }

    /// The item's state at a point in time; `None` where it did not exist then.
    ///
    /// # Errors
    /// The error that `unknown` makes of the earliest known time, where entries since then were emptied.
    pub(in crate::engine) async fn state_at(
        &self,
        id: &Value,
        at: DateTime<Utc>,
        unknown: impl FnOnce(DateTime<Utc>) -> Error,
    ) -> Result<Option<Fields>, Error> {
        let mut item = self.current_state(id).await?;
        // The time since which the item is known, where that is not its creation.
        let mut known_since = None;
        let mut below = None;
        'pages: loop {
            let entries = self.engine.read_entries(self, id, below, BATCH_SIZE).await?;
            for entry in &entries {
                if entry.at <= at {
                    break 'pages;
                }
                if entry.operation == "create" {
                    // Before its creation there was no item, whatever the later entries said.
                    (item, known_since) = (None, None);
                } else if entry.is_emptied() {
                    known_since = known_since.or(Some(entry.at));
                } else {
                    item = undo_entry(item, entry)?;
                }
            }
            below = entries.last().map(|entry| entry.position);
            if entries.len() < BATCH_SIZE as usize {
                break;
            }
        }
        match known_since {
            Some(earliest) => Err(unknown(earliest)),
            None => Ok(item),
        }
    }
}

impl StateTransition {
    /// An entry with the state after it; the state before it is derived.
    pub(in crate::engine) fn of(entry: AuditRow, after: Option<Fields>) -> Result<Self, Error> {
        let before = undo_entry(after.clone(), &entry)?;
        Ok(Self { entry, before, after })
    }
}

/// Whether a filter refers only to these fields of a row.
pub(crate) fn can_evaluate(filter: &Filter, is_known: &dyn Fn(usize) -> bool) -> bool {
    match filter {
        Filter::All(filters) | Filter::Any(filters) => {
            filters.iter().all(|filter| can_evaluate(filter, is_known))
        }
        Filter::Not(inner) => can_evaluate(inner, is_known),
        Filter::Compare(field, _) => is_known(*field),
        Filter::Related(by, _) => is_known(by.0.local),
        Filter::Search(fields, _) => fields.iter().all(|field| is_known(*field)),
    }
}

/// The state of an item before an entry, given the state after it. A field whose earlier value no entry holds is left
/// out, since it is unknown; where retention emptied the entry, that is every field.
pub(in crate::engine) fn undo_entry(item: Option<Fields>, entry: &AuditRow) -> Result<Option<Fields>, Error> {
    if entry.operation == "create" {
        return Ok(None);
    }
    if entry.is_emptied() {
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
