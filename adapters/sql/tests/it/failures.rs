//! What stays whole when a caller goes away, a process is killed or a connection is lost.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;

use futures::FutureExt as _;
use resourceful_contract::{
    Change, ChangeSet, ErrorKind, Field, FieldType, IdSource, Index, Query, Schema, Storage, Value, Write,
};
use resourceful_sql::Sql;

use crate::support::TestDatabase;

/// How many rows a set of changes has here.
const BATCH_ROWS: i64 = 3;

fn schema(table: &str) -> Arc<Schema> {
    let fields = vec![Field::new("id", FieldType::Integer), Field::new("batch", FieldType::Integer)];
    let mut schema = Schema::new("rows", table, fields, 0, IdSource::Client);
    schema.indexes = vec![Index { fields: vec![1], unique: false }];
    Arc::new(schema)
}

/// One set of changes: some rows of one batch, each of which is answered, so that each is a statement of its own.
fn batch(schema: &Arc<Schema>, number: i64) -> ChangeSet {
    let changes = (0..BATCH_ROWS)
        .map(|row| Change {
            schema: schema.clone(),
            write: Write::Insert {
                values: vec![Value::Integer(number * BATCH_ROWS + row), Value::Integer(number)],
            },
            answer: Some(vec![0]),
        })
        .collect();
    ChangeSet::of(changes)
}

/// How many rows of each batch there are, by number.
async fn rows_by_batch(storage: &dyn Storage, schema: &Arc<Schema>) -> std::collections::BTreeMap<i64, i64> {
    let mut query = Query::all(schema.clone());
    query.limit = 1_000_000;
    query.keys = vec![1];
    let rows = storage.fetch(&query, &mut Vec::new()).await.unwrap();
    let mut batches = std::collections::BTreeMap::new();
    for key in rows.keys {
        let Value::Integer(number) = key[0] else { panic!("{key:?}") };
        *batches.entry(number).or_default() += 1;
    }
    batches
}

#[tokio::test]
async fn dropped_commit_is_atomic() {
    for test_db in TestDatabase::all_durable("dropped commits") {
        let storage = test_db.connect().await.storage();
        let schema = schema(&test_db.table("dropped"));
        storage.create_table_if_missing(&schema).await.unwrap();
        // Dropped after one poll, after two, and so on until it ends by itself.
        let mut whole = 0;
        for polls in 1.. {
            let mut commit = storage.commit(batch(&schema, polls));
            let mut left = polls;
            let cut = std::future::poll_fn(|context| {
                let outcome = commit.poll_unpin(context);
                left -= 1;
                if outcome.is_pending() && left == 0 {
                    std::task::Poll::Ready(None)
                } else {
                    outcome.map(Some)
                }
            });
            if let Some(outcome) = cut.await {
                outcome.unwrap();
                whole += 1;
            }
            drop(commit);
            // The connection that the dropped one had serves again, and shows no half.
            let found = rows_by_batch(&*storage, &schema).await;
            assert!(found.values().all(|rows| *rows == BATCH_ROWS), "{found:?}");
            if whole == 3 {
                break;
            }
        }
        storage.close().await.unwrap();
    }
}

#[tokio::test]
async fn write_after_dropped_commit_is_visible() {
    for test_db in TestDatabase::all_durable("writes after dropped commits") {
        let storage = Sql::options(&test_db.url).max_connections(1).connect().await.unwrap().storage();
        let schema = schema(&test_db.table("after_dropped"));
        storage.create_table_if_missing(&schema).await.unwrap();
        let other = test_db.connect().await.storage();
        for polls in 1..=30 {
            let mut commit = storage.commit(batch(&schema, polls));
            let mut left = polls;
            std::future::poll_fn(|context| {
                left -= 1;
                let is_done = commit.poll_unpin(context).is_ready() || left == 0;
                if is_done { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
            })
            .await;
            drop(commit);
            // One statement, which is a transaction of its own.
            let mut one = batch(&schema, 1_000 + polls);
            one.changes.truncate(1);
            storage.commit(one).await.unwrap();
            let found = rows_by_batch(&*other, &schema).await;
            assert_eq!(found.get(&(1_000 + polls)), Some(&1), "{}, after {polls} polls", test_db.url);
        }
    }
}

#[tokio::test]
async fn killed_process_loses_no_acknowledged_commit() {
    // The same test is the process that gets killed.
    if let (Ok(url), Ok(table)) = (std::env::var("VICTIM_URL"), std::env::var("VICTIM_TABLE")) {
        let storage = Sql::connect(&url).await.unwrap().storage();
        let schema = schema(&table);
        for number in 0.. {
            storage.commit(batch(&schema, number)).await.unwrap();
            println!("\nacknowledged {number}");
        }
    }
    for test_db in TestDatabase::all_durable("a killed process") {
        let schema = schema(&test_db.table("killed"));
        test_db.connect().await.storage().create_table_if_missing(&schema).await.unwrap();
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "failures::killed_process_loses_no_acknowledged_commit", "--nocapture"])
            .env("VICTIM_URL", &test_db.url)
            .env("VICTIM_TABLE", &schema.table)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut acknowledged = Vec::new();
        for line in BufReader::new(victim.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            let Some(number) = line.strip_prefix("acknowledged ") else { continue };
            acknowledged.push(number.parse::<i64>().unwrap());
            if acknowledged.len() == 25 {
                victim.kill().unwrap();
            }
        }
        victim.wait().unwrap();
        assert!(acknowledged.len() >= 25, "{acknowledged:?}");
        let storage = test_db.connect().await.storage();
        let found = rows_by_batch(&*storage, &schema).await;
        assert!(found.values().all(|rows| *rows == BATCH_ROWS), "{found:?}");
        let lost: Vec<_> = acknowledged.iter().filter(|number| !found.contains_key(number)).collect();
        assert!(lost.is_empty(), "{lost:?}");
        // And it goes on.
        storage.commit(batch(&schema, 1_000_000)).await.unwrap();
    }
}

#[tokio::test]
async fn concurrent_table_creation_succeeds() {
    for test_db in TestDatabase::all_durable("two nodes that start") {
        let nodes = [test_db.connect().await.storage(), test_db.connect().await.storage()];
        for round in 0..10 {
            let schema = schema(&test_db.table(&format!("at_once{round}")));
            let [one, other] = &nodes;
            let made =
                futures::join!(one.create_table_if_missing(&schema), other.create_table_if_missing(&schema));
            made.0.unwrap();
            made.1.unwrap();
            assert_eq!(one.check(&schema).await.unwrap(), []);
            other.commit(batch(&schema, 1)).await.unwrap();
            assert_eq!(rows_by_batch(&**one, &schema).await.len(), 1);
        }
    }
}

#[tokio::test]
async fn closed_storage_is_unavailable() {
    for test_db in TestDatabase::all_durable("closing") {
        let storage = test_db.connect().await.storage();
        let schema = schema(&test_db.table("closed"));
        storage.create_table_if_missing(&schema).await.unwrap();
        storage.commit(batch(&schema, 1)).await.unwrap();
        storage.ready().await.unwrap();
        storage.close().await.unwrap();
        let refused = storage.ready().await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused}");
        let refused = storage.commit(batch(&schema, 2)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused}");
        let again = test_db.connect().await.storage();
        assert_eq!(rows_by_batch(&*again, &schema).await.len(), 1);
    }
}

#[test]
fn storage_can_outlive_runtime() {
    for test_db in TestDatabase::all_durable("a database without a runtime") {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let storage = runtime.block_on(async {
            let storage = test_db.connect().await.storage();
            storage.ready().await.unwrap();
            storage
        });
        drop(runtime);
        drop(storage);
    }
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn terminated_connections_are_replaced() {
    let Some(test_db) = TestDatabase::postgres("lost connections") else { return };
    let (url, name) = (test_db.tagged_url(), test_db.prefix.clone());
    let storage = Sql::connect(&url).await.unwrap().storage();
    let schema = schema(&test_db.table("lost"));
    storage.create_table_if_missing(&schema).await.unwrap();
    let connect = || <sqlx::PgConnection as sqlx::Connection>::connect(&test_db.url);
    let (mut admin, mut watch) = (connect().await.unwrap(), connect().await.unwrap());
    // Several connections at hand: all of them wait for one lock before any goes on.
    let run = async |admin: &mut sqlx::PgConnection, statement: String| {
        sqlx::Executor::execute(admin, sqlx::AssertSqlSafe(statement)).await.unwrap();
    };
    run(&mut admin, format!("BEGIN; LOCK TABLE \"{}\" IN EXCLUSIVE MODE", schema.table)).await;
    let busy = futures::future::try_join_all((0..8).map(|number| storage.commit(batch(&schema, number))));
    let release = async {
        let waiting =
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1 AND wait_event_type = 'Lock'";
        let mut several = 0_i64;
        while several < 4 {
            several = sqlx::query_scalar(waiting).bind(&name).fetch_one(&mut watch).await.unwrap();
        }
        run(&mut admin, "COMMIT".to_owned()).await;
    };
    futures::join!(async { busy.await.unwrap() }, release);
    let ended: i64 = sqlx::query_scalar(
        "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE application_name = $1",
    )
    .bind(&name)
    .fetch_one(&mut admin)
    .await
    .unwrap();
    assert!(ended >= 4, "{ended}");
    // A transaction that could not begin begins on another connection, and no caller sees that one was lost.
    for number in 100..100 + ended * 2 {
        storage.commit(batch(&schema, number)).await.unwrap();
        assert_eq!(rows_by_batch(&*storage, &schema).await.get(&number), Some(&BATCH_ROWS));
    }
    assert!(rows_by_batch(&*storage, &schema).await.values().all(|rows| *rows == BATCH_ROWS));
}
