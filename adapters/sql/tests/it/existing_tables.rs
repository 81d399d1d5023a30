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
async fn table_with_bound_column_names_is_readable_and_writable() {
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
async fn all_schema_mismatches_are_reported() {
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
    let messages: Vec<_> = mismatches.iter().map(ToString::to_string).collect();
    assert_eq!(
        messages,
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
async fn timed_out_statement_leaves_connection_usable() {
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
    assert_eq!(late.kind(), ErrorKind::TimedOut, "{late}");
    let rows = storage.fetch(&Query::one(schema, Value::Integer(5)), &mut Vec::new()).await.unwrap();
    assert_eq!(rows.len, 1);
}

/// A PostgreSQL table made by hand, after the prefix of its test.
#[cfg(feature = "postgres")]
async fn postgres(test_db: &crate::support::TestDatabase, columns: &str, rows: &str) -> Arc<dyn Storage> {
    let mut connection = sqlx::PgConnection::connect(&test_db.url).await.unwrap();
    let table = test_db.table("old");
    let statements = format!("CREATE TABLE {table} ({columns}); INSERT INTO {table} VALUES {rows}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(statements)).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    test_db.connect().await.storage()
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn float32_fits_both_float_columns_and_double_only_one() {
    use resourceful_contract::Test;

    let Some(test_db) = crate::support::TestDatabase::postgres("single precision") else { return };
    let columns = "id bigint PRIMARY KEY, short real, long double precision";
    let storage = postgres(&test_db, columns, "(1, 0.1, 0.10000000149011612), (2, 16777216, 16777216)").await;
    let schema = |field_type| {
        let id = Field::new("id", FieldType::Integer);
        let fields = vec![id, field("short", "short", field_type), field("long", "long", field_type)];
        Arc::new(Schema::new("old", &test_db.table("old"), fields, 0, IdSource::Client))
    };
    let mismatches = storage.check(&schema(FieldType::Float)).await.unwrap();
    let named: Vec<_> = mismatches.iter().map(|mismatch| mismatch.field.as_deref()).collect();
    assert_eq!(named, [Some("short")], "{mismatches:?}");
    let singles = schema(FieldType::Float32);
    assert_eq!(storage.check(&singles).await.unwrap(), []);
    for position in [1, 2] {
        let mut query = Query::all(singles.clone());
        query.filter = Filter::Compare(position, Test::Eq(Value::Float32(0.1)));
        let mut out = Vec::new();
        storage.fetch(&query, &mut out).await.unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), r#"{"id":1,"short":0.1,"long":0.1}"#);
    }
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn search_works_on_any_text_type_and_collation() {
    let Some(test_db) = crate::support::TestDatabase::postgres("searched columns") else { return };
    let collation = test_db.table("collation");
    let mut connection = sqlx::PgConnection::connect(&test_db.url).await.unwrap();
    let made =
        format!("CREATE COLLATION {collation} (provider = icu, locale = 'und', deterministic = false)");
    sqlx::raw_sql(sqlx::AssertSqlSafe(made)).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let columns =
        format!("id bigint PRIMARY KEY, padded char(12), loose text COLLATE {collation}, plain varchar");
    let rows = "(1, 'İzmir Ünye', 'İzmir Ünye', 'İzmir Ünye'), (2, 'Ankara', 'Ankara', 'Ankara')";
    let storage = postgres(&test_db, &columns, rows).await;
    let text = |name: &str| field(name, name, FieldType::Text);
    let fields = vec![Field::new("id", FieldType::Integer), text("padded"), text("loose"), text("plain")];
    let schema = Arc::new(Schema::new("old", &test_db.table("old"), fields, 0, IdSource::Client));
    for position in 1..=3 {
        for (word, id) in [("İz", 1), ("üNYE", 1), ("ANK", 2)] {
            let mut query = Query::all(schema.clone());
            query.filter = Filter::Search(vec![position], word.to_owned());
            query.keys = vec![0];
            let rows = storage.fetch(&query, &mut Vec::new()).await.unwrap();
            assert_eq!(rows.keys, vec![vec![Value::Integer(id)]], "{word} in column {position}");
        }
    }
}
