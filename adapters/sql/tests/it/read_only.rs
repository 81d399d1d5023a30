//! A database that takes no writes: reads go on, and what would write says so.

use std::sync::Arc;

use resourceful_contract::{
    Change, ChangeSet, ErrorKind, Field, FieldType, IdSource, Migration, Query, Schema, Storage, Value, Write,
};
use resourceful_sql::Sql;

use crate::support::TestDatabase;

fn notes(table: &str) -> Arc<Schema> {
    let fields = vec![Field::new("id", FieldType::Integer), Field::new("text", FieldType::Text)];
    Arc::new(Schema::new("notes", table, fields, 0, IdSource::Client))
}

fn note(schema: &Arc<Schema>, id: i64) -> Change {
    let values = vec![Value::Integer(id), Value::Text("a".to_owned())];
    Change { schema: schema.clone(), write: Write::Insert { values }, answer: Some(vec![0]) }
}

async fn count(storage: &dyn Storage, schema: &Arc<Schema>) -> usize {
    storage.fetch(&Query::all(schema.clone()), &mut Vec::new()).await.unwrap().len
}

/// Every way to write is unavailable, and says why; reads are served.
async fn assert_read_only(storage: &dyn Storage, schema: &Arc<Schema>, rows: usize) {
    let changes = |ids: &[i64]| ChangeSet::of(ids.iter().map(|id| note(schema, *id)).collect());
    let migration =
        [Migration::new(format!("{}_late", schema.table), 1, "late", "CREATE TABLE late (id bigint)")];
    for refused in [
        storage.commit(changes(&[90])).await.map(drop),
        storage.commit(changes(&[91, 92])).await.map(drop),
        storage.create_table_if_missing(&notes(&format!("{}_late", schema.table))).await,
        storage.migrate(&migration, true).await.map(drop),
        storage.ready().await,
    ] {
        let refused = refused.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused}");
        assert!(refused.help().is_some_and(|help| help.contains("takes no writes")), "{refused}");
        assert_eq!(count(storage, schema).await, rows);
    }
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn read_only_sqlite_serves_reads_and_is_not_ready() {
    let test_db = TestDatabase::sqlite_file();
    let storage = test_db.connect().await.storage();
    let schema = notes("notes");
    storage.create_table_if_missing(&schema).await.unwrap();
    storage.commit(ChangeSet::one(note(&schema, 1))).await.unwrap();
    storage.ready().await.unwrap();
    let reader = Sql::connect(&format!("{}?mode=ro", test_db.url)).await.unwrap().storage();
    assert_read_only(&*reader, &schema, 1).await;
    // The file is as it was for others.
    storage.commit(ChangeSet::one(note(&schema, 2))).await.unwrap();
    assert_eq!(count(&*reader, &schema).await, 2);
    let missing = Sql::connect("sqlite:///nowhere/missing.db?mode=ro").await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::Unavailable, "{missing}");
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn read_only_postgres_serves_reads_and_is_not_ready() {
    let Some(test_db) = TestDatabase::postgres("a read-only database") else { return };
    let storage = test_db.connect().await.storage();
    let schema = notes(&test_db.table("notes"));
    storage.create_table_if_missing(&schema).await.unwrap();
    storage.commit(ChangeSet::one(note(&schema, 1))).await.unwrap();
    storage.ready().await.unwrap();
    let separator = if test_db.url.contains('?') { '&' } else { '?' };
    let url = format!("{}{separator}options=-c%20default_transaction_read_only%3Don", test_db.url);
    let reader = Sql::connect(&url).await.unwrap().storage();
    assert_read_only(&*reader, &schema, 1).await;
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn postgres_is_ready_once_writable_again() {
    let Some(test_db) = TestDatabase::postgres("a database that is writable again") else { return };
    let role = format!("{}_role", test_db.prefix);
    let schema = notes(&test_db.table("notes"));
    test_db.connect().await.storage().create_table_if_missing(&schema).await.unwrap();
    test_db
        .execute(&format!(
            "CREATE ROLE {role} LOGIN; GRANT ALL ON \"{}\" TO {role}; \
             ALTER ROLE {role} SET default_transaction_read_only = on",
            schema.table
        ))
        .await;
    let (_, host) = test_db.url.split_once('@').unwrap();
    let storage = Sql::connect(&format!("postgres://{role}@{host}")).await.unwrap().storage();
    storage.ready().await.unwrap_err();
    storage.commit(ChangeSet::one(note(&schema, 1))).await.unwrap_err();
    // As after a failover: sessions from before stay as they are.
    test_db.execute(&format!("ALTER ROLE {role} SET default_transaction_read_only = off")).await;
    storage.ready().await.unwrap();
    storage.commit(ChangeSet::one(note(&schema, 1))).await.unwrap();
    assert_eq!(count(&*storage, &schema).await, 1);
    test_db.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}
