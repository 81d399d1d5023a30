//! Tests of the databases' query plans: a page costs the same wherever it is in the list.
#![cfg(test)]

use std::sync::Arc;

use resourceful_contract::{
    Change, ChangeSet, Field, FieldType, Filter, IdSource, Index, Position, Query, Schema, Sort,
    Storage as _, Test, Value, Write,
};
use sqlx::AssertSqlSafe;

use crate::column_overrides::Overrides;
use crate::dialect::Dialect;
use crate::select;
use crate::statement_shape::Shape;
use crate::storage::{Database, bind, unprepared_query};

const ID: usize = 0;
const KIND: usize = 1;
const SIZE: usize = 2;

fn schema(table: &str) -> Arc<Schema> {
    let fields = vec![
        Field::new("id", FieldType::Integer),
        Field::new("kind", FieldType::Text),
        Field::new("size", FieldType::Integer),
        Field::new("seen", FieldType::DateTime).nullable(),
    ];
    let mut schema = Schema::new("things", table, fields, ID, IdSource::Client);
    let index = |fields: &[usize]| Index { fields: fields.to_vec(), unique: false };
    schema.indexes = vec![index(&[SIZE]), index(&[KIND, SIZE]), index(&[3])];
    Arc::new(schema)
}

async fn fill<D: Dialect>(database: &Database<D>, schema: &Arc<Schema>) {
    database.create_table_if_missing(schema).await.unwrap();
    let values = |id: i64| {
        let seen = FieldType::DateTime.parse(&format!("2026-01-01T00:{:02}:00Z", id % 60)).unwrap();
        let kind = Value::Text(format!("k{}", id % 4));
        vec![Value::Integer(id), kind, Value::Integer(id % 500), if id % 3 == 0 { Value::Null } else { seen }]
    };
    let change =
        |id| Change { schema: schema.clone(), write: Write::Insert { values: values(id) }, answer: None };
    database.commit(ChangeSet::of((0..5_000).map(change).collect())).await.unwrap();
}

/// Pages before and after a cursor, ascending and descending, through one index or two columns of one.
fn pages(schema: &Arc<Schema>) -> Vec<Query> {
    let mut pages = Vec::new();
    for (filter, sort) in [
        (Filter::everything(), vec![ID]),
        (Filter::everything(), vec![SIZE, ID]),
        (Filter::Compare(KIND, Test::Eq(Value::Text("k1".to_owned()))), vec![SIZE, ID]),
        (Filter::everything(), vec![3, ID]),
    ] {
        for descending in [false, true] {
            for before in [false, true] {
                let cursor = sort.iter().map(|field| match *field {
                    3 => FieldType::DateTime.parse("2026-01-01T00:30:00Z").unwrap(),
                    _ => Value::Integer(250),
                });
                let cursor = cursor.collect();
                let mut query = Query::all(schema.clone());
                query.filter = filter.clone();
                query.sort = sort.iter().map(|field| Sort { field: *field, descending }).collect();
                query.position = if before { Position::Before(cursor) } else { Position::After(cursor) };
                query.limit = 20;
                pages.push(query);
            }
        }
    }
    pages
}

async fn explain<D: Dialect>(
    database: &Database<D>,
    query: &Query,
    explain_prefix: &str,
    column: usize,
) -> String {
    let shape = Shape::of(query);
    let plan = select::build_plan::<D>(query, &Overrides::default());
    let args = bind::<D>(&plan.arg_order, &shape.args).unwrap();
    let query = unprepared_query(AssertSqlSafe(format!("{explain_prefix} {}", plan.text)), args);
    let mut connection = database.reader().await.unwrap();
    let rows = D::rows(&mut connection, query).await.unwrap();
    let lines: Vec<_> = rows.iter().map(|row| D::text(row, column).unwrap().unwrap().to_owned()).collect();
    lines.join("\n")
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn sqlite_uses_index_for_every_page() {
    let options = crate::Sql::options("sqlite::memory:");
    let database = crate::sqlite::open(&options).await.unwrap();
    let schema = schema("things");
    fill(&database, &schema).await;
    for query in pages(&schema) {
        let found = explain(&database, &query, "EXPLAIN QUERY PLAN", 3).await;
        let (sort, position) = (&query.sort, &query.position);
        assert!(!found.contains("TEMP B-TREE"), "{sort:?} {position:?} is sorted by hand:\n{found}");
        // Nulls are outside of index ranges, so such a page begins at the start of its index.
        if sort[0].field != 3 {
            assert!(found.contains("SEARCH"), "{sort:?} {position:?} is not searched:\n{found}");
        }
    }
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn postgres_uses_index_for_every_page() {
    let required = std::env::var("RESOURCEFUL_TEST_REQUIRE").is_ok_and(|names| names.contains("postgres"));
    let Ok(url) = std::env::var("TEST_POSTGRES_URL") else {
        assert!(!required, "TEST_POSTGRES_URL must be set: this run requires PostgreSQL");
        println!("not run: plans on PostgreSQL, for want of TEST_POSTGRES_URL (tests/run sets it)");
        return;
    };
    let database = crate::postgres::open(&crate::Sql::options(&url)).await.unwrap();
    let schema = schema(&format!("e{}", &uuid::Uuid::now_v7().simple().to_string()[..12]));
    fill(&database, &schema).await;
    let mut connection = database.writer().await.unwrap();
    sqlx::query(AssertSqlSafe(format!("ANALYZE \"{}\"", schema.table)))
        .execute(&mut *connection)
        .await
        .unwrap();
    for query in pages(&schema) {
        let found = explain(&database, &query, "EXPLAIN", 0).await;
        let (sort, position) = (&query.sort, &query.position);
        let has_scan_or_sort =
            found.contains("Seq Scan") || found.lines().any(|line| line.contains("Sort  ("));
        assert!(!has_scan_or_sort, "{sort:?} {position:?} is not found by an index:\n{found}");
    }
}
