//! Table of idempotency keys: the stored responses, inserted in the transaction of their write.

use chrono::{DateTime, Utc};
use resourceful_contract::{FieldType, IdSource, Index, Schema, Value};

use super::{RowReader, field, nullable_field, optional_text, table, text};

/// Field positions.
pub(crate) const ID: usize = 0;
pub(crate) const EXPIRES_AT: usize = 6;

pub(super) fn schema() -> Schema {
    let fields = vec![
        field("id", FieldType::Text),
        field("fingerprint", FieldType::Text),
        field("status", FieldType::Integer),
        nullable_field("item", FieldType::Text),
        nullable_field("version", FieldType::Text),
        nullable_field("body", FieldType::Text),
        field("expires_at", FieldType::DateTime),
    ];
    let mut schema = table("keys", fields, IdSource::Engine);
    schema.indexes = vec![Index { fields: vec![EXPIRES_AT], unique: false }];
    schema
}

/// A stored response that can be replayed.
#[derive(Clone, Debug)]
pub(crate) struct KeyRow {
    /// Digest of everything that identifies the key: tenant, actor, method, path, key.
    pub(crate) id: String,
    /// Digest of the request that used it.
    pub(crate) fingerprint: String,
    pub(crate) status: i64,
    /// The item's id.
    pub(crate) item: Option<String>,
    pub(crate) version: Option<String>,
    /// The JSON of the response, before redaction.
    pub(crate) body: Option<String>,
    pub(crate) expires_at: DateTime<Utc>,
}

impl KeyRow {
    pub(crate) fn into_values(self) -> Vec<Value> {
        vec![
            text(self.id),
            text(self.fingerprint),
            Value::Integer(self.status),
            optional_text(self.item),
            optional_text(self.version),
            optional_text(self.body),
            Value::DateTime(self.expires_at),
        ]
    }

    /// Reads a row from the values of all its fields.
    pub(crate) fn from_values(values: Vec<Value>) -> Self {
        let mut row = RowReader::new(values);
        Self {
            id: row.text(),
            fingerprint: row.text(),
            status: row.number(),
            item: row.optional_text(),
            version: row.optional_text(),
            body: row.optional_text(),
            expires_at: row.datetime(),
        }
    }
}
