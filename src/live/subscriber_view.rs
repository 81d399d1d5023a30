//! Subscriber view: what one subscription, over a stream or a socket, is shown of the changes of one resource.
//!
//! A change is evaluated against the item before and after it: an item that matches only after the change enters the
//! view, an item that matches only before leaves it. An event contains the fields that can be shown; hidden fields that
//! row filters depend on are read from the current row. Where a filter depends on a value that is no longer known, the
//! subscription is reset, which reveals nothing else.

use std::sync::Arc;

use resourceful_contract::{Filter, Value};
use serde_json::Value as Json;
use tokio::sync::OnceCell;

use crate::access::Actor;
use crate::access::Operation;
use crate::authz::decision;
use crate::authz::redact;
use crate::catalog::RowFilter;
use crate::catalog::{Entry, Mask};
use crate::digest;
use crate::engine::Fields;
use crate::engine::cache_key;
use crate::engine::can_evaluate;
use crate::engine::evaluate_partial;
use crate::engine::{Call, Engine, ListQuery};
use crate::error::{Error, ErrorKind};
use crate::outbox::Event;
use crate::query::{Binding, ListRequest};
use crate::resource::Fill;
use crate::tables::events::{EventRow, Position};

/// One caller's view of one resource, from one authorization decision.
#[derive(Debug)]
pub(crate) struct SubscriberView {
    pub(crate) entry: Arc<Entry>,
    /// The rows that lists show to the caller.
    row_filter: RowFilter,
    /// The row filter combined with the subscription's filter.
    combined_filter: Filter,
    mask: Mask,
    fields: Vec<usize>,
    /// Identifies the decision: a digest of the row filter and the field mask.
    pub(crate) policy: [u8; 16],
}

/// A change of one row, in the form that all subscribers share.
#[derive(Debug)]
pub(crate) struct RowChange {
    pub(crate) entry: Arc<Entry>,
    pub(crate) position: Position,
    pub(crate) event: Event,
    before: Option<RowState>,
    after: Option<RowState>,
    /// The hidden fields that changed.
    hidden_changes: Vec<usize>,
    current_row: OnceCell<Option<Vec<Value>>>,
}

/// The state of an item at one point in time.
#[derive(Clone, Debug)]
pub(crate) struct RowState {
    pub(crate) values: Vec<Value>,
    known: Vec<bool>,
}

/// The effect of a change on one subscriber view.
#[derive(Debug)]
pub(crate) enum ViewChange {
    Nothing,
    /// The event, as the caller may see it.
    Event(Event),
    /// The event that brought the item into the caller's view.
    Added(Event),
    /// The item left the caller's view.
    Removed(Event),
    /// It is no longer known whether the item was in the caller's view.
    Reset,
}

impl RowState {
    /// The value of a field, where it is known.
    pub(crate) fn value(&self, field: usize) -> Option<&Value> {
        self.known[field].then(|| &self.values[field])
    }
}

impl RowChange {
    /// Reads the change from an outbox row; `None` where its resource no longer exists.
    pub(crate) fn of(engine: &Engine, row: &EventRow) -> Option<Self> {
        let entry = engine.catalog.find(&row.resource).ok()?.clone();
        let event = engine.outbox.to_event(row);
        let Json::Object(data) = &event.data else { return None };
        let previous = row.previous.as_deref().and_then(|json| serde_json::from_str::<Fields>(json).ok());
        let hidden_changes: Vec<_> =
            row.hidden_changes.iter().filter_map(|name| entry.schema.position(name)).collect();
        let at = |fields: &Fields, unknown: &[usize]| row_state(&entry, row, fields, unknown);
        // A soft-deleted row may still exist, but no stream shows it.
        let (existed_before, exists_after) = match event.action() {
            "purged" => (false, false),
            "deleted" => (true, false),
            _ => (previous.is_some(), true),
        };
        let before = existed_before.then(|| {
            let mut fields = data.clone();
            fields.extend(previous.into_iter().flatten());
            let mut before = at(&fields, &hidden_changes);
            if let (Some(deleted_at), false) = (entry.definition.deleted_at, exists_after) {
                before.set(deleted_at, Value::Null);
            }
            before
        });
        let after = exists_after.then(|| at(data, &[]));
        let position = Position::of(row);
        Some(Self { position, before, after, hidden_changes, current_row: OnceCell::new(), event, entry })
    }

    /// The states before and after the change, as far as the item existed.
    pub(crate) fn states(&self) -> impl Iterator<Item = &RowState> {
        self.before.iter().chain(&self.after)
    }

    /// The current row; `None` where it no longer exists.
    async fn current_row(&self, engine: &Engine) -> Result<Option<&Vec<Value>>, Error> {
        let read = || async {
            let call = Call::as_application(engine, &self.entry);
            let Ok(id) = call.parse_id(&self.event.subject) else { return Ok(None) };
            match call.current(id).await {
                Ok((current_row, _)) => Ok(Some(call.partial_values(&current_row))),
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            }
        };
        Ok(self.current_row.get_or_try_init(read).await?.as_ref())
    }
}

/// The item's state from an event; the previous values of the `unknown` fields are unknown.
fn row_state(entry: &Entry, row: &EventRow, fields: &Fields, unknown: &[usize]) -> RowState {
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
    // The event row names the tenant even where the tenant field is hidden.
    let tenant_field = definition.fills.iter().find(|(_, fill)| *fill == Fill::Tenant);
    if let (Some((position, _)), Some(tenant)) = (tenant_field, &row.tenant) {
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

    /// The state with its unknown fields filled in from the current row, except for the hidden fields that changed.
    fn with_current(
        &self,
        entry: &Entry,
        current_row: Option<&Vec<Value>>,
        hidden_changes: &[usize],
    ) -> Self {
        let mut state = self.clone();
        if let Some(current_row) = current_row {
            let stored = entry.definition.model_fields.iter().chain(&entry.schema.version);
            for position in stored.copied().filter(|position| !hidden_changes.contains(position)) {
                if !state.known[position] {
                    state.set(position, current_row[position].clone());
                }
            }
        }
        state
    }
}

impl Call<'_> {
    /// The subscriber view of the items that match a filter.
    ///
    /// # Errors
    /// Where the caller may not list the resource.
    pub(crate) fn subscriber_view(
        &self,
        filter: &Filter,
        fields: Option<Vec<usize>>,
    ) -> Result<SubscriberView, Error> {
        let refused = || decision::denied(self.entry, self.actor, Operation::List);
        let row_filter = self.visibility().listed.clone().ok_or_else(refused)?;
        let mask = self.mask().clone();
        let mut input = digest::DigestInput::default();
        cache_key::digest_visibility(&mut input, &self.entry.schema, row_filter.filter(), &mask);
        let mut policy = [0; 16];
        policy.copy_from_slice(&input.digest().as_bytes()[..16]);
        Ok(SubscriberView {
            entry: self.entry.clone(),
            combined_filter: row_filter.restrict(filter.clone()),
            fields: fields.unwrap_or_else(|| self.visible_fields()),
            row_filter,
            mask,
            policy,
        })
    }

    /// Parses a stream request into its subscriber view and the binding of its positions.
    ///
    /// # Errors
    /// Every fault of the request, and where the caller may not list the resource.
    pub(crate) fn parse_stream(&self, list_query: ListQuery<'_>) -> Result<(SubscriberView, Binding), Error> {
        self.subscriber_view(&Filter::everything(), None)?;
        let request = match list_query {
            ListQuery::Url(query) => self.reader().stream(query)?,
            ListQuery::Body(body) => self.reader().stream_body(body)?,
        };
        let view = self.subscriber_view(&request.filter, request.fields)?;
        Ok((view, self.stream_binding(&request.filter)))
    }

    fn stream_binding(&self, filter: &Filter) -> Binding {
        let mut input = digest::DigestInput::default();
        digest::add_text(&mut input, &self.entry.schema.name);
        // Independent of the order in which the parts were written.
        let mut parts: Vec<[u8; 32]> = match filter {
            Filter::All(filters) => filters.iter().map(|one| self.filter_digest(one)).collect(),
            other => vec![self.filter_digest(other)],
        };
        parts.sort_unstable();
        for part in parts {
            input.update(&part);
        }
        Binding::for_stream(self.actor, &input)
    }

    fn filter_digest(&self, filter: &Filter) -> [u8; 32] {
        let mut input = digest::DigestInput::default();
        digest::add_filter(&mut input, &self.entry.schema, filter);
        *input.digest().as_bytes()
    }

    /// The subscriber view and the binding of positions for the stream of a list request.
    pub(crate) fn list_view(&self, request: &ListRequest) -> Result<(SubscriberView, Binding), Error> {
        Ok((self.subscriber_view(&request.filter, None)?, self.stream_binding(&request.filter)))
    }
}

impl SubscriberView {
    /// The unfiltered view: everything that the caller may list.
    pub(crate) async fn of(engine: &Engine, entry: &Arc<Entry>, actor: &Actor) -> Result<Self, Error> {
        engine.call(entry, actor, Operation::List, false).await?.subscriber_view(&Filter::everything(), None)
    }

    /// Whether the row filter depends on fields that events do not contain, so that past membership in the view is
    /// unknown.
    pub(crate) fn depends_on_hidden(&self) -> bool {
        let definition = &self.entry.definition;
        let tenant_field =
            definition.fills.iter().find(|(_, fill)| *fill == Fill::Tenant).map(|(field, _)| *field);
        let is_in_event = |field: usize| definition.visible.contains(&field) || Some(field) == tenant_field;
        !can_evaluate(self.row_filter.filter(), &is_in_event)
    }

    /// The filter that items must match to be shown.
    pub(crate) const fn filter(&self) -> &Filter {
        &self.combined_filter
    }

    /// Feeds everything that determines what the view shows into a digest.
    pub(crate) fn digest(&self, input: &mut digest::DigestInput) {
        digest::add_text(input, &self.entry.schema.name);
        input.update(&self.policy);
        digest::add_filter(input, &self.entry.schema, &self.combined_filter);
        for field in &self.fields {
            input.update(&(*field as u64).to_le_bytes());
        }
    }

    /// The effect of a change on this view.
    ///
    /// # Errors
    /// Where the storage fails.
    pub(crate) async fn evaluate(&self, engine: &Engine, change: &RowChange) -> Result<ViewChange, Error> {
        let may_match = |state: &Option<RowState>| match state {
            Some(state) => {
                evaluate_partial(&self.combined_filter, &state.values, &|field| state.known[field])
                    != Some(false)
            }
            None => false,
        };
        if !may_match(&change.before) && !may_match(&change.after) {
            return Ok(ViewChange::Nothing);
        }
        let (mut before, mut after) = (change.before.clone(), change.after.clone());
        let mut current_row = None;
        if !self.row_filter.is_unrestricted() {
            current_row = change.current_row(engine).await?;
            // The value of a hidden field before its change is unknown.
            before =
                before.map(|before| before.with_current(&self.entry, current_row, &change.hidden_changes));
            after = after.map(|after| after.with_current(&self.entry, current_row, &[]));
        }
        let was_visible = self.holds(engine, before.as_ref()).await?;
        let mut is = self.holds(engine, after.as_ref()).await?;
        if !self.row_filter.is_unrestricted() && is != Some(false) {
            is = match current_row {
                // Rows that GET would not show now are not shown.
                Some(current_row) if !self.admits(engine, current_row).await? => Some(false),
                // The row was deleted since; the event of that change follows.
                None if change.after.is_some() => Some(false),
                _ => is,
            };
        }
        let event = || self.redact_event(&change.event);
        Ok(match (was_visible, is) {
            (Some(true), Some(true)) => ViewChange::Event(event()?),
            (_, Some(true)) if change.before.is_none() => ViewChange::Event(event()?),
            (_, Some(true)) => ViewChange::Added(event()?),
            (Some(true), Some(false)) if change.after.is_none() => ViewChange::Event(event()?),
            (Some(true), Some(false)) => ViewChange::Removed(removed_event(&change.event)),
            (Some(false), Some(false)) => ViewChange::Nothing,
            (_, None) | (None, _) => ViewChange::Reset,
        })
    }

    async fn holds(&self, engine: &Engine, state: Option<&RowState>) -> Result<Option<bool>, Error> {
        let Some(state) = state else { return Ok(Some(false)) };
        let is_known = |field: usize| state.known[field];
        match evaluate_partial(&self.combined_filter, &state.values, &is_known) {
            None if can_evaluate(&self.combined_filter, &is_known) => {
                let call = Call::as_application(engine, &self.entry);
                call.filter_matches(&self.entry, &self.combined_filter, &state.values).await.map(Some)
            }
            decided => Ok(decided),
        }
    }

    async fn admits(&self, engine: &Engine, values: &[Value]) -> Result<bool, Error> {
        Call::as_application(engine, &self.entry).admits(&self.row_filter, values).await
    }

    /// The event with the fields that GET would show.
    fn redact_event(&self, event: &Event) -> Result<Event, Error> {
        let data = event.data.as_object().cloned().unwrap_or_default();
        let data = redact::visible_fields(&self.entry.schema, &self.mask, &self.fields, data)?;
        Ok(Event { data: Json::Object(data), ..event.clone() })
    }
}

/// The `removed` event of an item that is no longer in the view; it carries no data.
fn removed_event(event: &Event) -> Event {
    let event_type = format!("{}.removed", event.resource());
    let rest = event.clone();
    Event { event_type, data: Json::Null, dataschema: None, traceparent: None, tenantid: None, ..rest }
}
