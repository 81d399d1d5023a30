//! The audit trail: who changed what, in the transaction of the change.

use chrono::{DateTime, Utc};
use resourceful_contract::{FieldType, IdSource, Index, Schema, Value};

use super::{Reader, field, maybe, maybe_text, table, text};

/// Where each field stands.
pub(crate) const POSITION: usize = 0;
pub(crate) const RESOURCE: usize = 1;
pub(crate) const ITEM: usize = 2;
pub(crate) const AT: usize = 4;
pub(crate) const ACTOR: usize = 5;
pub(crate) const REQUEST: usize = 7;
pub(crate) const ADDRESS: usize = 8;
pub(crate) const CHANGES: usize = 9;
pub(crate) const LINK: usize = 10;
pub(crate) const SEAL: usize = 11;

pub(super) fn schema() -> Schema {
    let fields = vec![
        field("position", FieldType::Integer),
        field("resource", FieldType::Text),
        field("item", FieldType::Text),
        field("operation", FieldType::Text),
        field("at", FieldType::DateTime),
        maybe("actor", FieldType::Text),
        maybe("tenant", FieldType::Text),
        maybe("request", FieldType::Text),
        maybe("address", FieldType::Text),
        field("changes", FieldType::Text),
        maybe("link", FieldType::Integer),
        maybe("seal", FieldType::Text),
    ];
    let mut schema = table("audit", fields, IdSource::Storage);
    schema.indexes =
        vec![Index { fields: vec![ITEM], unique: false }, Index { fields: vec![LINK], unique: true }];
    schema
}

/// An entry of the trail.
#[derive(Clone, Debug)]
pub(crate) struct AuditRow {
    pub(crate) position: i64,
    pub(crate) resource: String,
    /// The item's id.
    pub(crate) item: String,
    /// What was done: the name of an operation or an action.
    pub(crate) operation: String,
    pub(crate) at: DateTime<Utc>,
    pub(crate) actor: Option<String>,
    pub(crate) tenant: Option<String>,
    pub(crate) request: Option<String>,
    pub(crate) address: Option<String>,
    /// `{"field": {"from": …, "to": …}}`, as JSON.
    pub(crate) changes: String,
    /// Its place in the chain, from 1; none while it is not part of it yet.
    pub(crate) link: Option<i64>,
    /// The digest of it and of the seal before.
    pub(crate) seal: Option<String>,
}

impl AuditRow {
    /// What stands instead of the changes of an entry that was emptied, before its digest.
    pub(crate) const FORGOTTEN: &str = "digest:";

    /// Whether the entry was kept long enough, and emptied.
    pub(crate) fn is_forgotten(&self) -> bool {
        self.changes.starts_with(Self::FORGOTTEN)
    }

    /// The values of a new row; the storage mints its position.
    pub(crate) fn values(self) -> Vec<Value> {
        vec![
            Value::Null,
            text(self.resource),
            text(self.item),
            text(self.operation),
            Value::DateTime(self.at),
            maybe_text(self.actor),
            maybe_text(self.tenant),
            maybe_text(self.request),
            maybe_text(self.address),
            text(self.changes),
            Value::Null,
            Value::Null,
        ]
    }

    /// Reads a row from the values of all its fields.
    pub(crate) fn read(values: Vec<Value>) -> Self {
        let mut row = Reader::new(values);
        Self {
            position: row.number(),
            resource: row.text(),
            item: row.text(),
            operation: row.text(),
            at: row.instant(),
            actor: row.maybe_text(),
            tenant: row.maybe_text(),
            request: row.maybe_text(),
            address: row.maybe_text(),
            changes: row.text(),
            link: row.maybe_number(),
            seal: row.maybe_text(),
        }
    }
}
