//! Columns that the database computes.

use std::sync::Arc;

use resourceful_contract::{
    Change, ChangeSet, Field, FieldType, Guard, IdSource, Query, Schema, Storage, Value, Write,
};

use crate::support::TestDatabase;

/// A table with an id, a text and what the database makes of it.
fn schema(name: &str, read_only: bool) -> Schema {
    let mut loud = Field::new("loud", FieldType::Text).nullable();
    loud.read_only = read_only;
    let mut number = Field::new("number", FieldType::Integer).nullable();
    number.read_only = read_only;
    let fields =
        vec![Field::new("id", FieldType::Integer), loud, Field::new("text", FieldType::Text), number];
    Schema::new("things", name, fields, 0, IdSource::Client)
}

async fn database(test_db: &TestDatabase, name: &str, how: &str) -> Arc<dyn Storage> {
    let table = test_db.table(name);
    let number = if test_db.is_postgres() {
        "bigint GENERATED ALWAYS AS IDENTITY".to_owned()
    } else {
        format!("bigint GENERATED ALWAYS AS (id * 10) {how}")
    };
    test_db
        .execute(&format!(
            "CREATE TABLE {table} (id bigint PRIMARY KEY NOT NULL, text text NOT NULL, \
             loud text GENERATED ALWAYS AS (upper(text)) {how}, number {number})"
        ))
        .await;
    test_db.connect().await.storage()
}

#[tokio::test]
async fn writable_generated_column_is_reported_with_fix() {
    for test_db in TestDatabase::all_durable("generated columns") {
        let storage = database(&test_db, "set", "STORED").await;
        let schema = Arc::new(schema(&test_db.table("set"), false));
        let found = storage.check(&schema).await.unwrap();
        let help: Vec<_> = found.iter().filter_map(|one| one.help.as_deref()).collect();
        assert_eq!(help, [".read_only([\"loud\"])", ".read_only([\"number\"])"]);
        assert!(found.iter().all(|one| !one.is_warning));
    }
}

#[tokio::test]
async fn generated_column_is_returned_and_never_written() {
    for test_db in TestDatabase::all_durable("generated columns") {
        let kinds: &[&str] = if test_db.is_postgres() { &["STORED"] } else { &["STORED", "VIRTUAL"] };
        for how in kinds {
            let name = how.to_lowercase();
            let storage = database(&test_db, &name, how).await;
            let schema = Arc::new(schema(&test_db.table(&name), true));
            assert_eq!(storage.check(&schema).await.unwrap(), []);
            let insert = |id, text: &str, answer| {
                let values = vec![Value::Integer(id), Value::Null, Value::Text(text.to_owned()), Value::Null];
                Change { schema: schema.clone(), write: Write::Insert { values }, answer }
            };
            let one = storage.commit(ChangeSet::one(insert(1, "a", Some(vec![1, 2])))).await.unwrap();
            assert_eq!(one.rows[0].json, br#"{"loud":"A","text":"a"}"#);
            // Several in one statement, and beside a row of another table.
            let many = (2..5).map(|id| insert(id, "m", None)).collect();
            storage.commit(ChangeSet::of(many)).await.unwrap();
            let fields = vec![Field::new("id", FieldType::Integer), Field::new("note", FieldType::Text)];
            let other = test_db.table(&format!("other{name}"));
            let other = Arc::new(Schema::new("others", &other, fields, 0, IdSource::Client));
            storage.create_table_if_missing(&other).await.unwrap();
            let beside = |id| Change {
                schema: other.clone(),
                write: Write::Insert { values: vec![Value::Integer(id), Value::Text(format!("note {id}"))] },
                answer: None,
            };
            storage.commit(ChangeSet::of(vec![insert(5, "j", None), beside(6)])).await.unwrap();
            let mut out = Vec::new();
            storage.fetch(&Query::all(other.clone()), &mut out).await.unwrap();
            assert_eq!(out, br#"{"id":6,"note":"note 6"}"#);
            // What is set of it is left out as well.
            let set = vec![(1, Value::Text("x".to_owned())), (2, Value::Text("b".to_owned()))];
            let write = Write::Update { id: Value::Integer(1), set, guard: Guard::none() };
            let change = Change { schema: schema.clone(), write, answer: Some(vec![1, 2]) };
            let two = storage.commit(ChangeSet::one(change)).await.unwrap();
            assert_eq!(two.rows[0].json, br#"{"loud":"B","text":"b"}"#);
            let set = vec![(1, Value::Text("x".to_owned()))];
            let write = Write::Update {
                id: Value::Integer(1),
                set,
                guard: Guard::version(two.rows[0].version.unwrap()),
            };
            let change = Change { schema: schema.clone(), write, answer: Some(vec![1]) };
            let three = storage.commit(ChangeSet::one(change)).await.unwrap();
            assert_eq!(three.rows[0].json, br#"{"loud":"B"}"#);
            let mut out = Vec::new();
            storage.fetch(&Query::one(schema.clone(), Value::Integer(5)), &mut out).await.unwrap();
            let number = if test_db.is_postgres() { 5 } else { 50 };
            let expected = format!(r#"{{"id":5,"loud":"J","text":"j","number":{number}}}"#);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}

#[tokio::test]
async fn identity_column_accepts_explicit_ids() {
    for test_db in TestDatabase::all_durable("identities").into_iter().filter(TestDatabase::is_postgres) {
        let table = test_db.table("identity");
        test_db
            .execute(&format!(
                "CREATE TABLE {table} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, text text)"
            ))
            .await;
        let fields =
            vec![Field::new("id", FieldType::Integer), Field::new("text", FieldType::Text).nullable()];
        let schema = Arc::new(Schema::new("things", &table, fields, 0, IdSource::Storage));
        let storage = test_db.connect().await.storage();
        assert_eq!(storage.check(&schema).await.unwrap(), []);
        let insert = |id| Change {
            schema: schema.clone(),
            write: Write::Insert { values: vec![id, Value::Null] },
            answer: None,
        };
        storage.commit(ChangeSet::one(insert(Value::Integer(7)))).await.unwrap();
        storage
            .commit(ChangeSet::of(vec![insert(Value::Integer(9)), insert(Value::Integer(10))]))
            .await
            .unwrap();
        let minted = storage.commit(ChangeSet::one(insert(Value::Null))).await.unwrap();
        assert_eq!(minted.rows[0].id, Value::Integer(11));
    }
}
