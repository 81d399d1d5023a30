//! Queries that may take long: their limit, their share of the connections, and their end.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::{Either, select};
use futures::stream::FuturesUnordered;
use resourceful_contract::{
    ErrorKind, Field, FieldType, Filter, IdSource, Migration, Query, Schema, Storage, Test,
};
use resourceful_sql::{Sql, SqlOptions};

use crate::support::TestDatabase;

/// More than any pool here has connections.
const QUERY_COUNT: usize = 12;

/// A view that no query reads to its end, and a table of one row.
struct Tables {
    storage: Arc<dyn Storage>,
    endless: Arc<Schema>,
    short: Arc<Schema>,
}

async fn tables(test_db: &TestDatabase, options: SqlOptions) -> Tables {
    let storage = options.connect().await.unwrap().storage();
    let schema = |name: &str| {
        let fields = vec![Field::new("id", FieldType::Integer), Field::new("text", FieldType::Text)];
        Arc::new(Schema::new(name, &test_db.table(name), fields, 0, IdSource::Client))
    };
    let (endless, short) = (schema("endless"), schema("short"));
    let rows = match storage.name() {
        "sqlite" => {
            "WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n) SELECT id, 'x' || id AS text FROM n"
        }
        _ => "SELECT id, 'x' || pg_sleep(0.05)::text AS text FROM generate_series(1, 100000) AS id",
    };
    let made = format!(
        "CREATE VIEW {} AS {rows}; CREATE TABLE {table} (id bigint PRIMARY KEY, text text NOT NULL); \
         INSERT INTO {table} VALUES (1, 'a word')",
        endless.table,
        table = short.table
    );
    storage.migrate(&[Migration::new(&test_db.prefix, 1, "tables", made)], true).await.unwrap();
    Tables { storage, endless, short }
}

/// A search in texts, which no index leads to.
fn search(schema: &Arc<Schema>, part: &str) -> Query {
    Query { filter: Filter::Compare(1, Test::Contains(part.to_owned())), ..Query::all(schema.clone()) }
}

async fn count_rows(tables: &Tables, query: &Query) -> usize {
    tables.storage.fetch(query, &mut Vec::new()).await.unwrap().len
}

#[tokio::test]
async fn heavy_query_has_its_own_timeout() {
    for test_db in TestDatabase::all_durable("the limit of heavy queries") {
        let options = Sql::options(&test_db.url).heavy_query_timeout(Duration::from_secs(1));
        let tables = tables(&test_db, options.max_connections(2)).await;
        // One more than there are connections, none of which is lost.
        for _ in 0..3 {
            let late = tables.storage.fetch(&search(&tables.endless, "zzzz"), &mut Vec::new()).await;
            let late = late.unwrap_err();
            assert_eq!(late.kind(), ErrorKind::TimedOut, "{late}");
            assert_eq!(count_rows(&tables, &search(&tables.short, "word")).await, 1);
        }
    }
}

#[tokio::test]
async fn heavy_queries_leave_connections_and_are_cancelled_on_drop() {
    for test_db in TestDatabase::all_durable("the share of heavy queries") {
        let day = Duration::from_secs(86_400);
        let options = Sql::options(&test_db.tagged_url()).heavy_query_timeout(day).statement_timeout(day);
        let tables =
            tables(&test_db, options.max_connections(4).acquire_timeout(Duration::from_secs(20))).await;
        let endless = search(&tables.endless, "zzzz");
        let heavy: FuturesUnordered<_> = (0..QUERY_COUNT)
            .map(|_| async { tables.storage.fetch(&endless, &mut Vec::new()).await.map(|_| ()) })
            .collect();
        let light = Box::pin(async {
            for _ in 0..20 {
                assert_eq!(count_rows(&tables, &Query::all(tables.short.clone())).await, 1);
            }
        });
        // The heavy ones are polled first, so that they have their connections before the others ask for any.
        match select(heavy.into_future(), light).await {
            Either::Left((ended, _)) => panic!("{:?}", ended.0),
            Either::Right(((), heavy)) => drop(heavy),
        }
        // Their share of the connections is free, and the server works for none of them any more.
        let short = search(&tables.short, "word");
        let searches = (0..QUERY_COUNT).map(|_| count_rows(&tables, &short));
        assert_eq!(futures::future::join_all(searches).await, [1; QUERY_COUNT]);
        #[cfg(feature = "postgres")]
        if test_db.url.starts_with("postgres") {
            wait_until_idle(&test_db).await;
        }
    }
}

/// Done when the server runs no statement of this test.
#[cfg(feature = "postgres")]
async fn wait_until_idle(test_db: &TestDatabase) {
    let mut admin = <sqlx::PgConnection as sqlx::Connection>::connect(&test_db.url).await.unwrap();
    let running = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1 AND state = 'active'";
    loop {
        let left: i64 =
            sqlx::query_scalar(running).bind(&test_db.prefix).fetch_one(&mut admin).await.unwrap();
        if left == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
