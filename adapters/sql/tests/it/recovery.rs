//! A connection that an error broke does not fail the requests after that one.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

#[cfg(feature = "postgres")]
use resourceful_contract::Guard;
use resourceful_contract::{
    Change, ChangeSet, Field, FieldType, IdSource, Migration, Query, Schema, Storage, Value, Write,
};
#[cfg(feature = "sqlite")]
use resourceful_contract::{Filter, Test};
#[cfg(feature = "postgres")]
use resourceful_sql::Sql;

use crate::support::TestDatabase;

fn notes(table: &str) -> Arc<Schema> {
    let fields = vec![Field::new("id", FieldType::Integer), Field::new("text", FieldType::Text)];
    Arc::new(Schema::new("notes", table, fields, 0, IdSource::Client))
}

fn note(schema: &Arc<Schema>, id: i64, text: &str) -> Change {
    let values = vec![Value::Integer(id), Value::Text(text.to_owned())];
    Change { schema: schema.clone(), write: Write::Insert { values }, answer: Some(vec![0]) }
}

async fn fetch_ids(storage: &dyn Storage, schema: &Arc<Schema>) -> String {
    let mut out = Vec::new();
    let query = Query { fields: vec![0], ..Query::all(schema.clone()) };
    storage.fetch(&query, &mut out).await.unwrap();
    String::from_utf8(out).unwrap().replace(r#"{"id":"#, "").replace('}', "")
}

/// Runs statements on the connection that writes.
async fn run_migration(storage: &dyn Storage, name: &str, sql: impl Into<String>) {
    storage.migrate(&[Migration::new(name, 1, name, sql.into())], true).await.unwrap();
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn sqlite_recovers_after_trigger_rollback() {
    for test_db in [TestDatabase::sqlite_file(), TestDatabase::sqlite_memory()] {
        let storage = test_db.connect().await.storage();
        let schema = notes("notes");
        storage.create_table_if_missing(&schema).await.unwrap();
        let trigger = "CREATE TRIGGER refuse BEFORE INSERT ON notes WHEN NEW.text = 'bad'
             BEGIN SELECT RAISE(ROLLBACK, 'not this one'); END";
        run_migration(&*storage, "trigger", trigger).await;
        storage.commit(ChangeSet::one(note(&schema, 1, "good"))).await.unwrap();
        for round in 0..3 {
            let bad = vec![note(&schema, 2, "good"), note(&schema, 3, "bad"), note(&schema, 4, "good")];
            storage.commit(ChangeSet::of(bad)).await.unwrap_err();
            let id = 10 + round * 2;
            let good = vec![note(&schema, id, "good"), note(&schema, id + 1, "good")];
            storage.commit(ChangeSet::of(good)).await.unwrap();
            storage.ready().await.unwrap();
        }
        assert_eq!(fetch_ids(&*storage, &schema).await, "1,10,11,12,13,14,15", "{}", test_db.url);
    }
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn sqlite_recovers_after_full_disk() {
    for test_db in [TestDatabase::sqlite_file(), TestDatabase::sqlite_memory()] {
        let storage = test_db.connect().await.storage();
        let schema = notes("notes");
        storage.create_table_if_missing(&schema).await.unwrap();
        run_migration(&*storage, "room", "PRAGMA max_page_count = 40").await;
        // A statement that may write several rows, or returns some, is taken back alone; this one ends the transaction.
        let filter = Filter::Compare(0, Test::Eq(Value::Integer(1)));
        let write = Write::UpdateAll { filter, set: vec![(1, Value::Text("x".repeat(300_000)))] };
        let full = vec![note(&schema, 1, "small"), Change { write, ..note(&schema, 1, "") }];
        let full = storage.commit(ChangeSet::of(full)).await.unwrap_err();
        assert_eq!(full.kind(), resourceful_contract::ErrorKind::Unavailable, "{full}");
        let small = vec![note(&schema, 3, "small"), note(&schema, 4, "small")];
        storage.commit(ChangeSet::of(small)).await.unwrap();
        storage.ready().await.unwrap();
        assert_eq!(fetch_ids(&*storage, &schema).await, "3,4", "{}", test_db.url);
    }
}

/// A storage of one connection, so that what happens to that is seen by what comes next.
#[cfg(feature = "postgres")]
async fn single_connection_storage(test_db: &TestDatabase) -> (Arc<dyn Storage>, Arc<Schema>) {
    let storage = Sql::options(&test_db.url).max_connections(1).connect().await.unwrap().storage();
    let schema = notes(&test_db.table("notes"));
    storage.create_table_if_missing(&schema).await.unwrap();
    storage.commit(ChangeSet::of((1..=3).map(|id| note(&schema, id, "a")).collect())).await.unwrap();
    (storage, schema)
}

/// Every kind of statement once: a list, a row, an insert, an update, a delete, and several in one transaction.
#[cfg(feature = "postgres")]
async fn run_all_statement_kinds(storage: &dyn Storage, schema: &Arc<Schema>) {
    let update = |id| Change {
        schema: schema.clone(),
        write: Write::Update {
            id: Value::Integer(id),
            set: vec![(1, Value::Text("b".to_owned()))],
            guard: Guard::none(),
        },
        answer: Some(vec![0, 1]),
    };
    let delete = Change {
        schema: schema.clone(),
        write: Write::Delete { id: Value::Integer(9), guard: Guard::none() },
        answer: None,
    };
    assert_eq!(fetch_ids(storage, schema).await, "1,2,3");
    let one = Query::one(schema.clone(), Value::Integer(2));
    assert_eq!(storage.fetch(&one, &mut Vec::new()).await.unwrap().len, 1);
    storage.commit(ChangeSet::one(note(schema, 9, "a"))).await.unwrap();
    storage.commit(ChangeSet::one(update(9))).await.unwrap();
    storage.commit(ChangeSet::one(delete.clone())).await.unwrap();
    storage.commit(ChangeSet::of(vec![update(1), note(schema, 9, "a"), update(3), delete])).await.unwrap();
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn postgres_recovers_after_column_type_change() {
    let Some(test_db) = TestDatabase::postgres("a column that changes its type") else { return };
    let (storage, schema) = single_connection_storage(&test_db).await;
    let mut other = <sqlx::PgConnection as sqlx::Connection>::connect(&test_db.url).await.unwrap();
    run_all_statement_kinds(&*storage, &schema).await;
    for column_type in ["varchar(100)", "text", "varchar(50)"] {
        let alter = format!("ALTER TABLE \"{}\" ALTER COLUMN text TYPE {column_type}", schema.table);
        sqlx::Executor::execute(&mut other, sqlx::AssertSqlSafe(alter)).await.unwrap();
        run_all_statement_kinds(&*storage, &schema).await;
    }
    // What comes first may be of any kind.
    let alter = format!("ALTER TABLE \"{}\" ALTER COLUMN id TYPE integer", schema.table);
    sqlx::Executor::execute(&mut other, sqlx::AssertSqlSafe(alter)).await.unwrap();
    let changes = (10..13).map(|id| note(&schema, id, "a"));
    storage.commit(ChangeSet::of(changes.collect())).await.unwrap();
    assert_eq!(fetch_ids(&*storage, &schema).await, "1,2,3,10,11,12");
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn postgres_recovers_after_deallocate_all() {
    let Some(test_db) = TestDatabase::postgres("prepared statements that are gone") else { return };
    let (storage, schema) = single_connection_storage(&test_db).await;
    for round in 0..3 {
        run_all_statement_kinds(&*storage, &schema).await;
        run_migration(&*storage, &format!("{}{round}", test_db.prefix), "DEALLOCATE ALL").await;
    }
    run_all_statement_kinds(&*storage, &schema).await;
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn postgres_retries_on_new_connection_after_termination() {
    let Some(test_db) = TestDatabase::postgres("a connection that the server ended") else { return };
    let (url, name) = (test_db.tagged_url(), test_db.prefix.clone());
    let storage = Sql::connect(&url).await.unwrap().storage();
    let schema = notes(&test_db.table("notes"));
    storage.create_table_if_missing(&schema).await.unwrap();
    let mut admin = <sqlx::PgConnection as sqlx::Connection>::connect(&test_db.url).await.unwrap();
    for round in 0..5 {
        let reads = (0..8).map(|_| fetch_ids(&*storage, &schema));
        futures::future::join_all(reads).await;
        let ended: i64 = sqlx::query_scalar(
            "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE application_name = $1",
        )
        .bind(&name)
        .fetch_one(&mut admin)
        .await
        .unwrap();
        assert!(ended > 0, "{ended}");
        // A read, or a transaction that has not begun, has left nothing behind.
        match round % 3 {
            0 => drop(fetch_ids(&*storage, &schema).await),
            1 => {
                let both = vec![note(&schema, round * 2, "a"), note(&schema, round * 2 + 1, "a")];
                storage.commit(ChangeSet::of(both)).await.map(drop).unwrap();
            }
            _ => storage.ready().await.unwrap(),
        }
    }
    assert_eq!(fetch_ids(&*storage, &schema).await, "2,3,8,9");
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn delete_only_role_can_delete_several_rows() {
    let Some(test_db) = TestDatabase::postgres("a role that may only delete") else { return };
    let role = format!("{}_role", test_db.prefix);
    let schema = notes(&test_db.table("notes"));
    let owner = test_db.connect().await.storage();
    owner.create_table_if_missing(&schema).await.unwrap();
    owner.commit(ChangeSet::of((1..=3).map(|id| note(&schema, id, "a")).collect())).await.unwrap();
    let grants = format!(
        "CREATE ROLE {role} LOGIN PASSWORD '{role}'; GRANT SELECT, DELETE ON \"{}\" TO {role}",
        schema.table
    );
    run_migration(&*owner, &test_db.prefix, grants).await;
    let (_, host) = test_db.url.split_once('@').unwrap();
    let storage = Sql::connect(&format!("postgres://{role}:{role}@{host}")).await.unwrap().storage();
    let delete = |id| Change {
        schema: schema.clone(),
        write: Write::Delete { id: Value::Integer(id), guard: Guard::none() },
        answer: None,
    };
    storage.commit(ChangeSet::of(vec![delete(3), delete(1)])).await.unwrap();
    assert_eq!(fetch_ids(&*storage, &schema).await, "2");
    let end = format!("DROP OWNED BY {role}; DROP ROLE {role}");
    run_migration(&*owner, &format!("{}_end", test_db.prefix), end).await;
}
