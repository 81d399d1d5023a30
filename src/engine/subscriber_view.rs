//! What one caller is told of the changes of one resource, in streams and on sockets.
//!
//! A change is looked at twice, as the item was before it and as it is after it: what matches only after it comes into the
//! caller's view, what matches only before goes out of it. An event holds what can be shown of an item; what nobody is
//! shown and rules may speak of is read from the row as it is now. Where a rule hangs on something that cannot be known any
//! more the caller is told to begin anew, which tells them nothing else.

use std::sync::Arc;

use resourceful_contract::{Filter, Value};
use serde_json::Value as Json;
use tokio::sync::OnceCell;

use super::item::Fields;
use super::past_states::speaks_of;
use super::visibility::{self, RowFilter};
use super::write_check::decided;
use super::{Call, Engine, Entry, ListQuery, Mask, Position, cache_key, redact};
use crate::access::Actor;
use crate::error::{Error, ErrorKind};
use crate::events::Event;
use crate::query::{Binding, ListRequest, digest};
use crate::resource::{Fill, Operation};
use crate::tables::events::EventRow;

/// What one caller is told of one resource, as was decided at one time.
#[derive(Debug)]
pub(crate) struct SubscriberView {
    pub(crate) entry: Arc<Entry>,
    /// The rows that the caller's lists hold.
    rows: RowFilter,
    /// Those of them that were asked for.
    whole: Filter,
    mask: Mask,
    shown: Vec<usize>,
    /// Names what the decision came to.
    pub(crate) policy: [u8; 16],
}

/// A change, as far as it is the same for everyone.
#[derive(Debug)]
pub(crate) struct RowChange {
    pub(crate) entry: Arc<Entry>,
    pub(crate) position: Position,
    pub(crate) event: Event,
    before: Option<RowState>,
    after: Option<RowState>,
    /// The hidden fields that changed.
    unsaid: Vec<usize>,
    now: OnceCell<Option<Vec<Value>>>,
}

/// An item at one time.
#[derive(Clone, Debug)]
pub(crate) struct RowState {
    pub(crate) values: Vec<Value>,
    known: Vec<bool>,
}

/// What a change is to one caller.
#[derive(Debug)]
pub(crate) enum ViewChange {
    Nothing,
    /// What happened, as the caller may see it.
    Event(Event),
    /// The same, by which the item came into the caller's view.
    Added(Event),
    /// The item went out of the caller's view.
    Removed(Event),
    /// Nobody knows any more whether the item was in the caller's view.
    Reset,
}

impl RowState {
    /// The value of a field, where it is known.
    pub(crate) fn value(&self, field: usize) -> Option<&Value> {
        self.known[field].then(|| &self.values[field])
    }
}

impl RowChange {
    /// What a row of the outbox tells of; `None` where its resource is no more.
    pub(crate) fn of(engine: &Engine, row: &EventRow) -> Option<Self> {
        let entry = engine.find(&row.resource).ok()?.clone();
        let event = engine.event(row);
        let Json::Object(data) = &event.data else { return None };
        let previous = row.previous.as_deref().and_then(|json| serde_json::from_str::<Fields>(json).ok());
        let unsaid: Vec<_> = row.unsaid.iter().filter_map(|name| entry.schema.position(name)).collect();
        let at = |fields: &Fields, unknown: &[usize]| state(&entry, row, fields, unknown);
        // A deleted item may still be there, out of every stream's sight.
        let (was_there, is_there) = match event.action() {
            "purged" => (false, false),
            "deleted" => (true, false),
            _ => (previous.is_some(), true),
        };
        let before = was_there.then(|| {
            let mut fields = data.clone();
            fields.extend(previous.into_iter().flatten());
            let mut before = at(&fields, &unsaid);
            if let (Some(deleted_at), false) = (entry.definition.deleted_at, is_there) {
                before.set(deleted_at, Value::Null);
            }
            before
        });
        let after = is_there.then(|| at(data, &[]));
        let position = Position::of(row);
        Some(Self { position, before, after, unsaid, now: OnceCell::new(), event, entry })
    }

    /// The item before and after, where it was there.
    pub(crate) fn states(&self) -> impl Iterator<Item = &RowState> {
        self.before.iter().chain(&self.after)
    }

    /// The row as it is now.
    async fn now(&self, engine: &Engine) -> Result<Option<&Vec<Value>>, Error> {
        let read = || async {
            let call = Call::by_the_application(engine, &self.entry);
            let Ok(id) = call.id(&self.event.subject) else { return Ok(None) };
            match call.current(id).await {
                Ok((now, _)) => Ok(Some(call.values_of(&now))),
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            }
        };
        Ok(self.now.get_or_try_init(read).await?.as_ref())
    }
}

/// An item as an event tells of it; these fields held nobody knows what.
fn state(entry: &Entry, row: &EventRow, fields: &Fields, unknown: &[usize]) -> RowState {
    let definition = &entry.definition;
    let mut state = RowState {
        values: vec![Value::Null; entry.schema.fields.len()],
        known: vec![false; entry.schema.fields.len()],
    };
    for position in &definition.visible {
        let field = &entry.schema.fields[*position];
        if let Some(json) = fields.get(&field.name) {
            state.values[*position] = field.field_type.read_json(json).unwrap_or(Value::Null);
        }
        state.known[*position] = true;
    }
    // Whose it is an event says also where no field is shown that does.
    let of_tenant = definition.fills.iter().find(|(_, fill)| *fill == Fill::Tenant);
    if let (Some((position, _)), Some(tenant)) = (of_tenant, &row.tenant) {
        let field_type = entry.schema.fields[*position].field_type;
        if !state.known[*position]
            && !unknown.contains(position)
            && let Ok(value) = field_type.parse(tenant)
        {
            state.set(*position, value);
        }
    }
    state
}

impl RowState {
    fn set(&mut self, field: usize, value: Value) {
        self.values[field] = value;
        self.known[field] = true;
    }

    /// The same with what is known of the row by now, but for what has changed since.
    fn completed(&self, entry: &Entry, now: Option<&Vec<Value>>, unsaid: &[usize]) -> Self {
        let mut state = self.clone();
        if let Some(now) = now {
            let stored = entry.definition.stored.iter().chain(&entry.schema.version);
            for position in stored.copied().filter(|position| !unsaid.contains(position)) {
                if !state.known[position] {
                    state.set(position, now[position].clone());
                }
            }
        }
        state
    }
}

impl Call<'_> {
    /// What this caller is told of the resource, of the items that match a filter.
    ///
    /// # Errors
    /// Where the caller may see no list.
    pub(crate) fn window(
        &self,
        filter: &Filter,
        fields: Option<Vec<usize>>,
    ) -> Result<SubscriberView, Error> {
        let refused = || visibility::refused(self.entry, self.actor, Operation::List);
        let rows = self.sight().listed.clone().ok_or_else(refused)?;
        let mask = self.mask().clone();
        let mut fed = digest::DigestInput::default();
        cache_key::sight(&mut fed, &self.entry.schema, rows.filter(), &mask);
        let mut policy = [0; 16];
        policy.copy_from_slice(&fed.digest().as_bytes()[..16]);
        Ok(SubscriberView {
            entry: self.entry.clone(),
            whole: rows.within(filter.clone()),
            shown: fields.unwrap_or_else(|| self.shown()),
            rows,
            mask,
            policy,
        })
    }

    /// Reads what is asked for of a stream: what is told, and what its positions belong to.
    ///
    /// # Errors
    /// Every fault of it, and where the caller may see no list.
    pub(crate) fn asked_stream(&self, asked: ListQuery<'_>) -> Result<(SubscriberView, Binding), Error> {
        self.window(&Filter::everything(), None)?;
        let request = match asked {
            ListQuery::Url(query) => self.reader().stream(query)?,
            ListQuery::Body(body) => self.reader().stream_body(body)?,
        };
        let window = self.window(&request.filter, request.fields)?;
        Ok((window, self.stream_binding(&request.filter)))
    }

    fn stream_binding(&self, filter: &Filter) -> Binding {
        let mut fed = digest::DigestInput::default();
        digest::text(&mut fed, &self.entry.schema.name);
        // In whatever order its parts were written.
        let mut parts: Vec<[u8; 32]> = match filter {
            Filter::All(filters) => filters.iter().map(|one| self.digest_of(one)).collect(),
            other => vec![self.digest_of(other)],
        };
        parts.sort_unstable();
        for part in parts {
            fed.update(&part);
        }
        Binding::of_stream(self.actor, &fed)
    }

    fn digest_of(&self, filter: &Filter) -> [u8; 32] {
        let mut fed = digest::DigestInput::default();
        digest::filter(&mut fed, &self.entry.schema, filter);
        *fed.digest().as_bytes()
    }

    /// The same for the stream of what a list holds.
    pub(crate) fn window_of_list(&self, request: &ListRequest) -> Result<(SubscriberView, Binding), Error> {
        Ok((self.window(&request.filter, None)?, self.stream_binding(&request.filter)))
    }
}

impl SubscriberView {
    /// What a caller is told of, whole: everything that the caller may list.
    pub(crate) async fn of(engine: &Engine, entry: &Arc<Entry>, actor: &Actor) -> Result<Self, Error> {
        engine.call(entry, actor, Operation::List, false).await?.window(&Filter::everything(), None)
    }

    /// Whether it hangs on fields that events do not say, so that of the past nobody knows any more what was in view.
    pub(crate) fn hangs_on_unsaid(&self) -> bool {
        let definition = &self.entry.definition;
        let of_tenant =
            definition.fills.iter().find(|(_, fill)| *fill == Fill::Tenant).map(|(field, _)| *field);
        let is_said = |field: usize| definition.visible.contains(&field) || Some(field) == of_tenant;
        !speaks_of(self.rows.filter(), &is_said)
    }

    /// Which items are told of.
    pub(crate) const fn filter(&self) -> &Filter {
        &self.whole
    }

    /// Feeds everything by which two callers are told alike into a digest.
    pub(crate) fn digest(&self, fed: &mut digest::DigestInput) {
        digest::text(fed, &self.entry.schema.name);
        fed.update(&self.policy);
        digest::filter(fed, &self.entry.schema, &self.whole);
        for field in &self.shown {
            fed.update(&(*field as u64).to_le_bytes());
        }
    }

    /// What a change is to the caller.
    ///
    /// # Errors
    /// Where the storage fails.
    pub(crate) async fn told(&self, engine: &Engine, happened: &RowChange) -> Result<ViewChange, Error> {
        let possible = |state: &Option<RowState>| match state {
            Some(state) => decided(&self.whole, &state.values, &|field| state.known[field]) != Some(false),
            None => false,
        };
        if !possible(&happened.before) && !possible(&happened.after) {
            return Ok(ViewChange::Nothing);
        }
        let (mut before, mut after) = (happened.before.clone(), happened.after.clone());
        let mut now = None;
        if !self.rows.is_everything() {
            now = happened.now(engine).await?;
            // What a hidden field held before a change of it nobody knows.
            before = before.map(|before| before.completed(&self.entry, now, &happened.unsaid));
            after = after.map(|after| after.completed(&self.entry, now, &[]));
        }
        let was = self.holds(engine, before.as_ref()).await?;
        let mut is = self.holds(engine, after.as_ref()).await?;
        if !self.rows.is_everything() && is != Some(false) {
            is = match now {
                // What GET would not show now is not shown.
                Some(now) if !self.admits(engine, now).await? => Some(false),
                // It is gone by now, and what tells of that comes.
                None if happened.after.is_some() => Some(false),
                _ => is,
            };
        }
        let event = || self.shown(&happened.event);
        Ok(match (was, is) {
            (Some(true), Some(true)) => ViewChange::Event(event()?),
            (_, Some(true)) if happened.before.is_none() => ViewChange::Event(event()?),
            (_, Some(true)) => ViewChange::Added(event()?),
            (Some(true), Some(false)) if happened.after.is_none() => ViewChange::Event(event()?),
            (Some(true), Some(false)) => ViewChange::Removed(removed(&happened.event)),
            (Some(false), Some(false)) => ViewChange::Nothing,
            (_, None) | (None, _) => ViewChange::Reset,
        })
    }

    async fn holds(&self, engine: &Engine, state: Option<&RowState>) -> Result<Option<bool>, Error> {
        let Some(state) = state else { return Ok(Some(false)) };
        let knows = |field: usize| state.known[field];
        match decided(&self.whole, &state.values, &knows) {
            None if speaks_of(&self.whole, &knows) => {
                let call = Call::by_the_application(engine, &self.entry);
                call.holds(&self.entry, &self.whole, &state.values).await.map(Some)
            }
            decided => Ok(decided),
        }
    }

    async fn admits(&self, engine: &Engine, values: &[Value]) -> Result<bool, Error> {
        Call::by_the_application(engine, &self.entry).admits(&self.rows, values).await
    }

    /// An event as GET would show its item.
    fn shown(&self, event: &Event) -> Result<Event, Error> {
        let data = event.data.as_object().cloned().unwrap_or_default();
        let data = redact::shown_of(&self.entry.schema, &self.mask, &self.shown, data)?;
        Ok(Event { data: Json::Object(data), ..event.clone() })
    }
}

/// What is told of an item that is not shown any more: that it is not.
fn removed(event: &Event) -> Event {
    let event_type = format!("{}.removed", event.resource());
    let rest = event.clone();
    Event { event_type, data: Json::Null, dataschema: None, traceparent: None, tenantid: None, ..rest }
}
