//! Tables that were there before, and what other programs wrote into them.
#![cfg(feature = "sqlite")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use resourceful_contract::{
    Cardinality, Change, ChangeSet, ErrorKind, Field, FieldType, Filter, Guard, IdSource, Include, Link,
    Query, Schema, Storage, Value, Write,
};
use resourceful_sql::Sql;
use sqlx::{Connection as _, SqliteConnection};

/// A database file with a table made by hand, and the storage over it.
async fn database(statements: &str) -> (tempfile::TempDir, Arc<dyn Storage>) {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}?mode=rwc", folder.path().join("old.db").display());
    let mut connection = SqliteConnection::connect(&url).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(statements.to_owned())).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let storage = Sql::connect(&url).await.unwrap().storage();
    (folder, storage)
}

fn field(name: &str, column: &str, field_type: FieldType) -> Field {
    let mut field = Field::new(name, field_type).nullable();
    field.column = column.to_owned();
    field
}

#[tokio::test]
async fn a_table_with_other_names_is_read_and_written() {
    let (_folder, storage) = database(
        "CREATE TABLE \"Old Order\" (\"Order\" INTEGER PRIMARY KEY, \"sel\"\"ect\" VARCHAR(20), at DATETIME);
         INSERT INTO \"Old Order\" VALUES (7, 'first', '2026-11-21T07:00:00+02:00');",
    )
    .await;
    let mut id = Field::new("id", FieldType::Integer);
    id.column = "Order".to_owned();
    let fields =
        vec![id, field("title", "sel\"ect", FieldType::Text), field("at", "at", FieldType::DateTime)];
    let schema = Arc::new(Schema::new("orders", "Old Order", fields, 0, IdSource::Storage));
    assert_eq!(storage.check(&schema).await.unwrap(), []);
    let mut out = Vec::new();
    let rows = storage.fetch(&Query::one(schema.clone(), Value::Integer(7)), &mut out).await.unwrap();
    // A time of another zone is the same instant in UTC.
    assert_eq!(out, br#"{"id":7,"title":"first","at":"2026-11-21T05:00:00Z"}"#);
    let set = vec![(1, Value::Text("second".to_owned()))];
    let write = Write::Update { id: Value::Integer(7), set, guard: Guard::version(rows.versions[0]) };
    let change = Change { schema: schema.clone(), write, answer: Some(vec![1]) };
    let committed = storage.commit(ChangeSet::one(change.clone())).await.unwrap();
    assert_eq!(committed.rows[0].json, br#"{"title":"second"}"#);
    let stale = storage.commit(ChangeSet::one(change)).await.unwrap_err();
    assert_eq!(stale.kind(), ErrorKind::VersionMismatch);
}

#[tokio::test]
async fn every_mismatch_is_named() {
    let (_folder, storage) = database(
        "CREATE TABLE things (id TEXT, number TEXT, needed TEXT NOT NULL, fine INTEGER NOT NULL DEFAULT 1)",
    )
    .await;
    let fields = vec![
        Field::new("id", FieldType::Text),
        field("number", "number", FieldType::Integer),
        field("gone", "missing", FieldType::Text),
    ];
    let schema = Arc::new(Schema::new("things", "things", fields, 0, IdSource::Client));
    let mismatches = storage.check(&schema).await.unwrap();
    let said: Vec<_> = mismatches.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "id: it is the id, and nothing makes `id` unique in the table `things`",
            "id: the column `id` may be null, and the field is never null",
            "number: the column `number` is of type text, and the field needs INTEGER",
            "gone: the table `things` has no column `missing`",
            "the column `needed` is NOT NULL without a default, and no field fills it",
        ]
    );
}

#[tokio::test]
async fn a_statement_that_takes_too_long_ends_and_its_connection_serves_on() {
    let storage = Sql::options("sqlite::memory:")
        .statement_timeout(Duration::from_millis(10))
        .connect()
        .await
        .unwrap()
        .storage();
    let fields = vec![Field::new("id", FieldType::Integer), Field::new("group", FieldType::Integer)];
    let schema = Arc::new(Schema::new("rows", "rows", fields, 0, IdSource::Client));
    storage.create_table_if_missing(&schema).await.unwrap();
    let changes = (0..4_000)
        .map(|id| Change {
            schema: schema.clone(),
            write: Write::Insert { values: vec![Value::Integer(id), Value::Integer(0)] },
            answer: None,
        })
        .collect();
    storage.commit(ChangeSet::of(changes)).await.unwrap();
    // Every row beside every other one.
    let link = Link {
        name: "peers".to_owned(),
        cardinality: Cardinality::Many,
        local: 1,
        target: schema.clone(),
        remote: 1,
    };
    let mut query = Query::all(schema.clone());
    query.limit = 4_000;
    query.includes =
        vec![Include { link: Arc::new(link), fields: vec![0], filter: Filter::everything(), limit: 4_000 }];
    let late = storage.fetch(&query, &mut Vec::new()).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Unavailable, "{late}");
    let rows = storage.fetch(&Query::one(schema, Value::Integer(5)), &mut Vec::new()).await.unwrap();
    assert_eq!(rows.len, 1);
}
