//! Table of the outbox: an event for each change, inserted in the transaction of the change.

use chrono::{DateTime, Utc};
use resourceful_contract::{FieldType, IdSource, Index, Schema, Value};
use uuid::Uuid;

use super::{RowReader, field, nullable_field, optional_text, table, text};

/// Whether a schema is the table of events.
pub(crate) fn is_events_table(schema: &Schema) -> bool {
    super::is_library_table(schema) && schema.name == NAME
}

const NAME: &str = "events";
pub(crate) const SEQUENCE: usize = 0;
pub(crate) const ID: usize = 1;
pub(crate) const EVENT_TYPE: usize = 2;
pub(crate) const RESOURCE: usize = 3;
pub(crate) const TIME: usize = 5;
pub(crate) const BATCH: usize = 11;
pub(crate) const DELIVERED_AT: usize = 12;
pub(crate) const ATTEMPTS: usize = 13;
pub(crate) const DUE_AT: usize = 14;
pub(crate) const REASON: usize = 15;
pub(crate) const DEAD_AT: usize = 16;
pub(crate) const HANDLED: usize = 17;

pub(super) fn schema() -> Schema {
    let fields = vec![
        field("sequence", FieldType::Integer),
        field("id", FieldType::Uuid),
        field("type", FieldType::Text),
        field("resource", FieldType::Text),
        field("subject", FieldType::Text),
        field("time", FieldType::DateTime),
        nullable_field("tenant", FieldType::Text),
        nullable_field("trace", FieldType::Text),
        field("data", FieldType::Text),
        nullable_field("previous", FieldType::Text),
        nullable_field("unsaid", FieldType::Text),
        nullable_field("batch", FieldType::Integer),
        nullable_field("told_at", FieldType::DateTime),
        field("attempts", FieldType::Integer),
        nullable_field("due_at", FieldType::DateTime),
        nullable_field("reason", FieldType::Text),
        nullable_field("dead_at", FieldType::DateTime),
        nullable_field("handled", FieldType::Text),
    ];
    let mut schema = table(NAME, fields, IdSource::Storage);
    schema.indexes = vec![Index { fields: vec![BATCH], unique: false }];
    schema
}

/// An event row of the outbox.
#[derive(Clone, Debug)]
pub(crate) struct EventRow {
    pub(crate) sequence: i64,
    pub(crate) id: Uuid,
    pub(crate) event_type: String,
    pub(crate) resource: String,
    /// The item's id.
    pub(crate) subject: String,
    pub(crate) time: DateTime<Utc>,
    pub(crate) tenant: Option<String>,
    /// The W3C `traceparent` of the request that made the change.
    pub(crate) trace: Option<String>,
    /// The item after the change, or before a delete, with all fields that a caller could be shown, as JSON.
    pub(crate) data: String,
    /// Previous values of the changed fields, as JSON.
    pub(crate) previous: Option<String>,
    /// Names of the changed fields that no caller is shown.
    pub(crate) hidden_changes: Vec<String>,
    /// Batch of its position among the published events: a reader that has seen all lower ones misses nothing. `None`
    /// before it is published.
    pub(crate) batch: Option<i64>,
    pub(crate) attempts: i64,
    pub(crate) reason: Option<String>,
    pub(crate) dead_at: Option<DateTime<Utc>>,
    /// The subscribers that have already handled it, where another one failed.
    pub(crate) handled: Vec<String>,
}

impl EventRow {
    /// The values of a new row; the storage assigns its sequence number.
    pub(crate) fn into_values(self) -> Vec<Value> {
        vec![
            Value::Null,
            Value::Uuid(self.id),
            text(self.event_type),
            text(self.resource),
            text(self.subject),
            Value::DateTime(self.time),
            optional_text(self.tenant),
            optional_text(self.trace),
            text(self.data),
            optional_text(self.previous),
            optional_text(
                (!self.hidden_changes.is_empty()).then(|| serde_json::json!(self.hidden_changes).to_string()),
            ),
            Value::Null,
            Value::Null,
            Value::Integer(0),
            Value::Null,
            Value::Null,
            Value::Null,
            Value::Null,
        ]
    }

    /// Reads a row from the values of all its fields.
    pub(crate) fn from_values(values: Vec<Value>) -> Self {
        let mut row = RowReader::new(values);
        Self {
            sequence: row.number(),
            id: row.uuid(),
            event_type: row.text(),
            resource: row.text(),
            subject: row.text(),
            time: row.datetime(),
            tenant: row.optional_text(),
            trace: row.optional_text(),
            data: row.text(),
            previous: row.optional_text(),
            hidden_changes: parse_names(row.optional_text()),
            batch: row.optional_number(),
            attempts: {
                // The time of delivery to all subscribers.
                row.skip();
                row.number()
            },
            reason: {
                // The time of the next retry.
                row.skip();
                row.optional_text()
            },
            dead_at: row.optional_datetime(),
            handled: parse_names(row.optional_text()),
        }
    }
}

fn parse_names(json: Option<String>) -> Vec<String> {
    json.and_then(|names| serde_json::from_str(&names).ok()).unwrap_or_default()
}

/// A position among the published events of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Position {
    pub(crate) batch: i64,
    pub(crate) sequence: i64,
}

impl Position {
    /// The position after all events that one commit published.
    pub(crate) const fn after_batch(batch: i64) -> Self {
        Self { batch, sequence: i64::MAX }
    }

    /// The position of an event; before all others where it is unpublished.
    pub(crate) fn of(row: &EventRow) -> Self {
        Self { batch: row.batch.unwrap_or_default(), sequence: row.sequence }
    }
}
