//! History of an item: its audit entries, its state at a point in time, and reverting to that state.

use chrono::{DateTime, Utc};
use resourceful_contract::{Value, Version};
use serde_json::{Map, Value as Json, json};

use super::list::Page;
use super::past_states::{BATCH_SIZE, StatePolicy, StateTransition, undo_entry};
use crate::access::Operation;
use crate::authz::decision;
use crate::engine::write::action::validate_input;
use crate::engine::write::commit::Output;
use crate::engine::write::contention::ConflictRetry;
use crate::engine::write::input::Fields;
use crate::engine::write::update;
use crate::engine::{Call, Expected, Item};
use crate::error::{Error, ErrorKind, Fault, FaultLocation};
use crate::query::{Binding, Selection, parse_whole_number, read_parameters};
use crate::resource::id_text;
use crate::resource::{ActionRef, RevertTo, Right};

/// A parsed request for a page of entries.
struct HistoryQuery {
    limit: u32,
    after: Option<String>,
}

impl Call<'_> {
    /// The entries of an item, newest first, as far as they belong to the item that the caller may see. An entry is shown
    /// where the caller may see the state before or after it, with the field values of the visible states only.
    pub(crate) async fn history(&self, id: &str, query: Option<&str>) -> Result<Page, Error> {
        let parsed = self.parse_history_query(query)?;
        let id = self.parse_id(id)?;
        let policy = self.state_policy(self.changeable_with_deleted().await?).await?;
        self.require_item_visible(&policy, &id).await?;
        let binding = Binding::for_item(&self.entry.schema.name, self.actor, &id_text(&id));
        let mut below = None;
        if let Some(cursor) = &parsed.after {
            below = Some(self.engine.cursor_key.open_number(&binding, cursor)?);
        }
        let (items, next) = self.visible_entries(&policy, &id, below, parsed.limit as usize).await?;
        let next = next.map(|last| self.engine.cursor_key.seal_number(&binding, last));
        let page = json!({"next": next, "prev": null, "limit": parsed.limit});
        let json = json!({"items": items, "page": page}).to_string().into_bytes();
        Ok(Page { json, next, prev: None, total: None })
    }

    /// At most `limit` entries that the caller may see, and the position of the last one where there are more.
    async fn visible_entries(
        &self,
        policy: &StatePolicy,
        id: &Value,
        mut below: Option<i64>,
        limit: usize,
    ) -> Result<(Vec<Json>, Option<i64>), Error> {
        // Where every state is shown, no state needs to be known.
        let mut state = match policy.is_everything() {
            true => Some(Fields::new()),
            false => self.state_below(id, below).await?,
        };
        let step = BATCH_SIZE.min(u32::try_from(limit).unwrap_or(BATCH_SIZE).saturating_add(1));
        let mut is_visible = self.is_state_visible(policy, state.as_ref()).await?;
        let (mut items, mut last) = (Vec::new(), None);
        loop {
            let entries = self.engine.read_entries(self, id, below, step).await?;
            below = entries.last().map(|entry| entry.position);
            let is_end = entries.len() < step as usize;
            for entry in entries {
                // An earlier item with this id is another item, and an entry that retention emptied shows nothing.
                let is_first = entry.operation == "create";
                let is_forgotten = entry.is_emptied();
                let step = StateTransition::of(entry, state)?;
                let was_visible = self.is_state_visible(policy, step.before.as_ref()).await?;
                let visible =
                    if is_forgotten { None } else { self.visible_entry(&step, was_visible, is_visible)? };
                if let Some(visible) = visible {
                    if items.len() == limit {
                        return Ok((items, last));
                    }
                    items.push(visible);
                    last = Some(step.entry.position);
                }
                if is_first {
                    return Ok((items, None));
                }
                (state, is_visible) = (step.before, was_visible);
            }
            if is_end {
                return Ok((items, None));
            }
        }
    }

    async fn is_state_visible(&self, policy: &StatePolicy, state: Option<&Fields>) -> Result<bool, Error> {
        match state {
            Some(state) => self.admits_state(policy, state).await,
            None => Ok(false),
        }
    }

    fn parse_history_query(&self, query: Option<&str>) -> Result<HistoryQuery, Error> {
        let definition = self.definition();
        let mut parsed = HistoryQuery { limit: definition.default_limit, after: None };
        let mut faults = Vec::new();
        for parameter in read_parameters(query, &mut faults) {
            let outcome =
                parameter.single().and_then(|value| match (parameter.name(), parse_whole_number(value)) {
                    ("limit", Some(limit @ 1..)) => {
                        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
                        parsed.limit = limit.min(definition.max_limit);
                        Ok(())
                    }
                    ("limit", _) => Err(Fault::parameter("limit", "range", "Must be a whole number from 1.")),
                    ("after", _) => {
                        parsed.after = Some(value.to_owned());
                        Ok(())
                    }
                    _ => Err(parameter.unknown_parameter(["limit", "after"])),
                });
            faults.extend(outcome.err());
        }
        if faults.is_empty() { Ok(parsed) } else { Err(Error::invalid_query(faults)) }
    }

    /// An entry, as far as this caller may see the states before and after it.
    fn visible_entry(
        &self,
        step: &StateTransition,
        before: bool,
        after: bool,
    ) -> Result<Option<Json>, Error> {
        let entry = &step.entry;
        let changes: Map<String, Json> = match (before, after) {
            (false, false) => return Ok(None),
            // The item became visible to the caller: all of it is shown, as for a new item.
            (false, true) if step.before.is_some() => {
                let fields =
                    self.definition().visible.iter().map(|field| &self.entry.schema.fields[*field].name);
                let state = step.after.as_ref();
                let all_fields =
                    fields.filter_map(|name| Some((name.clone(), json!({"to": state?.get(name)?}))));
                all_fields.collect()
            }
            // The item stopped being visible, and its new state is not shown.
            (true, false) if step.after.is_some() => Map::new(),
            _ => serde_json::from_str(&entry.changes).map_err(Error::internal)?,
        };
        let at = crate::engine::write::input::time_json(entry.at);
        Ok(Some(json!({
            "operation": entry.operation, "at": at, "actor": entry.actor, "tenant": entry.tenant,
            "request_id": entry.request, "address": entry.address, "changes": self.mask_changes(changes)?,
        })))
    }

    /// The changes of the fields that the caller may see.
    fn mask_changes(&self, changes: Map<String, Json>) -> Result<Map<String, Json>, Error> {
        let (mask, schema) = (self.mask(), &self.entry.schema);
        let mut visible = Map::new();
        for (name, mut change) in changes {
            let Some(position) = schema.position(&name).filter(|position| mask.is_visible(*position)) else {
                continue;
            };
            if let Some((_, substitute)) = mask.redacted().iter().find(|(field, _)| *field == position) {
                let substitute: Json = serde_json::from_str(substitute).map_err(Error::internal)?;
                for value in change.as_object_mut().into_iter().flat_map(Map::values_mut) {
                    *value = substitute.clone();
                }
            }
            visible.insert(name, change);
        }
        Ok(visible)
    }

    /// Refuses an item that the caller may not see, whether it exists or was deleted.
    async fn require_item_visible(&self, policy: &StatePolicy, id: &Value) -> Result<(), Error> {
        let item = match self.current_state(id).await? {
            Some(item) => item,
            None => {
                let last = self.engine.read_entries(self, id, None, 1).await?.pop();
                let last = last.filter(|last| !last.is_emptied()).ok_or_else(Error::not_found)?;
                undo_entry(None, &last)?.ok_or_else(Error::not_found)?
            }
        };
        if self.admits_state(policy, &item).await? { Ok(()) } else { Err(Error::not_found()) }
    }

    /// The item's state at a point in time, where the caller may see both that state and the current one.
    pub(in crate::engine) async fn item_as_of(
        &self,
        id: Value,
        selection: &Selection,
        at: DateTime<Utc>,
    ) -> Result<Item, Error> {
        let may = decision::decide(&self.engine.catalog, self.entry, self.actor, Right::History).await;
        let may = decision::allowed_rows(may, self.entry, self.actor, Right::History)?;
        let rows = self.visible_rows()?.and(&may).resolved(self.entry, &self.engine.catalog).await?;
        let policy = self.state_policy(rows).await?;
        self.require_item_visible(&policy, &id).await?;
        let unknown = |earliest| not_retained(at, earliest, FaultLocation::Parameter("as_of".to_owned()));
        let past = self.state_at(&id, at, unknown).await?.ok_or_else(Error::not_found)?;
        if !self.admits_state(&policy, &past).await? {
            return Err(Error::not_found());
        }
        let fields = self.fields(selection);
        let values = self.partial_values(&past);
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
        let version = self.engine.digest_key.public_version(Version::of_content(&json));
        crate::authz::redact::redact_row(&self.reader(), selection, &mut json)?;
        let part = self.part(selection, &fields, &json);
        Ok(Item { json, version, part })
    }

    /// Reverts an item to its state at a point in time, as far as the caller may set its fields.
    pub(in crate::engine) async fn revert(
        &self,
        acted: ActionRef,
        id: &str,
        input: Option<&Json>,
        expected: Option<&Expected>,
    ) -> Result<Item, Error> {
        self.require_if_match(expected)?;
        let id = self.parse_id(id)?;
        let update = decision::decide(&self.engine.catalog, self.entry, self.actor, Operation::Update).await;
        let update = decision::allowed_rows(update, self.entry, self.actor, Operation::Update.into())?;
        let visible_rows = self.visible_rows()?.resolved(self.entry, &self.engine.catalog).await?;
        let changeable = self.changeable().await?.and(&update);
        let changeable = changeable.resolved(self.entry, &self.engine.catalog).await?;
        let mut attempts = ConflictRetry::default();
        loop {
            let (current, version) =
                self.current_within(&changeable, id.clone(), Right::Action(acted)).await?;
            self.check_version(expected, version)?;
            let input = validate_input(&self.definition().actions[acted.position], input)?;
            let RevertTo { as_of: at } = serde_json::from_value(input).map_err(Error::internal)?;
            let unknown = |earliest| not_retained(at, earliest, FaultLocation::Pointer("/as_of".to_owned()));
            let past = self.state_at(&id, at, unknown).await?.ok_or_else(|| not_existing_at(at))?;
            // A caller cannot revert to a state that the caller may not see.
            if !self.admits_known(&visible_rows, &past).await? {
                return Err(not_existing_at(at));
            }
            let patch = self.difference_to(&current, &past);
            let next = self.apply_patch(&current, &patch)?;
            let step = update::UpdateTarget {
                operation: Operation::Update,
                id: &id,
                current: &current,
                version,
                blind: &[],
            };
            let Some(mut prepared) = self.prepare_update(&changeable, step, next).await? else {
                return self.unchanged_item(&id, version).await;
            };
            prepared.main.record.audit_operation = "revert".into();
            match self.commit_with(prepared, &Output::Item).await {
                Ok(written) => return self.response_item(written).map(|(item, _)| item),
                Err(failure) if failure.is_retryable(Expected::has_versions(expected)) => {
                    attempts.wait(self.engine, vec![self.item_queue(&id)]).await?;
                }
                Err(failure) => return Err(self.commit_error(failure)),
            }
        }
    }

    /// The patch by which a client would restore an item's past state.
    fn difference_to(&self, current: &Fields, past: &Fields) -> Fields {
        let schema = &self.entry.schema;
        let settable = |name: &str| {
            schema.position(name).is_some_and(|position| {
                let field = &schema.fields[position];
                let is_settable = !field.read_only && !field.immutable && !field.hidden;
                // A field that does not exist for the caller stays as it is.
                position != schema.id && is_settable && self.mask().is_visible(position)
            })
        };
        let past = past.iter().filter(|(name, value)| settable(name) && current.get(*name) != Some(value));
        past.map(|(name, value)| (name.clone(), value.clone())).collect()
    }
}

fn not_existing_at(at: DateTime<Utc>) -> Error {
    let detail = format!("The item was not there at {}.", at.to_rfc3339());
    let fault = Fault::pointer("/as_of", "range", detail.clone());
    Error::validation(vec![fault])
}

/// The error for a point in time whose state is no longer retained.
fn not_retained(at: DateTime<Utc>, earliest: DateTime<Utc>, location: FaultLocation) -> Error {
    let detail = format!(
        "The item's state at {} is no longer retained: the earliest time that can be read is {}.",
        crate::clock::rfc3339(at),
        crate::clock::rfc3339(earliest)
    );
    let error = match location {
        FaultLocation::Pointer(_) => Error::validation(Vec::new()),
        _ => Error::new(ErrorKind::BadRequest, "invalid-query", detail.clone()),
    };
    error.with_faults(vec![Fault { at: location, code: "range".into(), detail }])
}
