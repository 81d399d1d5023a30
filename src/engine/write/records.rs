//! Records of a change, written in its transaction: the event, the audit entry and the stored response of an idempotency
//! key.

use crate::resource::id_text;
use std::borrow::Cow;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use resourceful_contract::{Change, RowOutcome, Version, Write};
use serde_json::{Map, Value as Json, json};
use uuid::Uuid;

use super::commit::Output;
use super::idempotency::{IdempotencyClaim, StoredResponse};
use super::input;
use super::input::Fields;
use crate::catalog::Entry;
use crate::engine::Call;
use crate::resource::Fill;
use crate::tables::Tables;
use crate::tables::audit::AuditRow;
use crate::tables::events::EventRow;

/// The record of one change, from which its event and its audit entry are made.
#[derive(Clone, Debug)]
pub(in crate::engine) struct ChangeRecord {
    pub(in crate::engine) entry: Arc<Entry>,
    /// The operation, for hooks.
    pub(in crate::engine) operation: crate::access::Operation,
    /// Suffix of the event type after the resource's name: `created`, `updated`, `deleted`, or an action's own.
    pub(in crate::engine) event: Cow<'static, str>,
    /// The operation's name in the audit trail.
    pub(in crate::engine) audit_operation: Cow<'static, str>,
    /// The item before the change.
    pub(in crate::engine) before: Option<Fields>,
    /// The item after the change.
    pub(in crate::engine) after: Option<Fields>,
    /// Fields that count as changed whatever their previous value: the request set them without reading it.
    pub(in crate::engine) blind: Vec<usize>,
}

/// The records of one commit.
pub(in crate::engine) struct CommitRecords {
    tables: Arc<Tables>,
    records: Arc<Vec<ChangeRecord>>,
    mains: Vec<usize>,
    claim: Option<IdempotencyClaim>,
    response: StoredResponse,
    at: DateTime<Utc>,
    actor: Option<String>,
    tenant: Option<String>,
    request: Option<String>,
    trace: Option<String>,
    address: Option<String>,
}

/// The rows that record a commit.
#[derive(Debug, Default)]
pub(in crate::engine) struct RecordRows {
    pub(in crate::engine) changes: Vec<Change>,
    pub(in crate::engine) events: Vec<EventRow>,
}

impl CommitRecords {
    pub(in crate::engine) fn new(
        call: &Call<'_>,
        records: Arc<Vec<ChangeRecord>>,
        mains: Vec<usize>,
        output: &Output<'_>,
    ) -> Self {
        let context = call.context;
        Self {
            tables: call.engine.tables.clone(),
            records,
            mains,
            claim: context.claim.clone(),
            response: StoredResponse::of(output),
            at: crate::clock::now(),
            actor: call.actor.id().map(str::to_owned),
            tenant: call.actor.tenant().map(str::to_owned),
            request: context.request.clone(),
            trace: context.trace.clone(),
            address: context.address.map(|address| address.to_string()),
        }
    }

    /// Whether there is nothing to record.
    pub(in crate::engine) fn is_empty(&self) -> bool {
        let has_no_records = |record: &ChangeRecord| {
            let definition = &record.entry.definition;
            !definition.events && definition.audit.is_none()
        };
        self.claim.is_none() && self.records.iter().all(has_no_records)
    }

    /// The event, audit and idempotency rows that record the written rows.
    pub(in crate::engine) fn rows(&self, written: &[RowOutcome]) -> RecordRows {
        let mut rows = RecordRows::default();
        let insert = |schema: &Arc<_>, values| Change {
            schema: Arc::clone(schema),
            write: Write::Insert { values },
            answer: None,
        };
        let mut audit = Vec::new();
        for (record, row) in self.records.iter().zip(written) {
            let definition = &record.entry.definition;
            if definition.events {
                rows.events.push(self.event_row(record, row));
            }
            if definition.audit.is_some() {
                audit.push(insert(&self.tables.audit, self.audit_row(record, row).into_values()));
            }
        }
        rows.changes.extend(
            rows.events.iter().map(|event| insert(&self.tables.events, EventRow::clone(event).into_values())),
        );
        rows.changes.append(&mut audit);
        if let Some(claim) = &self.claim {
            let mains: Vec<_> = self.mains.iter().filter_map(|main| written.get(*main)).collect();
            let first = self.mains.first().map(|main| &self.records[*main]);
            if claim.has_expired {
                let write = Write::DeleteAll { filter: claim.filter() };
                rows.changes.push(Change { schema: self.tables.keys.clone(), write, answer: None });
            }
            let row = claim.row(self.at, first, &mains, &self.response);
            rows.changes.push(insert(&self.tables.keys, row.into_values()));
        }
        rows
    }

    fn event_row(&self, record: &ChangeRecord, row: &RowOutcome) -> EventRow {
        let data = match (&record.after, row.json.is_empty()) {
            (Some(_), false) => String::from_utf8_lossy(&row.json).into_owned(),
            (after, _) => Json::Object(record.visible(after.as_ref().or(record.before.as_ref()))).to_string(),
        };
        let previous = match (&record.before, &record.after) {
            (Some(before), Some(after)) => {
                let mut changed = record.visible(Some(before));
                changed.retain(|name, value| after.get(name) != Some(value));
                Some(Json::Object(changed).to_string())
            }
            _ => None,
        };
        EventRow {
            sequence: 0,
            id: Uuid::now_v7(),
            event_type: format!("{}.{}", record.entry.name, record.event),
            resource: record.entry.name.to_string(),
            subject: id_text(&row.id),
            time: self.at,
            tenant: record.tenant(),
            trace: self.trace.clone(),
            data,
            previous,
            hidden_changes: record.hidden_changes(),
            batch: None,
            attempts: 0,
            reason: None,
            dead_at: None,
            handled: Vec::new(),
        }
    }

    fn audit_row(&self, record: &ChangeRecord, row: &RowOutcome) -> AuditRow {
        AuditRow {
            position: 0,
            resource: record.entry.name.to_string(),
            item: id_text(&row.id),
            operation: record.audit_operation.clone().into_owned(),
            at: self.at,
            actor: self.actor.clone(),
            tenant: record.tenant().or_else(|| self.tenant.clone()),
            request: self.request.clone(),
            address: self.address.clone(),
            changes: Json::Object(record.changes(row)).to_string(),
            link: None,
            seal: None,
        }
    }
}

impl ChangeRecord {
    /// The fields of an item that a caller could be shown.
    fn visible(&self, item: Option<&Fields>) -> Fields {
        let definition = &self.entry.definition;
        let fields = definition.visible.iter().map(|position| &self.entry.schema.fields[*position].name);
        let item = item.into_iter();
        item.flat_map(|item| fields.clone().filter_map(|name| Some((name.clone(), item.get(name)?.clone()))))
            .collect()
    }

    /// Names of the changed fields that no caller is shown.
    fn hidden_changes(&self) -> Vec<String> {
        let (Some(before), Some(after)) = (&self.before, &self.after) else { return Vec::new() };
        let definition = &self.entry.definition;
        let hidden = definition.model_fields.iter().filter(|position| !definition.visible.contains(position));
        let names = hidden.map(|position| &self.entry.schema.fields[*position].name);
        names.filter(|name| before.get(*name) != after.get(*name)).cloned().collect()
    }

    /// The tenant that the item belongs to, where it has a tenant field.
    fn tenant(&self) -> Option<String> {
        let fill = self.entry.definition.fills.iter().find(|(_, fill)| *fill == Fill::Tenant)?;
        let item = self.after.as_ref().or(self.before.as_ref())?;
        match item.get(&self.entry.schema.fields[fill.0].name)? {
            Json::String(tenant) => Some(tenant.clone()),
            Json::Null => None,
            other => Some(other.to_string()),
        }
    }

    /// Changed fields with old and new value; hidden fields by name only.
    fn changes(&self, row: &RowOutcome) -> Map<String, Json> {
        let schema = &self.entry.schema;
        let mut changes = Map::new();
        for position in &self.entry.definition.model_fields {
            let field = &schema.fields[*position];
            let of = |item: &Option<Fields>| {
                item.as_ref().and_then(|item| item.get(&field.name)).cloned().unwrap_or(Json::Null)
            };
            let (from, mut to) = (of(&self.before), of(&self.after));
            if *position == schema.id && self.after.is_some() && self.before.is_none() {
                to = input::value_json(&row.id).unwrap_or(Json::Null);
            }
            if let (true, Some(Version::Counter(counter))) = (Some(*position) == schema.version, row.version)
            {
                to = counter.into();
            }
            // One value may have several JSON representations.
            let (was, is) = (field.field_type.read_json(&from), field.field_type.read_json(&to));
            if was != is || self.blind.contains(position) {
                to = is.ok().and_then(|value| input::value_json(&value).ok()).unwrap_or(to);
                let change = if field.hidden { json!({}) } else { json!({"from": from, "to": to}) };
                changes.insert(field.name.clone(), change);
            }
        }
        changes
    }
}
