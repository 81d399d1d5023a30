//! Test fixture: a storage, with tables and rows for one case.

use std::sync::Arc;

use serde_json::Value as Json;

use super::{Failure, expect_eq};
use crate::{
    Change, ChangeSet, Committed, ErrorKind, Field, FieldType, Filter, Guard, IdSource, Query, RowOutcome,
    Rows, ScalarType, Schema, Storage, StorageError, Value, Write,
};

/// A storage, with tables that no other case uses.
#[derive(Clone, Debug)]
pub struct Fixture {
    pub(super) storage: Arc<dyn Storage>,
    prefix: String,
}

impl Fixture {
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(super) fn new(storage: Arc<dyn Storage>, prefix: String) -> Self {
        Self { storage, prefix }
    }

    /// A schema bound to a table of this case, which is created.
    pub(super) async fn create_table(
        &self,
        name: &str,
        fields: Vec<Field>,
        source: IdSource,
        change: impl FnOnce(&mut Schema),
    ) -> Result<Arc<Schema>, Failure> {
        let mut schema = Schema::new(name, &format!("{}_{name}", self.prefix), fields, 0, source);
        change(&mut schema);
        let schema = Arc::new(schema);
        self.storage.create_table_if_missing(&schema).await?;
        let mismatches = self.storage.check(&schema).await?;
        expect_eq("mismatches of a table that was just made", &mismatches, &Vec::new())?;
        Ok(schema)
    }

    /// Creates a table with a nullable field of every type, and inserts these rows: an id, and values by field.
    pub(super) async fn table_with_rows(
        &self,
        rows: &[(&str, Vec<(&str, Value)>)],
    ) -> Result<Arc<Schema>, Failure> {
        let schema = self
            .create_table("rows", all_type_fields(), IdSource::Client, |schema| schema.version = Some(11))
            .await?;
        for (id, values) in rows {
            self.insert(&schema, &row_values(&schema, id, values)).await?;
        }
        Ok(schema)
    }

    pub(super) async fn insert(
        &self,
        schema: &Arc<Schema>,
        values: &[Value],
    ) -> Result<RowOutcome, StorageError> {
        let write = Write::Insert { values: values.to_vec() };
        self.commit_one(schema, write).await
    }

    /// Commits one change and returns the whole row.
    pub(super) async fn commit_one(
        &self,
        schema: &Arc<Schema>,
        write: Write,
    ) -> Result<RowOutcome, StorageError> {
        let answer = Some(schema.visible().collect());
        let change = Change { schema: schema.clone(), write, answer };
        let committed = self.storage.commit(ChangeSet::one(change)).await?;
        committed.rows.into_iter().next().ok_or_else(|| StorageError::new(ErrorKind::Internal))
    }

    pub(super) async fn update(
        &self,
        schema: &Arc<Schema>,
        id: Value,
        set: &[(&str, Value)],
        guard: Guard,
    ) -> Result<RowOutcome, StorageError> {
        let set = set.iter().map(|(name, value)| (position(schema, name), value.clone())).collect();
        self.commit_one(schema, Write::Update { id, set, guard }).await
    }

    pub(super) async fn delete(
        &self,
        schema: &Arc<Schema>,
        id: Value,
        guard: Guard,
    ) -> Result<RowOutcome, StorageError> {
        self.commit_one(schema, Write::Delete { id, guard }).await
    }

    /// Commits several changes that return no JSON.
    pub(super) async fn commit_all(
        &self,
        changes: Vec<(&Arc<Schema>, Write)>,
    ) -> Result<Committed, StorageError> {
        let changes = changes
            .into_iter()
            .map(|(schema, write)| Change { schema: schema.clone(), write, answer: None })
            .collect();
        self.storage.commit(ChangeSet::of(changes)).await
    }

    /// Runs a query; returns its result, and its rows as JSON.
    pub(super) async fn fetch(&self, query: &Query) -> Result<(Rows, Vec<Json>), Failure> {
        let mut out = b"before".to_vec();
        let rows = self.storage.fetch(query, &mut out).await?;
        let written =
            out.strip_prefix(b"before").ok_or_else(|| Failure::new("what was there before is kept"))?;
        let mut array = vec![b'['];
        array.extend_from_slice(written);
        array.push(b']');
        let json: Vec<Json> = serde_json::from_slice(&array).map_err(|error| {
            Failure::new(format!("rows are JSON: {error}: {}", String::from_utf8_lossy(&array)))
        })?;
        expect_eq("the number of rows", &rows.len, &json.len())?;
        Ok((rows, json))
    }

    /// The ids of the rows that match, in the query's order.
    pub(super) async fn fetch_ids(&self, query: &Query) -> Result<Vec<String>, Failure> {
        let id = query.schema.id_field().name.clone();
        let (_, json) = self.fetch(query).await?;
        Ok(json.iter().map(|row| unquoted(&row[&id])).collect())
    }

    /// Fails unless the filter selects these ids, in ascending order.
    pub(super) async fn expect_ids(
        &self,
        schema: &Arc<Schema>,
        filter: Filter,
        expected: &str,
    ) -> Result<(), Failure> {
        let label = format!("{filter:?}");
        let mut query = Query::all(schema.clone());
        query.filter = filter;
        expect_eq(&label, &self.fetch_ids(&query).await?.join(" "), &expected.to_owned())
    }
}

/// A JSON string without its quotes, or any other value as JSON.
fn unquoted(json: &Json) -> String {
    json.as_str().map_or_else(|| json.to_string(), str::to_owned)
}

/// An id assigned by the client, a nullable field of every type, and a version counter.
pub(super) fn all_type_fields() -> Vec<Field> {
    let field = |name: &str, field_type| Field::new(name, field_type).nullable();
    let mut version = Field::new("version", FieldType::Integer);
    version.read_only = true;
    vec![
        Field::new("id", FieldType::Text),
        field("boolean", FieldType::Boolean),
        field("integer", FieldType::Integer),
        field("float", FieldType::Float),
        field("decimal", FieldType::Decimal),
        field("text", FieldType::Text),
        field("uuid", FieldType::Uuid),
        field("datetime", FieldType::DateTime),
        field("date", FieldType::Date),
        field("json", FieldType::Json),
        field("array", FieldType::Array(ScalarType::Text)),
        version,
        field("numbers", FieldType::Array(ScalarType::Integer)),
    ]
}

pub(super) fn position(schema: &Schema, name: &str) -> usize {
    schema.position(name).unwrap_or(usize::MAX)
}

/// A row of [`all_type_fields`]: fields without a given value are null.
pub(super) fn row_values(schema: &Schema, id: &str, values: &[(&str, Value)]) -> Vec<Value> {
    let mut row = vec![Value::Null; schema.fields.len()];
    row[0] = text(id);
    for (name, value) in values {
        row[position(schema, name)] = value.clone();
    }
    row
}

pub(super) fn text(content: &str) -> Value {
    Value::Text(content.to_owned())
}

/// Parses a value by its type; null if it is malformed, which no case relies on.
pub(super) fn parse(field_type: FieldType, content: &str) -> Value {
    field_type.parse(content).unwrap_or(Value::Null)
}

/// Fails unless the outcome is an error of this kind.
pub(super) fn expect_error<T: std::fmt::Debug>(
    outcome: Result<T, StorageError>,
    kind: ErrorKind,
) -> Result<StorageError, Failure> {
    match outcome {
        Err(error) if error.kind() == kind => Ok(error),
        Err(error) => Err(Failure::new(format!("expected {kind:?}, found {:?}: {error}", error.kind()))),
        Ok(found) => Err(Failure::new(format!("expected {kind:?}, found {found:?}"))),
    }
}
