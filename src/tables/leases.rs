//! Table of leases, each for a task that only one node may perform at a time. A lease's version is its fencing token: a
//! node that has lost the lease commits nothing more.

use chrono::{DateTime, Utc};
use resourceful_contract::{FieldType, IdSource, Schema, Value};

use super::{RowReader, field, nullable_field, optional_text, table, text};

/// Field positions.
pub(crate) const NAME: usize = 0;
pub(crate) const VERSION: usize = 1;
pub(crate) const HOLDER: usize = 2;
pub(crate) const EXPIRES_AT: usize = 3;
pub(crate) const STATE: usize = 4;

pub(super) fn schema() -> Schema {
    let fields = vec![
        field("name", FieldType::Text),
        field("version", FieldType::Integer),
        field("holder", FieldType::Text),
        field("expires_at", FieldType::DateTime),
        nullable_field("state", FieldType::Text),
    ];
    let mut schema = table("leases", fields, IdSource::Engine);
    schema.version = Some(VERSION);
    schema
}

/// A lease.
#[derive(Clone, Debug)]
pub(crate) struct LeaseRow {
    pub(crate) name: String,
    /// Incremented with every change of the lease.
    pub(crate) version: i64,
    pub(crate) holder: String,
    pub(crate) expires_at: DateTime<Utc>,
    /// State that the next holder needs, as JSON.
    pub(crate) state: Option<String>,
}

impl LeaseRow {
    pub(crate) fn into_values(self) -> Vec<Value> {
        vec![
            text(self.name),
            Value::Integer(self.version),
            text(self.holder),
            Value::DateTime(self.expires_at),
            optional_text(self.state),
        ]
    }

    /// Reads a row from the values of all its fields.
    pub(crate) fn from_values(values: Vec<Value>) -> Self {
        let mut row = RowReader::new(values);
        Self {
            name: row.text(),
            version: row.number(),
            holder: row.text(),
            expires_at: row.datetime(),
            state: row.optional_text(),
        }
    }
}
