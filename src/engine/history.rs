//! What became of an item, what it was at a time, and back to that.

use chrono::{DateTime, SecondsFormat, Utc};
use resourceful_contract::{Filter, Query, Sort, Test, Value, Version};
use serde_json::{Map, Value as Json, json};

use super::action::taken;
use super::commit::Output;
use super::item::Fields;
use super::record::spelled;
use super::sight::Admitted;
use super::update::{ATTEMPTS, Step, too_contended};
use super::{Call, Expected, Item, sight};
use crate::error::{Error, ErrorKind, Fault, Place};
use crate::query::{Binding, Parameters, Selection};
use crate::resource::{Acted, Operation, RevertTo, Right};
use crate::tables::audit::{AuditRow, ITEM, POSITION, RESOURCE};

/// How many entries are read at once to find what an item was.
const STEP: u32 = 200;

/// A page of an item's history.
#[derive(Debug)]
pub(crate) struct History {
    pub(crate) json: Vec<u8>,
}

/// A page of entries, as it is asked for.
struct Asked {
    limit: u32,
    after: Option<String>,
}

impl Call<'_> {
    /// The entries of an item, the newest first, as far as it is the item that the caller may see.
    pub(crate) async fn history(&self, id: &str, query: Option<&str>) -> Result<History, Error> {
        let asked = self.asked_history(query)?;
        let id = self.id(id)?;
        let rows = self.changeable_with_deleted().await?;
        self.may_know(&rows, &id).await?;
        let binding = Binding::of_item(&self.entry.schema.name, self.actor, &spelled(&id));
        let mut below = None;
        if let Some(cursor) = &asked.after {
            below = Some(self.engine.cursors.open_number(&binding, cursor)?);
        }
        let entries = self.entries(&id, below, asked.limit + 1).await?;
        // What had this id before is another item.
        let first = entries.iter().position(|entry| entry.operation == "create");
        let shown = &entries[..first.map_or(entries.len(), |first| first + 1).min(asked.limit as usize)];
        let more = entries.len() > shown.len() && first.is_none_or(|first| first >= shown.len());
        let items: Vec<Json> = shown.iter().map(|entry| self.told_entry(entry)).collect::<Result<_, _>>()?;
        let next = shown.last().filter(|_| more);
        let next = next.map(|last| self.engine.cursors.seal_number(&binding, last.position));
        let page = json!({"next": next, "prev": null, "limit": asked.limit});
        let json = json!({"items": items, "page": page}).to_string().into_bytes();
        Ok(History { json })
    }

    fn asked_history(&self, query: Option<&str>) -> Result<Asked, Error> {
        let definition = self.definition();
        let mut asked = Asked { limit: definition.default_limit, after: None };
        let mut faults = Vec::new();
        for parameter in Parameters::of(query) {
            match parameter {
                Ok((name, value)) if name == "limit" => match value.parse::<u32>() {
                    Ok(limit @ 1..) => asked.limit = limit.min(definition.max_limit),
                    _ => faults.push(Fault::parameter("limit", "range", "Must be a whole number from 1.")),
                },
                Ok((name, value)) if name == "after" => asked.after = Some(value.into_owned()),
                Ok((name, _)) => {
                    let detail = "There are `limit` and `after` here.";
                    faults.push(Fault::parameter(name, "unknown", detail));
                }
                Err(fault) => faults.push(fault),
            }
        }
        if faults.is_empty() { Ok(asked) } else { Err(Error::invalid_query(faults)) }
    }

    /// An entry as this caller may see it.
    fn told_entry(&self, entry: &AuditRow) -> Result<Json, Error> {
        let changes: Map<String, Json> = serde_json::from_str(&entry.changes).map_err(Error::internal)?;
        let mask = self.mask();
        let schema = &self.entry.schema;
        let mut told = Map::new();
        for (name, mut change) in changes {
            let Some(position) = schema.position(&name) else { continue };
            if !mask.shows(position) {
                continue;
            }
            if let Some((_, instead)) = mask.redacted().iter().find(|(field, _)| *field == position) {
                let instead: Json = serde_json::from_str(instead).map_err(Error::internal)?;
                change = json!({"from": instead, "to": instead});
            }
            told.insert(name, change);
        }
        let at = super::item::instant(entry.at);
        Ok(json!({
            "operation": entry.operation, "at": at, "actor": entry.actor, "tenant": entry.tenant,
            "request_id": entry.request, "address": entry.address, "changes": told,
        }))
    }

    /// Entries of an item that still say what changed, the newest first.
    async fn entries(&self, id: &Value, below: Option<i64>, limit: u32) -> Result<Vec<AuditRow>, Error> {
        let mut entries = self.trail(id, below, limit).await?;
        entries.retain(|entry| !entry.is_forgotten());
        Ok(entries)
    }

    /// Entries of an item, the newest first, those among them that were emptied.
    async fn trail(&self, id: &Value, below: Option<i64>, limit: u32) -> Result<Vec<AuditRow>, Error> {
        let is = |field, text: String| Filter::Compare(field, Test::Eq(Value::Text(text)));
        let mut filter = is(RESOURCE, self.entry.name.to_string()).and(is(ITEM, spelled(id)));
        if let Some(below) = below {
            filter = filter.and(Filter::Compare(POSITION, Test::Lt(Value::Integer(below))));
        }
        let query = Query {
            filter,
            sort: vec![Sort::descending(POSITION)],
            limit,
            ..Query::all(self.engine.tables.audit.clone())
        };
        let rows = self.entry.storage.kept(query).await?;
        Ok(rows.into_iter().map(AuditRow::read).collect())
    }

    /// Refuses an item that the caller may not see, whether it is still there or was.
    async fn may_know(&self, rows: &Admitted, id: &Value) -> Result<(), Error> {
        let anybody = Call::by_the_application(self.engine, self.entry);
        let item = match anybody.current(id.clone()).await {
            Ok((item, _)) => item,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let last = self.entries(id, None, 1).await?.pop().ok_or_else(Error::not_found)?;
                undone(None, &last)?.ok_or_else(Error::not_found)?
            }
            Err(error) => return Err(error),
        };
        self.must_admit(rows, &item).await?;
        self.must_be_shown(&item).await
    }

    /// Refuses an item that is deleted and still there, unless the caller may see those.
    async fn must_be_shown(&self, item: &Fields) -> Result<(), Error> {
        let field = self.definition().deleted_at.map(|field| &self.entry.schema.fields[field].name);
        if field.is_none_or(|field| item.get(field).is_none_or(serde_json::Value::is_null)) {
            return Ok(());
        }
        let may = sight::decide(&self.engine.catalog, self.entry, self.actor, Right::Deleted).await;
        let may = Admitted::of(&may).ok_or_else(Error::not_found)?;
        self.must_admit(&may.resolved(self.entry, &self.engine.catalog).await?, item).await
    }

    async fn must_admit(&self, rows: &Admitted, item: &Fields) -> Result<(), Error> {
        // A rule that speaks of a field which no entry holds cannot be asked of what is gone.
        let holds = |field: usize| item.contains_key(&self.entry.schema.fields[field].name);
        if speaks_of(rows.filter(), &holds) && self.admits(rows, &self.values_of(item)).await? {
            Ok(())
        } else {
            Err(Error::not_found())
        }
    }

    /// The values of an item that may lack some.
    pub(super) fn values_of(&self, item: &Fields) -> Vec<Value> {
        let fields = self.entry.schema.fields.iter();
        let value = |json: Option<&Json>, field: &resourceful_contract::Field| {
            field.field_type.read_json(json.unwrap_or(&Json::Null)).unwrap_or(Value::Null)
        };
        fields.map(|field| value(item.get(&field.name), field)).collect()
    }

    /// What an item was at a time; nothing where it was not there then. `place` is where the request names the time.
    ///
    /// # Errors
    /// Where entries since then were emptied, so that nobody knows any more.
    async fn past(&self, id: &Value, at: DateTime<Utc>, place: Place) -> Result<Option<Fields>, Error> {
        let anybody = Call::by_the_application(self.engine, self.entry);
        let mut item = match anybody.current(id.clone()).await {
            Ok((item, _)) => Some(item),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        // Since when the item is known, where that is not from its beginning.
        let mut known_since = None;
        let mut below = None;
        'pages: loop {
            let entries = self.trail(id, below, STEP).await?;
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
            Some(earliest) => Err(not_kept(at, earliest, place)),
            None => Ok(item),
        }
    }

    /// The item as it was at a time, where the caller may see it as it was and as it is.
    pub(super) async fn item_as_of(
        &self,
        id: Value,
        selection: &Selection,
        at: DateTime<Utc>,
    ) -> Result<Item, Error> {
        let may = sight::decide(&self.engine.catalog, self.entry, self.actor, Right::History).await;
        let may = Admitted::by(may, self.entry, self.actor, Right::History)?;
        let rows = self.seen()?.and(&may).resolved(self.entry, &self.engine.catalog).await?;
        self.may_know(&rows, &id).await?;
        let past = self.past(&id, at, Place::Parameter("as_of".to_owned())).await?;
        let past = past.ok_or_else(Error::not_found)?;
        self.must_admit(&rows, &past).await?;
        let fields = self.fields(selection);
        let values = self.values_of(&past);
        let mut json = b"{".to_vec();
        for (position, field) in fields.iter().enumerate() {
            if position > 0 {
                json.push(b',');
            }
            let name = serde_json::to_vec(&self.entry.schema.fields[*field].name);
            json.extend_from_slice(&name.map_err(Error::internal)?);
            json.push(b':');
            resourceful_contract::json::value(&mut json, &values[*field]);
        }
        json.push(b'}');
        let version = self.engine.names.name(Version::of_content(&json));
        super::redact::rows(self, selection, &mut json)?;
        let part = self.part(selection, &fields, &json);
        Ok(Item { json, version, part })
    }

    /// Puts an item back to what it was at a time, as far as the caller may set its fields.
    pub(super) async fn reverted(
        &self,
        acted: Acted,
        id: &str,
        input: Option<&Json>,
        expected: Option<&Expected>,
    ) -> Result<Item, Error> {
        self.require_expected(expected)?;
        let id = self.id(id)?;
        let update = sight::decide(&self.engine.catalog, self.entry, self.actor, Operation::Update).await;
        let update = Admitted::by(update, self.entry, self.actor, Operation::Update.into())?;
        let changeable = self.changeable().await?.and(&update);
        let changeable = changeable.resolved(self.entry, &self.engine.catalog).await?;
        for _ in 0..ATTEMPTS {
            let (current, version) = self.current_of(&changeable, id.clone(), Right::Action(acted)).await?;
            self.expect(expected, version)?;
            let input = taken(&self.definition().actions[acted.position], input)?;
            let RevertTo { as_of: at } = serde_json::from_value(input).map_err(Error::internal)?;
            let past =
                self.past(&id, at, Place::Pointer("/as_of".to_owned())).await?.ok_or_else(|| never(at))?;
            let patch = self.difference_to(&current, &past);
            self.refuse_forbidden(&Json::Object(patch.clone()))?;
            let next = self.patched(&current, &patch)?;
            let step = Step { operation: Operation::Update, id: &id, current: &current, version };
            let Some(mut prepared) = self.prepared_change(&changeable, step, next).await? else {
                return self.unchanged(&id, version).await;
            };
            prepared.main.record.done = "revert".into();
            match self.commit_with(prepared, &Output::Item).await {
                Ok(written) => return self.answered(written).map(|(item, _)| item),
                Err(failure) if failure.is_contended(expected.is_some()) => {}
                Err(failure) => return Err(self.explained(failure)),
            }
        }
        Err(too_contended())
    }

    /// What a client could set to make an item what it was.
    fn difference_to(&self, current: &Fields, past: &Fields) -> Fields {
        let schema = &self.entry.schema;
        let settable = |name: &str| {
            schema.position(name).is_some_and(|position| {
                let field = &schema.fields[position];
                position != schema.id && !field.read_only && !field.immutable && !field.hidden
            })
        };
        let past = past.iter().filter(|(name, value)| settable(name) && current.get(*name) != Some(value));
        past.map(|(name, value)| (name.clone(), value.clone())).collect()
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

fn never(at: DateTime<Utc>) -> Error {
    let detail = format!("The item was not there at {}.", at.to_rfc3339());
    let fault = Fault::pointer("/as_of", "range", detail.clone());
    Error::validation(vec![fault])
}

/// What an item was at a time is not kept any more.
fn not_kept(at: DateTime<Utc>, earliest: DateTime<Utc>, place: Place) -> Error {
    let spelled = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::AutoSi, true);
    let detail = format!(
        "What the item was at {} is not kept any more: the earliest time that can be read is {}.",
        spelled(at),
        spelled(earliest)
    );
    let error = match place {
        Place::Pointer(_) => Error::validation(Vec::new()),
        _ => Error::new(ErrorKind::BadRequest, "invalid-query", detail.clone()),
    };
    error.with_faults(vec![Fault { at: place, code: "range".into(), detail }])
}

/// An item before an entry, given what it was after it.
fn undone(item: Option<Fields>, entry: &AuditRow) -> Result<Option<Fields>, Error> {
    if entry.operation == "create" {
        return Ok(None);
    }
    let changes: Map<String, Json> = serde_json::from_str(&entry.changes).map_err(Error::internal)?;
    let mut item = item.unwrap_or_default();
    for (name, change) in changes {
        if let Some(from) = change.get("from") {
            item.insert(name, from.clone());
        }
    }
    Ok(Some(item))
}
