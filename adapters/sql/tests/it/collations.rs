//! Columns whose own order is not that of their bytes: filters, pages and the whole list agree.

use std::sync::Arc;

use resourceful_contract::{
    Cardinality, Change, ChangeSet, Field, FieldType, Filter, Guard, IdSource, Include, Index, Link,
    Position, Query, RelatedBy, ScalarType, Schema, Sort, Storage, Test, Value, Write,
};

use crate::support::TestDatabase;

/// Texts that tie, or change places, by case, by padding, by accent or by width.
const TEXTS: [&str; 14] = ["a", "B", "A", "b", "ab", "Ab", "é", "e", "E", "z", "Z", "a b", "ß", "ss"];

fn schema(test_db: &TestDatabase, name: &str, id: FieldType) -> Arc<Schema> {
    let fields = vec![Field::new("id", id), Field::new("code", FieldType::Text)];
    let mut schema = Schema::new("things", &test_db.table(name), fields, 0, IdSource::Client);
    schema.indexes = vec![Index { fields: vec![1], unique: false }];
    Arc::new(schema)
}

/// Types of text columns.
fn text_types(test_db: &TestDatabase) -> &'static [&'static str] {
    if test_db.is_postgres() {
        &[
            "text",
            "text COLLATE \"und-x-icu\"",
            "text COLLATE #_folds",
            "varchar(9) COLLATE #_folds",
            "citext",
            "citext COLLATE #_folds",
            "varchar(9)",
            "char(9)",
            "char(9) COLLATE #_folds",
            "#_word",
            "#_cited",
        ]
    } else {
        &[
            "text",
            "text COLLATE NOCASE",
            "text COLLATE RTRIM",
            "text /* COLLATE nothing */ DEFAULT 'x' COLLATE NOCASE",
            "varchar(9) COLLATE nocase",
        ]
    }
}

async fn prepare(test_db: &TestDatabase) {
    if test_db.is_postgres() {
        // Extensions are made one at a time.
        test_db
            .execute(&format!(
                "SELECT pg_advisory_lock(7071); CREATE EXTENSION IF NOT EXISTS citext;
                 SELECT pg_advisory_unlock(7071);
                 CREATE COLLATION {0}_folds (provider = icu, locale = 'und-u-ks-level1', deterministic = false);
                 CREATE DOMAIN {0}_word AS text COLLATE {0}_folds; CREATE DOMAIN {0}_cited AS citext",
                test_db.prefix
            ))
            .await;
    }
}

/// The ids of a query's rows, as they come.
async fn fetch_ids(storage: &Arc<dyn Storage>, query: &Query) -> (Vec<Value>, resourceful_contract::Rows) {
    let query = Query { keys: vec![query.schema.id], ..query.clone() };
    let rows = storage.fetch(&query, &mut Vec::new()).await.unwrap();
    (rows.keys.iter().flatten().cloned().collect(), rows)
}

/// Walks all pages, and compares them with the whole list.
async fn assert_all_pages(storage: &Arc<dyn Storage>, schema: &Arc<Schema>, sort: &[usize], what: &str) {
    for (descending, backwards, limit) in
        [(false, false, 1), (false, true, 1), (true, false, 3), (true, true, 3), (false, false, 2)]
    {
        let mut query = Query::all(schema.clone());
        query.sort = sort.iter().map(|field| Sort { field: *field, descending }).collect();
        query.limit = 100;
        let (mut whole, all) = fetch_ids(storage, &query).await;
        query.limit = limit;
        if backwards {
            whole.pop();
            query.position = Position::Before(all.last.unwrap());
        }
        let mut seen = Vec::new();
        // One page more than there can be: an end that is not found is no end.
        for _ in 0..=TEXTS.len() {
            let (page, rows) = fetch_ids(storage, &query).await;
            if backwards {
                seen.splice(0..0, page);
                query.position = Position::Before(rows.first.unwrap_or_default());
            } else {
                seen.extend(page);
                query.position = Position::After(rows.last.unwrap_or_default());
            }
            if !rows.more {
                break;
            }
        }
        assert_eq!(seen, whole, "{what} by {sort:?}, descending {descending}, backwards {backwards}");
    }
}

#[tokio::test]
async fn pages_by_text_of_any_collation_return_every_row_once() {
    for test_db in TestDatabase::all_durable("collations") {
        prepare(&test_db).await;
        let storage = test_db.connect().await.storage();
        for (number, made) in text_types(&test_db).iter().enumerate() {
            let schema = schema(&test_db, &format!("pages{number}"), FieldType::Integer);
            let made = made.replace('#', &test_db.prefix);
            test_db
                .execute(&format!(
                    "CREATE TABLE {0} (id bigint PRIMARY KEY NOT NULL, code {made} NOT NULL);
                     CREATE INDEX {0}_code ON {0} (code, id)",
                    schema.table
                ))
                .await;
            assert!(storage.check(&schema).await.unwrap().iter().all(|one| one.is_warning), "{made}");
            let row = |(id, text): (usize, &&str)| {
                let values =
                    vec![Value::Integer(i64::try_from(id).unwrap()), Value::Text((*text).to_owned())];
                Change { schema: schema.clone(), write: Write::Insert { values }, answer: None }
            };
            let rows = TEXTS.iter().enumerate().map(row).collect();
            storage.commit(ChangeSet::of(rows)).await.unwrap();
            assert_all_pages(&storage, &schema, &[1, 0], &made).await;
            assert_all_pages(&storage, &schema, &[0], &made).await;
            assert_byte_comparison(&storage, &schema, &made).await;
        }
    }
}

/// Text is compared by its own bytes: a policy must not admit `Bob` for `bob`.
async fn assert_byte_comparison(storage: &Arc<dyn Storage>, schema: &Arc<Schema>, made: &str) {
    let text = |text: &str| Value::Text(text.to_owned());
    for (test, expected) in [
        (Test::Eq(text("a")), vec![0]),
        (Test::In(vec![text("a"), text("Z")]), vec![0, 10]),
        (Test::Contains("B".to_owned()), vec![1]),
        (Test::Starts("a".to_owned()), vec![0, 4, 11]),
        (Test::Ends("B".to_owned()), vec![1]),
        (Test::Ne(text("a")), (1..14).collect()),
        (Test::NotIn(vec![text("A"), text("e")]), (0..14).filter(|id| ![2, 7].contains(id)).collect()),
    ] {
        // The end of char(n) is its padding.
        if made.starts_with("char") && matches!(test, Test::Ends(_)) {
            continue;
        }
        let mut query = Query::all(schema.clone());
        query.filter = Filter::Compare(1, test);
        let (found, _) = fetch_ids(storage, &query).await;
        let expected: Vec<_> = expected.into_iter().map(Value::Integer).collect();
        assert_eq!(found, expected, "{made}: {:?}", query.filter);
    }
    let mut query = Query::all(schema.clone());
    query.filter = Filter::Search(vec![1], "AB".to_owned());
    assert_eq!(fetch_ids(storage, &query).await.0, [Value::Integer(4), Value::Integer(5)], "{made}");
}

#[tokio::test]
async fn ids_of_any_collation_match_exactly() {
    for test_db in TestDatabase::all_durable("ids of collations") {
        prepare(&test_db).await;
        let storage = test_db.connect().await.storage();
        for (number, made) in text_types(&test_db).iter().enumerate() {
            let schema = schema(&test_db, &format!("ids{number}"), FieldType::Text);
            let made = made.replace('#', &test_db.prefix);
            test_db
                .execute(&format!(
                    "CREATE TABLE {} (id {made} PRIMARY KEY NOT NULL, code text NOT NULL)",
                    schema.table
                ))
                .await;
            assert!(storage.check(&schema).await.unwrap().iter().all(|one| one.is_warning), "{made}");
            let text = |text: &str| Value::Text(text.to_owned());
            for id in ["b", "a"] {
                let write = Write::Insert { values: vec![text(id), text("before")] };
                let change = Change { schema: schema.clone(), write, answer: None };
                storage.commit(ChangeSet::one(change)).await.unwrap();
            }
            // The id as it is answered names the row; in another case it does not.
            let (found, rows) = fetch_ids(&storage, &Query::all(schema.clone())).await;
            assert_eq!(found.len(), 2, "{made}");
            assert!(!rows.more);
            let one = Query::one(schema.clone(), found[0].clone());
            let version = storage.fetch(&one, &mut Vec::new()).await.unwrap().versions[0];
            let set = vec![(1, text("after"))];
            let write = Write::Update { id: found[0].clone(), set, guard: Guard::version(version) };
            let change = Change { schema: schema.clone(), write, answer: Some(vec![1]) };
            let done = storage.commit(ChangeSet::one(change)).await.unwrap();
            assert_eq!(done.rows[0].json, br#"{"code":"after"}"#, "{made}");
            let write = Write::Delete { id: text("A"), guard: Guard::none() };
            let change = Change { schema: schema.clone(), write, answer: None };
            assert!(storage.commit(ChangeSet::one(change)).await.is_err(), "{made}");
        }
    }
}

#[tokio::test]
async fn arrays_of_any_element_type_are_filterable() {
    for test_db in TestDatabase::all_durable("arrays").into_iter().filter(TestDatabase::is_postgres) {
        let storage = test_db.connect().await.storage();
        for (number, (made, element, given, held)) in [
            ("varchar(5)[]", ScalarType::Text, "'{x,y}'", "x"),
            ("char(5)[]", ScalarType::Text, "'{x,y}'", "x"),
            ("int2[]", ScalarType::Integer, "'{1,2}'", "2"),
            ("int4[]", ScalarType::Integer, "'{1,2}'", "2"),
            ("float4[]", ScalarType::Float32, "'{0.1}'", "0.1"),
            ("float8[]", ScalarType::Float32, "'{1.5}'", "1.5"),
            ("timestamp[]", ScalarType::DateTime, "'{2026-01-01}'", "2026-01-01T00:00:00Z"),
        ]
        .into_iter()
        .enumerate()
        {
            let fields =
                vec![Field::new("id", FieldType::Integer), Field::new("list", FieldType::Array(element))];
            let name = test_db.table(&format!("arrays{number}"));
            let schema = Arc::new(Schema::new("things", &name, fields, 0, IdSource::Client));
            test_db
                .execute(&format!(
                    "CREATE TABLE {name} (id bigint PRIMARY KEY, list {made} NOT NULL);
                     INSERT INTO {name} VALUES (1, {given}), (2, '{{}}')"
                ))
                .await;
            assert_eq!(storage.check(&schema).await.unwrap(), [], "{made}");
            let mut query = Query::all(schema.clone());
            query.filter = Filter::Compare(1, Test::Has(element.parse(held).unwrap()));
            assert_eq!(fetch_ids(&storage, &query).await.0, [Value::Integer(1)], "{made}");
        }
    }
}

#[tokio::test]
async fn relations_work_across_collations() {
    for test_db in TestDatabase::all_durable("relations between collations") {
        prepare(&test_db).await;
        let storage = test_db.connect().await.storage();
        let insert = |schema: &Arc<Schema>, id: &str, code: &str| {
            let values = vec![Value::Text(id.to_owned()), Value::Text(code.to_owned())];
            Change { schema: schema.clone(), write: Write::Insert { values }, answer: None }
        };
        let ours = schema(&test_db, "ours", FieldType::Text);
        storage.create_table_if_missing(&ours).await.unwrap();
        assert_eq!(storage.check(&ours).await.unwrap(), []);
        let rows = (0..50).map(|number| insert(&ours, &format!("o{number}"), "a")).collect();
        storage.commit(ChangeSet::of(rows)).await.unwrap();
        for (number, made) in text_types(&test_db).iter().enumerate() {
            let theirs = schema(&test_db, &format!("theirs{number}"), FieldType::Text);
            let made = made.replace('#', &test_db.prefix);
            let table = &theirs.table;
            test_db
                .execute(&format!(
                    "CREATE TABLE {table} (id {made} PRIMARY KEY NOT NULL, code text NOT NULL)"
                ))
                .await;
            assert!(storage.check(&theirs).await.unwrap().iter().all(|one| one.is_warning), "{made}");
            storage
                .commit(ChangeSet::of(vec![insert(&theirs, "a", "x"), insert(&theirs, "b", "y")]))
                .await
                .unwrap();
            let link = |cardinality, local, target: &Arc<Schema>, remote| {
                Arc::new(Link { name: "link".to_owned(), cardinality, local, target: target.clone(), remote })
            };
            let (one, many) = (link(Cardinality::One, 1, &theirs, 0), link(Cardinality::Many, 0, &ours, 1));
            for (schema, link, expected) in [(&ours, one, 50), (&theirs, many, 1)] {
                let mut query = Query::all(schema.clone());
                query.limit = 100;
                query.filter = Filter::Related(RelatedBy(link.clone()), Box::new(Filter::everything()));
                query.includes =
                    vec![Include { link, fields: vec![0], filter: Filter::everything(), limit: 100 }];
                assert_eq!(fetch_ids(&storage, &query).await.0.len(), expected, "{made}");
            }
        }
    }
}
