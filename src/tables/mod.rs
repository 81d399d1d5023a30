//! The library's own tables, in each database whose resources need them.
//!
//! They are schemas like any other, so that every storage keeps them with its existing capabilities, and in the
//! transaction of the change that they record. Where a storage has migrations, these create the tables; otherwise the
//! storage creates them from the schemas.

pub(crate) mod audit;
pub(crate) mod events;
pub(crate) mod keys;
pub(crate) mod leases;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use resourceful_contract::{Field, FieldType, IdSource, Migration, Schema, SqlDialect, Value};

/// Owner of these migrations.
const OWNER: &str = "resourceful";

/// The library's tables.
#[derive(Debug)]
pub(crate) struct Tables {
    pub(crate) events: Arc<Schema>,
    pub(crate) audit: Arc<Schema>,
    pub(crate) keys: Arc<Schema>,
    pub(crate) leases: Arc<Schema>,
}

impl Tables {
    pub(crate) fn new() -> Self {
        Self {
            events: Arc::new(events::schema()),
            audit: Arc::new(audit::schema()),
            keys: Arc::new(keys::schema()),
            leases: Arc::new(leases::schema()),
        }
    }

    pub(crate) fn all(&self) -> [&Arc<Schema>; 4] {
        [&self.events, &self.audit, &self.keys, &self.leases]
    }
}

/// The migrations that create the tables, in a dialect; `None` where there are none, and the tables are created from their
/// schemas.
pub(crate) fn migrations(dialect: Option<SqlDialect>) -> Option<Vec<Migration>> {
    let records = match dialect? {
        SqlDialect::Sqlite => include_str!("../../migrations/sqlite/0001_records.sql"),
        SqlDialect::Postgres => include_str!("../../migrations/postgres/0001_records.sql"),
        _ => return None,
    };
    Some(vec![Migration::new(OWNER, 1, "records", records)])
}

/// The same for the tables of webhooks.
#[cfg(feature = "webhooks")]
pub(crate) fn webhook_migrations(dialect: Option<SqlDialect>) -> Option<Vec<Migration>> {
    let webhooks = match dialect? {
        SqlDialect::Sqlite => include_str!("../../migrations/sqlite/0002_webhooks.sql"),
        SqlDialect::Postgres => include_str!("../../migrations/postgres/0002_webhooks.sql"),
        _ => return None,
    };
    Some(vec![Migration::new(OWNER, 2, "webhooks", webhooks)])
}

/// Whether a schema is one of these tables.
pub(crate) fn is_library_table(schema: &Schema) -> bool {
    schema.table.strip_prefix("resourceful_") == Some(schema.name.as_str())
}

/// A table whose first field identifies its rows.
fn table(name: &str, fields: Vec<Field>, source: IdSource) -> Schema {
    Schema::new(name, &format!("resourceful_{name}"), fields, 0, source)
}

fn field(name: &str, field_type: FieldType) -> Field {
    Field::new(name, field_type)
}

/// A field that may be null.
fn nullable_field(name: &str, field_type: FieldType) -> Field {
    Field::new(name, field_type).nullable()
}

fn text(content: impl Into<String>) -> Value {
    Value::Text(content.into())
}

fn optional_text(content: Option<impl Into<String>>) -> Value {
    content.map_or(Value::Null, text)
}

/// Reads the values of a row by position.
pub(crate) struct RowReader(std::vec::IntoIter<Value>);

impl RowReader {
    pub(crate) fn new(values: Vec<Value>) -> Self {
        Self(values.into_iter())
    }

    fn next(&mut self) -> Value {
        self.0.next().unwrap_or(Value::Null)
    }

    /// Skips a value that is not needed.
    pub(crate) fn skip(&mut self) {
        let _ = self.next();
    }

    pub(crate) fn text(&mut self) -> String {
        self.optional_text().unwrap_or_default()
    }

    pub(crate) fn optional_text(&mut self) -> Option<String> {
        match self.next() {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn number(&mut self) -> i64 {
        self.optional_number().unwrap_or_default()
    }

    pub(crate) fn optional_number(&mut self) -> Option<i64> {
        match self.next() {
            Value::Integer(number) => Some(number),
            _ => None,
        }
    }

    pub(crate) fn optional_datetime(&mut self) -> Option<DateTime<Utc>> {
        match self.next() {
            Value::DateTime(at) => Some(at),
            _ => None,
        }
    }

    pub(crate) fn datetime(&mut self) -> DateTime<Utc> {
        self.optional_datetime().unwrap_or_default()
    }

    pub(crate) fn uuid(&mut self) -> uuid::Uuid {
        match self.next() {
            Value::Uuid(id) => id,
            _ => uuid::Uuid::nil(),
        }
    }
}
