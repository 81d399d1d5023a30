//! Declarations next to tables that were made otherwise: what is refused, and the line that mends it.

use std::sync::Arc;

use resourceful_contract::{
    Change, ChangeSet, ErrorKind, Field, FieldType, IdSource, Index, Mismatch, Schema, Storage, Value, Write,
};

use serde_json::{Value as Json, json};

use crate::support::TestDatabase;

/// `things` with an id and two fields, of which `code` is declared unique and `part` indexed.
fn schema(test_db: &TestDatabase, name: &str) -> Schema {
    let fields = vec![
        Field::new("id", FieldType::Integer),
        Field::new("code", FieldType::Text),
        Field::new("part", FieldType::Integer).nullable(),
    ];
    let mut schema = Schema::new("things", &test_db.table(name), fields, 0, IdSource::Client);
    schema.indexes =
        vec![Index { fields: vec![1, 2], unique: true }, Index { fields: vec![2], unique: false }];
    schema
}

/// The same table as another program might have made it.
fn create_table_sql(name: &str) -> String {
    format!("CREATE TABLE {name} (id bigint PRIMARY KEY NOT NULL, code text NOT NULL, part bigint);")
}

async fn check(storage: &Arc<dyn Storage>, schema: &Schema) -> Vec<Mismatch> {
    storage.check(&Arc::new(schema.clone())).await.unwrap()
}

fn messages(mismatches: &[Mismatch]) -> Vec<(String, bool)> {
    mismatches.iter().map(|one| (one.to_string(), one.is_warning)).collect()
}

#[tokio::test]
async fn missing_index_is_reported_with_statement() {
    for test_db in TestDatabase::all_durable("missing indexes") {
        let schema = schema(&test_db, "bare");
        test_db.execute(&create_table_sql(&schema.table)).await;
        let storage = test_db.connect().await.storage();
        let found = check(&storage, &schema).await;
        let table = &schema.table;
        let expected = [
            (format!("code: nothing makes `code`, `part` unique in the table `{table}`"), false),
            (format!("part: the table `{table}` has no index on `part`"), true),
        ];
        assert_eq!(messages(&found), expected);
        for mismatch in found {
            test_db.execute(&mismatch.help.unwrap()).await;
        }
        assert_eq!(check(&storage, &schema).await, []);
    }
}

#[tokio::test]
async fn indexes_are_matched_by_columns() {
    for test_db in TestDatabase::all_durable("indexes of other names") {
        for (number, made) in [
            // As earlier versions named them, in another order, of one of the columns, and a constraint.
            "CREATE UNIQUE INDEX #_code_part_key ON # (code, part)",
            "CREATE UNIQUE INDEX #_hand ON # (part, code)",
            "CREATE UNIQUE INDEX #_code ON # (code)",
        ]
        .iter()
        .enumerate()
        {
            let schema = schema(&test_db, &format!("named{number}"));
            let statements =
                format!("{}CREATE INDEX #_part_id_idx ON # (part, id);{made};", create_table_sql("#"));
            test_db.execute(&statements.replace('#', &schema.table)).await;
            assert_eq!(check(&test_db.connect().await.storage(), &schema).await, [], "{made}");
        }
    }
}

#[tokio::test]
async fn unused_column_default_is_warning() {
    for test_db in TestDatabase::all_durable("defaults") {
        let table = test_db.table("defaulted");
        let with = |name: &str, field_type: FieldType, default: Option<Json>| {
            let mut field = Field::new(name, field_type);
            field.json_schema = json!({"default": default.unwrap_or_default()});
            field
        };
        let fields = vec![
            Field::new("id", FieldType::Integer),
            // The same, however it is written.
            with("status", FieldType::Text, Some(json!("it's"))),
            with("total", FieldType::Decimal, Some(json!("1.50"))),
            with("flag", FieldType::Boolean, Some(json!(true))),
            with("low", FieldType::Integer, Some(json!(-1))),
            // A client has to send it.
            Field::new("sent", FieldType::Text),
            // An expression is compared with nothing.
            with("minted", FieldType::Text, Some(json!(""))),
            with("kind", FieldType::Text, Some(json!("new"))),
            Field::new("rank", FieldType::Integer).nullable(),
            Field::new("unset", FieldType::Integer).nullable(),
        ];
        let schema = Schema::new("things", &table, fields, 0, IdSource::Client);
        let truth = if test_db.is_postgres() { "boolean" } else { "BOOLEAN" };
        let minted = if test_db.is_postgres() { "gen_random_uuid()::text" } else { "(lower('X'))" };
        let decimal = if test_db.is_postgres() { "numeric" } else { "TEXT" };
        let given = if test_db.is_postgres() { "1.5" } else { "'1.5'" };
        test_db
            .execute(&format!(
                "CREATE TABLE {table} (id bigint PRIMARY KEY NOT NULL, status text NOT NULL DEFAULT 'it''s',
                 total {decimal} NOT NULL DEFAULT {given}, flag {truth} NOT NULL DEFAULT true,
                 low bigint NOT NULL DEFAULT -1, sent text NOT NULL DEFAULT 'x', minted text NOT NULL DEFAULT {minted},
                 kind text NOT NULL DEFAULT 'old', rank bigint DEFAULT 7, unset bigint DEFAULT NULL);"
            ))
            .await;
        let cast = if test_db.is_postgres() { "::text" } else { "" };
        let found = check(&test_db.connect().await.storage(), &schema).await;
        let gets = "and an item that is created without the field gets";
        let expected = [
            (format!("kind: the column `kind` has the default 'old'{cast}, {gets} \"new\""), true),
            (format!("rank: the column `rank` has the default 7, {gets} null"), true),
        ];
        assert_eq!(messages(&found), expected);
    }
}

#[tokio::test]
async fn partial_and_invalid_indexes_do_not_count() {
    for test_db in TestDatabase::all_durable("flawed indexes") {
        let mut flawed = vec![
            ("CREATE UNIQUE INDEX #_i ON # (code, part) WHERE part > 0", ": the index `#_i` is partial"),
            ("CREATE UNIQUE INDEX #_i ON # (lower(code), part)", ""),
            ("CREATE UNIQUE INDEX #_i ON # (code, part, id)", ""),
            ("CREATE INDEX #_i ON # (code, part)", ""),
        ];
        if test_db.is_postgres() {
            flawed.push((
                "ALTER TABLE # ADD CONSTRAINT #_i UNIQUE (code, part) DEFERRABLE",
                ": the index `#_i` is deferrable",
            ));
            flawed.push((
                "CREATE UNIQUE INDEX #_i ON # (code, part);
                 UPDATE pg_index SET indisvalid = false WHERE indexrelid = '#_i'::regclass",
                ": the index `#_i` is invalid: drop it",
            ));
        }
        for (number, (made, why)) in flawed.into_iter().enumerate() {
            let schema = schema(&test_db, &format!("flawed{number}"));
            let statements = format!("{}CREATE INDEX #_part ON # (part, id);{made};", create_table_sql("#"));
            test_db.execute(&statements.replace('#', &schema.table)).await;
            let found = check(&test_db.connect().await.storage(), &schema).await;
            let expected = format!("code: nothing makes `code`, `part` unique in the table `#`{why}");
            assert_eq!(messages(&found), [(expected.replace('#', &schema.table), false)], "{made}");
        }
    }
}

#[tokio::test]
async fn index_names_of_renamed_table_do_not_collide() {
    for test_db in TestDatabase::all_durable("renamed tables") {
        let schema = Arc::new(schema(&test_db, "renamed"));
        let storage = test_db.connect().await.storage();
        storage.create_table_if_missing(&schema).await.unwrap();
        test_db.execute(&format!("ALTER TABLE {0} RENAME TO {0}_before", schema.table)).await;
        storage.create_table_if_missing(&schema).await.unwrap();
        assert_eq!(storage.check(&schema).await.unwrap(), []);
        let row = |id| {
            let values = vec![Value::Integer(id), Value::Text("a".to_owned()), Value::Integer(1)];
            Change { schema: schema.clone(), write: Write::Insert { values }, answer: None }
        };
        storage.commit(ChangeSet::one(row(1))).await.unwrap();
        let clash = storage.commit(ChangeSet::one(row(2))).await.unwrap_err();
        assert_eq!(clash.kind(), ErrorKind::UniqueViolation);
    }
}

#[tokio::test]
async fn nullability_mismatch_is_reported() {
    for test_db in TestDatabase::all_durable("nulls") {
        let schema = schema(&test_db, "nulls");
        test_db
            .execute(&format!(
                "CREATE TABLE {0} (id bigint PRIMARY KEY NOT NULL, code text, part bigint NOT NULL);
                 CREATE UNIQUE INDEX {0}_key ON {0} (code, part); CREATE INDEX {0}_part ON {0} (part, id)",
                schema.table
            ))
            .await;
        let storage = test_db.connect().await.storage();
        let found = check(&storage, &schema).await;
        let expected = [
            ("code: the column `code` may be null, and the field is never null".to_owned(), false),
            ("part: the column `part` is NOT NULL, and the field may be null".to_owned(), false),
        ];
        assert_eq!(messages(&found), expected);
        let help: Vec<_> = found.into_iter().filter_map(|one| one.help).collect();
        if test_db.is_postgres() {
            for line in &help {
                test_db.execute(line.split("; or ").next().unwrap()).await;
            }
            assert_eq!(check(&storage, &schema).await, []);
        } else {
            assert_eq!(help, ["make `code` an Option", "drop the Option around `part`"]);
        }
    }
}

#[tokio::test]
async fn overlong_names_are_reported() {
    for test_db in TestDatabase::all_durable("long names") {
        let mut schema = schema(&test_db, &"long".repeat(20));
        schema.fields[1].column = "column".repeat(12);
        let storage = test_db.connect().await.storage();
        let schema = Arc::new(schema);
        storage.create_table_if_missing(&schema).await.unwrap();
        let found: Vec<_> = storage.check(&schema).await.unwrap().into_iter().map(|one| one.field).collect();
        // SQLite keeps names of any length.
        let expected = if test_db.is_postgres() { vec![None, Some("code".to_owned())] } else { vec![] };
        assert_eq!(found, expected);
    }
}

#[tokio::test]
async fn incompatible_column_types_are_reported() {
    for test_db in TestDatabase::all_durable("types") {
        let (types, expected): (&[&str], &[(&str, bool)]) = if test_db.is_postgres() {
            test_db
                .execute(&format!(
                    "CREATE TYPE {0}_mood AS ENUM ('b', 'a'); CREATE DOMAIN {0}_word AS varchar(20) NOT NULL",
                    test_db.prefix
                ))
                .await;
            (
                &["name", "#_mood", "#_word", "bytea"],
                &[
                    ("the column `code` is of type name, which cuts text after 63 bytes", false),
                    ("the column `code` is of type #_mood, and the field needs text COLLATE \"C\"", false),
                    ("", false),
                    ("the column `code` is of type bytea, and the field needs text COLLATE \"C\"", false),
                ],
            )
        } else {
            (
                &["datetime", "numeric(5)", "varchar(20)", "blob"],
                &[
                    (
                        "the column `code` is of type datetime, which turns text that looks like a number into one",
                        false,
                    ),
                    (
                        "the column `code` is of type numeric(5), which turns text that looks like a number into one",
                        false,
                    ),
                    ("", false),
                    ("the column `code` is of type blob, and the field needs TEXT", false),
                ],
            )
        };
        for (number, (made, (said, is_warning))) in types.iter().zip(expected).enumerate() {
            let mut schema = schema(&test_db, &format!("types{number}"));
            schema.indexes.clear();
            let made = made.replace('#', &test_db.prefix);
            test_db
                .execute(&format!(
                    "CREATE TABLE {} (id bigint PRIMARY KEY NOT NULL, code {made} NOT NULL, part bigint)",
                    schema.table
                ))
                .await;
            let found = check(&test_db.connect().await.storage(), &schema).await;
            let found: Vec<_> = found.iter().map(|one| (one.message.as_str(), one.is_warning)).collect();
            let said = said.replace('#', &test_db.prefix);
            let expected = if said.is_empty() { vec![] } else { vec![(said.as_str(), *is_warning)] };
            assert_eq!(found, expected, "{made}");
        }
    }
}
