//! Table of idempotency keys: the stored responses, inserted in the transaction of their write.

use chrono::{DateTime, Utc};
use resourceful_contract::{FieldType, IdSource, Index, Schema, Value};

use super::{Reader, field, maybe, maybe_text, table, text};

/// Field positions.
pub(crate) const ID: usize = 0;
pub(crate) const EXPIRES_AT: usize = 6;

pub(super) fn schema() -> Schema {
    let fields = vec![
        field("id", FieldType::Text),
        field("fingerprint", FieldType::Text),
        field("status", FieldType::Integer),
        maybe("item", FieldType::Text),
        maybe("version", FieldType::Text),
        maybe("body", FieldType::Text),
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
    pub(crate) fn values(self) -> Vec<Value> {
        vec![
            text(self.id),
            text(self.fingerprint),
            Value::Integer(self.status),
            maybe_text(self.item),
            maybe_text(self.version),
            maybe_text(self.body),
            Value::DateTime(self.expires_at),
        ]
    }

    /// Reads a row from the values of all its fields.
    pub(crate) fn read(values: Vec<Value>) -> Self {
        let mut row = Reader::new(values);
        Self {
            id: row.text(),
            fingerprint: row.text(),
            status: row.number(),
            item: row.maybe_text(),
            version: row.maybe_text(),
            body: row.maybe_text(),
            expires_at: row.instant(),
        }
    }
}
