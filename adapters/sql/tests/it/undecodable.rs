//! Rows that other programs wrote, with values that do not read as their field's type: one of them takes nothing else
//! down, and stays as it is.

use std::sync::Arc;

use resourceful_contract::{
    Cardinality, Change, ChangeSet, ErrorKind, Field, FieldType, Filter, Guard, IdSource, Include, Link,
    Position, Query, ScalarType, Schema, Sort, Storage, Value, Write,
};
use serde_json::{Value as Json, json};

use crate::support::TestDatabase;

/// A table with a nullable field of every type that may hold what does not read: `a` to `h`, after an id and a text.
fn schema(test_db: &TestDatabase, name: &str) -> Schema {
    let nullable = |name: &str, field_type| Field::new(name, field_type).nullable();
    let mut fields = vec![Field::new("id", FieldType::Integer), Field::new("text", FieldType::Text)];
    fields.extend([
        nullable("at", FieldType::DateTime),
        nullable("day", FieldType::Date),
        nullable("real", FieldType::Float),
        nullable("short", FieldType::Float32),
        nullable("money", FieldType::Decimal),
        nullable("list", FieldType::Array(ScalarType::DateTime)),
        nullable("json", FieldType::Json),
    ]);
    if !test_db.is_postgres() {
        fields.push(nullable("uuid", FieldType::Uuid));
        fields.push(nullable("number", FieldType::Integer));
    }
    Schema::new("odd", &test_db.table(name), fields, 0, IdSource::Client)
}

/// For each column, what it holds that does not read, and what does, as SQL.
fn sql_values(test_db: &TestDatabase) -> Vec<(&'static str, Vec<&'static str>, Vec<&'static str>)> {
    if test_db.is_postgres() {
        let times = vec![
            "'infinity'",
            "'-infinity'",
            "'0044-03-15 00:00:00+00 BC'",
            "'10000-01-01 00:00:00+00'",
            "'294276-12-31 23:59:59.999999+00'",
            "'4714-11-24 00:00:00+00 BC'",
        ];
        let long = "1234567890123456789012345678901234567890.5";
        vec![
            ("at", times, vec!["'0044-03-15 00:00:00+00'", "'2026-01-01 00:00:00+00'"]),
            (
                "day",
                vec!["'infinity'", "'-infinity'", "'0044-03-15 BC'", "'12345-01-01'"],
                vec!["'2026-01-01'"],
            ),
            ("real", vec!["'NaN'", "'Infinity'", "'-Infinity'"], vec!["0", "-1.5"]),
            ("short", vec!["'NaN'", "'Infinity'", "'-Infinity'"], vec!["0", "0.1"]),
            ("money", vec!["'NaN'", "'Infinity'", "'-Infinity'", long], vec!["0", "-1.5"]),
            ("list", vec!["'{infinity}'", "'{{2026-01-01},{2026-01-02}}'"], vec!["'{2026-01-01}'", "'{}'"]),
        ]
    } else {
        vec![
            (
                "at",
                vec!["'2026-99-99T99:99:99+00:00'", "'soon'", "x'00'"],
                vec!["'2026-01-01T00:00:00+00:00'"],
            ),
            ("day", vec!["'yesterday'", "x'ff'"], vec!["'2026-01-01'"]),
            ("real", vec!["'abc'", "9e999", "-9e999", "x'00'"], vec!["0", "-1.5"]),
            (
                "money",
                vec!["'much'", "x'00'", "'1234567890123456789012345678901234567890.5'"],
                vec!["'10'", "'9'"],
            ),
            ("list", vec!["'{\"a\": 1}'", "'['"], vec!["'[\"2026-01-01T00:00:00Z\"]'"]),
            ("json", vec!["'{\"a\": '", "x'00'"], vec!["'{\"a\":1}'"]),
            ("uuid", vec!["'no uuid'", "x'00'"], vec!["'6fa459ea-ee8a-4ca4-894e-db77e160355e'"]),
            ("number", vec!["'abc'", "1.5", "x'00'"], vec!["-1", "7"]),
        ]
    }
}

/// The table, with a row for each value that does not read and for each that does; and the ids of the first ones with
/// the positions of their fields.
async fn database(test_db: &TestDatabase, name: &str) -> (Arc<dyn Storage>, Arc<Schema>, Vec<(i64, usize)>) {
    let schema = schema(test_db, name);
    let table = &schema.table;
    let columns = if test_db.is_postgres() {
        "at timestamptz, day date, real float8, short float4, money numeric, list timestamptz[], json jsonb"
    } else {
        "at TEXT, day TEXT, real REAL, short REAL, money TEXT, list TEXT, json TEXT, uuid TEXT, number INTEGER"
    };
    let mut statements =
        format!("CREATE TABLE {table} (id bigint PRIMARY KEY NOT NULL, text text NOT NULL, {columns});");
    let mut undecodable = Vec::new();
    let mut id = 0;
    for (column, bad, good) in sql_values(test_db) {
        for (position, value) in bad.iter().chain(&good).enumerate() {
            id += 1;
            statements += &format!("INSERT INTO {table} (id, text, {column}) VALUES ({id}, 'row', {value});");
            if position < bad.len() {
                undecodable.push((id, schema.position(column).unwrap()));
            }
        }
    }
    test_db.execute(&statements).await;
    let storage = test_db.connect().await.storage();
    let schema = Arc::new(schema);
    assert_eq!(storage.check(&schema).await.unwrap(), []);
    (storage, schema, undecodable)
}

async fn fetch_rows(storage: &Arc<dyn Storage>, query: &Query) -> (Vec<Json>, resourceful_contract::Rows) {
    let mut out = vec![b'['];
    let rows = storage.fetch(query, &mut out).await.unwrap();
    out.push(b']');
    (serde_json::from_slice(&out).unwrap(), rows)
}

fn query_all(schema: &Arc<Schema>) -> Query {
    Query { limit: 100, ..Query::all(schema.clone()) }
}

#[tokio::test]
async fn undecodable_value_is_null_in_lists_and_reads() {
    for test_db in TestDatabase::all_durable("unreadable values") {
        let (storage, schema, undecodable) = database(&test_db, "lists").await;
        let (listed, _) = fetch_rows(&storage, &query_all(&schema)).await;
        for row in &listed {
            let id = row["id"].as_i64().unwrap();
            assert_eq!(row["text"], "row");
            let (alone, _) = fetch_rows(&storage, &Query::one(schema.clone(), Value::Integer(id))).await;
            assert_eq!(alone, std::slice::from_ref(row));
            let shown = schema.fields[2..].iter().filter(|field| !row[&field.name].is_null()).count();
            let is_bad = undecodable.iter().any(|(bad, _)| *bad == id);
            assert_eq!(shown, usize::from(!is_bad), "{row}");
        }
    }
}

#[tokio::test]
async fn versions_distinguish_undecodable_values() {
    for test_db in TestDatabase::all_durable("versions of unreadable values") {
        let (storage, schema, undecodable) = database(&test_db, "versions").await;
        let mut known = std::collections::HashSet::new();
        let mut expected = 0;
        for (id, _) in undecodable {
            // As if all were one row, whose value another program changes.
            test_db.execute(&format!("UPDATE {0} SET id = 1000 WHERE id = {id}", schema.table)).await;
            let (_, found) = fetch_rows(&storage, &Query::one(schema.clone(), Value::Integer(1000))).await;
            known.insert(found.versions[0]);
            expected += 1;
            test_db.execute(&format!("UPDATE {0} SET id = {id} WHERE id = 1000", schema.table)).await;
        }
        assert_eq!(known.len(), expected, "on {}", test_db.url);
    }
}

#[tokio::test]
async fn pages_by_undecodable_values_return_every_row_once() {
    for test_db in TestDatabase::all_durable("pages of unreadable values") {
        let (storage, schema, _) = database(&test_db, "pages").await;
        let sortable = (2..schema.fields.len()).filter(|field| schema.fields[*field].field_type.is_ordered());
        for field in sortable {
            for (descending, backwards) in [(false, false), (false, true), (true, false), (true, true)] {
                let mut query = query_all(&schema);
                query.sort = [field, 0].map(|field| Sort { field, descending }).to_vec();
                let (mut whole, found) = fetch_rows(&storage, &query).await;
                query.limit = 1;
                if backwards {
                    whole.pop();
                    query.position = Position::Before(found.last.unwrap());
                }
                let mut seen = Vec::new();
                for _ in 0..=whole.len() {
                    let (page, found) = fetch_rows(&storage, &query).await;
                    if backwards {
                        seen.splice(0..0, page);
                        query.position = Position::Before(found.first.unwrap_or_default());
                    } else {
                        seen.extend(page);
                        query.position = Position::After(found.last.unwrap_or_default());
                    }
                    if !found.more {
                        break;
                    }
                }
                let by = &schema.fields[field].name;
                assert_eq!(seen, whole, "by {by}, descending {descending}, backwards {backwards}");
            }
        }
    }
}

#[tokio::test]
async fn update_of_other_field_preserves_undecodable_value() {
    for test_db in TestDatabase::all_durable("changes beside unreadable values") {
        let (storage, schema, undecodable) = database(&test_db, "changes").await;
        let kept = format!("CREATE TABLE {0}_kept AS SELECT * FROM {0}", schema.table);
        test_db.execute(&kept).await;
        for (id, field) in undecodable {
            let (_, found) = fetch_rows(&storage, &Query::one(schema.clone(), Value::Integer(id))).await;
            let set = vec![(1, Value::Text("changed".to_owned()))];
            let guard = Guard::version(found.versions[0]);
            let write = Write::Update { id: Value::Integer(id), set, guard };
            let change = Change { schema: schema.clone(), write, answer: Some(vec![1, field]) };
            let done = storage.commit(ChangeSet::one(change.clone())).await.unwrap();
            let answer: Json = serde_json::from_slice(&done.rows[0].json).unwrap();
            assert_eq!(answer, json!({"text": "changed", (schema.fields[field].name.as_str()): null}));
            let stale = storage.commit(ChangeSet::one(change)).await.unwrap_err();
            assert_eq!(stale.kind(), ErrorKind::VersionMismatch);
            // The row as it was but for its text.
            let column = &schema.fields[field].column;
            let differs = if test_db.is_postgres() {
                format!("k.{column}::text IS DISTINCT FROM t.{column}::text")
            } else {
                format!("k.{column} IS NOT t.{column} OR typeof(k.{column}) <> typeof(t.{column})")
            };
            let sample = format!("{}_same{id}", schema.table);
            test_db
                .execute(&format!(
                    "CREATE TABLE {sample} (id bigint PRIMARY KEY NOT NULL);
                     INSERT INTO {sample} SELECT t.id FROM {0} t JOIN {0}_kept k ON k.id = t.id
                       WHERE t.id = {id} AND NOT ({differs})",
                    schema.table
                ))
                .await;
            let fields = vec![Field::new("id", FieldType::Integer)];
            let sample = Arc::new(Schema::new("same", &sample, fields, 0, IdSource::Client));
            let (same, _) = fetch_rows(&storage, &Query::all(sample)).await;
            assert_eq!(same.len(), 1, "row {id}, {column}");
        }
    }
}

#[tokio::test]
async fn included_rows_with_undecodable_values_are_returned() {
    for test_db in TestDatabase::all_durable("included unreadable values") {
        let (storage, schema, undecodable) = database(&test_db, "included").await;
        let (expected, _) = fetch_rows(&storage, &query_all(&schema)).await;
        let fields = vec![Field::new("id", FieldType::Integer), Field::new("text", FieldType::Text)];
        let parents =
            Arc::new(Schema::new("parents", &test_db.table("parents"), fields, 0, IdSource::Client));
        storage.create_table_if_missing(&parents).await.unwrap();
        let mut query = query_all(&parents);
        let mut changes = Vec::new();
        for id in std::iter::once(0).chain(undecodable.iter().map(|(id, _)| *id)) {
            let values = vec![Value::Integer(id), Value::Text("row".to_owned())];
            changes.push(Change { schema: parents.clone(), write: Write::Insert { values }, answer: None });
        }
        storage.commit(ChangeSet::of(changes)).await.unwrap();
        let link = |name: &str, cardinality, local| {
            let link =
                Link { name: name.to_owned(), cardinality, local, target: schema.clone(), remote: local };
            Include {
                link: Arc::new(link),
                fields: schema.visible().collect(),
                filter: Filter::everything(),
                limit: 100,
            }
        };
        query.includes = vec![link("one", Cardinality::One, 0), link("many", Cardinality::Many, 1)];
        let (found, _) = fetch_rows(&storage, &query).await;
        assert_eq!(found.len(), undecodable.len() + 1);
        for parent in found {
            assert_eq!(parent["many"], json!(expected), "{parent}");
            let one = expected.iter().find(|row| row["id"] == parent["id"]).cloned().unwrap_or(Json::Null);
            assert_eq!(parent["one"], one, "{parent}");
        }
    }
}

#[tokio::test]
async fn times_in_other_formats_are_decoded_and_sorted() {
    for test_db in TestDatabase::all_durable("times of other programs")
        .into_iter()
        .filter(|test_db| !test_db.is_postgres())
    {
        let (storage, schema, _) = database(&test_db, "forms").await;
        test_db
            .execute(&format!(
                "DELETE FROM {0};
                 INSERT INTO {0} (id, text, at, uuid) VALUES
                   (1, 'a', '2026-01-01T07:00:00+02:00', '6FA459EA-EE8A-4CA4-894E-DB77E160355E'),
                   (2, 'b', '2026-01-01 06:00:00+00:00', '6fa459ea-ee8a-4ca4-894e-db77e160355e'),
                   (3, 'c', '2026-01-01T06:00:00Z', NULL), (4, 'd', '2026-01-01T06:00:00+00:00', NULL)",
                schema.table
            ))
            .await;
        for field in [2, 9] {
            let mut query = query_all(&schema);
            query.sort = vec![Sort::ascending(field), Sort::ascending(0)];
            let (whole, _) = fetch_rows(&storage, &query).await;
            query.limit = 1;
            let mut seen = Vec::new();
            for _ in 0..5 {
                let (page, found) = fetch_rows(&storage, &query).await;
                seen.extend(page);
                query.position = Position::After(found.last.unwrap());
                if !found.more {
                    break;
                }
            }
            assert_eq!(seen, whole);
            assert!(field != 2 || whole.iter().all(|row| row["at"] != Json::Null), "{whole:?}");
        }
    }
}
