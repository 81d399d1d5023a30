//! The library's own rows, made older than they are: no test waits for a day to pass.

use std::ops::Range;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use resourceful_contract::{
    Change, ChangeSet, Field, FieldType, Filter, IdSource, Query, Schema, Test, Value, Write,
};

use super::TestStorage;

/// The table of audit entries, and when they were written.
pub(crate) const AUDIT: TimestampedTable =
    TimestampedTable { table: "audit", id: ("position", FieldType::Integer), column: "at" };
/// The outbox, and when its events were.
pub(crate) const EVENTS: TimestampedTable =
    TimestampedTable { table: "events", id: ("sequence", FieldType::Integer), column: "time" };
/// Idempotency keys, and when they expire.
pub(crate) const KEYS: TimestampedTable =
    TimestampedTable { table: "keys", id: ("id", FieldType::Text), column: "expires_at" };

/// Leases and locks, and until when they are held.
pub(crate) const LEASES: TimestampedTable =
    TimestampedTable { table: "leases", id: ("name", FieldType::Text), column: "expires_at" };

/// A table of the library's own whose rows say when they were.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimestampedTable {
    table: &'static str,
    id: (&'static str, FieldType),
    column: &'static str,
}

impl TimestampedTable {
    fn schema(self) -> Arc<Schema> {
        let fields = vec![Field::new(self.id.0, self.id.1), Field::new(self.column, FieldType::DateTime)];
        let table = format!("resourceful_{}", self.table);
        Arc::new(Schema::new(self.table, &table, fields, 0, IdSource::Engine))
    }

    /// Puts the rows of a place that are of these times to another time; answers how many there were.
    pub(crate) async fn put(self, storage: &TestStorage, of: Range<DateTime<Utc>>, to: DateTime<Utc>) -> u64 {
        let from = Filter::Compare(1, Test::Gte(Value::DateTime(of.start)));
        let filter = from.and(Filter::Compare(1, Test::Lt(Value::DateTime(of.end))));
        let write = Write::UpdateAll { filter, set: vec![(1, Value::DateTime(to))] };
        let change = Change { schema: self.schema(), write, answer: None };
        let mut tries = 0;
        loop {
            match storage.storage().commit(ChangeSet::of(vec![change.clone()])).await {
                Ok(committed) => return committed.rows[0].rows,
                // The application changes the same rows in another order.
                Err(_) if tries < 5 => tries += 1,
                Err(error) => panic!("rows are made older: {error}"),
            }
        }
    }
}

/// Every audit entry of a place as it is stored, the first one first.
pub(crate) async fn audit_rows(storage: &TestStorage) -> Vec<serde_json::Value> {
    let text = |name: &str| Field::new(name, FieldType::Text).nullable();
    let fields = [text("actor"), text("request"), text("address"), text("changes")];
    let fields = [Field::new("position", FieldType::Integer)].into_iter().chain(fields).collect();
    let schema = Schema::new("audit", "resourceful_audit", fields, 0, IdSource::Storage);
    let query = Query { fields: (0..5).collect(), limit: 1_000, ..Query::all(Arc::new(schema)) };
    let mut json = vec![b'['];
    storage.storage().fetch(&query, &mut json).await.expect("entries are read");
    json.push(b']');
    serde_json::from_slice(&json).expect("rows are JSON")
}
