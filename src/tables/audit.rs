//! Table of the audit trail: actor and changes of each write, inserted in the transaction of the change.

use chrono::{DateTime, Utc};
use resourceful_contract::{FieldType, IdSource, Index, Schema, Value};

use super::{RowReader, field, nullable_field, optional_text, table, text};

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
        nullable_field("actor", FieldType::Text),
        nullable_field("tenant", FieldType::Text),
        nullable_field("request", FieldType::Text),
        nullable_field("address", FieldType::Text),
        field("changes", FieldType::Text),
        nullable_field("link", FieldType::Integer),
        nullable_field("seal", FieldType::Text),
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
    pub(crate) const EMPTIED_PREFIX: &str = "digest:";

    /// Whether the entry was emptied after its retention.
    pub(crate) fn is_emptied(&self) -> bool {
        self.changes.starts_with(Self::EMPTIED_PREFIX)
    }

    /// The values of a new row; the storage assigns its position.
    pub(crate) fn into_values(self) -> Vec<Value> {
        vec![
            Value::Null,
            text(self.resource),
            text(self.item),
            text(self.operation),
            Value::DateTime(self.at),
            optional_text(self.actor),
            optional_text(self.tenant),
            optional_text(self.request),
            optional_text(self.address),
            text(self.changes),
            Value::Null,
            Value::Null,
        ]
    }

    /// Reads a row from the values of all its fields.
    pub(crate) fn from_values(values: Vec<Value>) -> Self {
        let mut row = RowReader::new(values);
        Self {
            position: row.number(),
            resource: row.text(),
            item: row.text(),
            operation: row.text(),
            at: row.datetime(),
            actor: row.optional_text(),
            tenant: row.optional_text(),
            request: row.optional_text(),
            address: row.optional_text(),
            changes: row.text(),
            link: row.optional_number(),
            seal: row.optional_text(),
        }
    }
}
