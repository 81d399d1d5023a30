//! Table of the audit trail: actor and changes of each write, inserted in the transaction of the change.

use chrono::{DateTime, Utc};
use resourceful_contract::{FieldType, IdSource, Index, Schema, Value};

use super::{Reader, field, maybe, maybe_text, table, text};

/// Field positions.
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
    /// The name of the operation or action.
    pub(crate) operation: String,
    pub(crate) at: DateTime<Utc>,
    pub(crate) actor: Option<String>,
    pub(crate) tenant: Option<String>,
    pub(crate) request: Option<String>,
    pub(crate) address: Option<String>,
    /// `{"field": {"from": …, "to": …}}`, as JSON.
    pub(crate) changes: String,
    /// Position in the chain, from 1; `None` while the entry is not part of it yet.
    pub(crate) link: Option<i64>,
    /// Digest of the entry and the previous seal.
    pub(crate) seal: Option<String>,
}

impl AuditRow {
    /// Replaces the changes of an emptied entry, followed by the entry's digest.
    pub(crate) const FORGOTTEN: &str = "digest:";

    /// Whether the entry was emptied after its retention.
    pub(crate) fn is_forgotten(&self) -> bool {
        self.changes.starts_with(Self::FORGOTTEN)
    }

    /// The values of a new row; the storage assigns its position.
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
