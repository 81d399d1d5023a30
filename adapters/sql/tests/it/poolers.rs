//! PostgreSQL behind PgBouncer, as people run it. RESOURCEFUL_TEST_REQUESTS raises the number of mixed requests.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use resourceful_contract::{
    Change, ChangeSet, ErrorKind, Field, FieldType, Guard, IdSource, NotificationStream, Query, ScalarType,
    Schema, Storage, Value, Write, conformance,
};
use resourceful_sql::{PoolMode, Sql};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Executor as _};

use crate::pgbouncer::{Config, PgBouncer, SESSION, TRANSACTION};
use crate::support::TestDatabase;

/// A pooler that drops startup options without a word.
const SESSION_IGNORING: Config<'_> =
    Config { pool_mode: "session", extra_lines: "ignore_startup_parameters = extra_float_digits,options" };
const TRANSACTION_IGNORING: Config<'_> = Config {
    pool_mode: "transaction",
    extra_lines: "ignore_startup_parameters = extra_float_digits,options",
};
/// A pooler that gives out its server connections in turn.
const ROUND_ROBIN: Config<'_> = Config { pool_mode: "transaction", extra_lines: "server_round_robin = 1" };

/// PostgreSQL with a pooler in front of it.
async fn start_pooler(what: &str, config: &Config<'_>) -> Option<(TestDatabase, PgBouncer, TestDatabase)> {
    let direct = TestDatabase::postgres(what)?;
    let bouncer = PgBouncer::start(what, &direct, config).await?;
    let pooled = bouncer.pooled_database(&direct);
    Some((direct, bouncer, pooled))
}

fn notes(table: &str) -> Arc<Schema> {
    let fields = vec![Field::new("id", FieldType::Integer), Field::new("text", FieldType::Text)];
    Arc::new(Schema::new("notes", table, fields, 0, IdSource::Client))
}

fn note(schema: &Arc<Schema>, id: i64, text: &str) -> Change {
    let values = vec![Value::Integer(id), Value::Text(text.to_owned())];
    Change { schema: schema.clone(), write: Write::Insert { values }, answer: Some(vec![0]) }
}

async fn fetch_texts(storage: &dyn Storage, schema: &Arc<Schema>) -> String {
    let mut out = Vec::new();
    let query = Query { fields: vec![1], ..Query::all(schema.clone()) };
    storage.fetch(&query, &mut out).await.unwrap();
    String::from_utf8(out).unwrap().replace(r#"{"text":""#, "").replace("\"}", "")
}

/// A view whose one row shows an expression as the session of a statement sees it.
async fn session_view(direct: &TestDatabase, name: &str, expression: &str) -> Arc<Schema> {
    let view = direct.table(name);
    direct
        .execute(&format!("CREATE VIEW \"{view}\" AS SELECT 1::bigint AS id, ({expression})::text AS text"))
        .await;
    notes(&view)
}

async fn assert_conformance(what: &str, config: &Config<'_>) {
    let Some((_direct, _bouncer, pooled)) = start_pooler(what, config).await else { return };
    let report = conformance::run(pooled.connect().await.storage(), &pooled.prefix).await;
    report.assert_passed();
}

#[tokio::test]
async fn transaction_pooler_passes_conformance_suite() {
    assert_conformance("the suite through a pooler in transaction mode", &TRANSACTION).await;
}

#[tokio::test]
async fn session_pooler_passes_conformance_suite() {
    assert_conformance("the suite through a pooler in session mode", &SESSION).await;
}

/// Reads, single writes, sets of changes and refused ones, of many callers at once over few server connections, beside
/// another client that has statements of its own.
async fn assert_mixed_requests(what: &str, config: &Config<'_>) {
    let Some((direct, _bouncer, pooled)) = start_pooler(what, config).await else { return };
    let requests = std::env::var("RESOURCEFUL_TEST_REQUESTS").map_or(600, |count| count.parse().unwrap());
    let schema = notes(&direct.table("mixed"));
    direct.connect().await.storage().create_table_if_missing(&schema).await.unwrap();
    let nodes = [pooled.connect().await.storage(), pooled.connect().await.storage()];
    let callers = 24;
    let each = requests / callers;
    let call = async |caller: i64| {
        let storage = &nodes[usize::try_from(caller).unwrap() % nodes.len()];
        for number in 0..each {
            let id = caller * 1_000_000 + number;
            match number % 5 {
                0 => drop(storage.commit(ChangeSet::one(note(&schema, id, "a"))).await.unwrap()),
                1 => {
                    let one = Query::one(schema.clone(), Value::Integer(id - 1));
                    assert_eq!(storage.fetch(&one, &mut Vec::new()).await.unwrap().len, 1);
                }
                2 => {
                    let set = vec![(1, Value::Text("b".to_owned()))];
                    let write = Write::Update { id: Value::Integer(id - 2), set, guard: Guard::none() };
                    let update = Change { schema: schema.clone(), write, answer: Some(vec![0, 1]) };
                    let both = vec![update, note(&schema, id, "c")];
                    assert_eq!(storage.commit(ChangeSet::of(both)).await.unwrap().rows.len(), 2);
                }
                3 => {
                    let again =
                        storage.commit(ChangeSet::one(note(&schema, id - 1, "again"))).await.unwrap_err();
                    assert_eq!(again.kind(), ErrorKind::UniqueViolation, "{again}");
                }
                _ => {
                    let query = Query { limit: 5, ..Query::all(schema.clone()) };
                    assert!(storage.fetch(&query, &mut Vec::new()).await.unwrap().len > 1);
                }
            }
        }
    };
    let is_pooled = config.pool_mode == "transaction";
    let mode_detection = async {
        // What the pooler does is found out beside other clients as well.
        for _ in 0..if is_pooled { 10 } else { 0 } {
            let refused = Sql::connect(&format!("{}?pool_mode=session", pooled.url)).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Unsupported, "{refused}");
        }
    };
    futures::join!(join_all((0..callers).map(call)), mode_detection);
    let count = each / 5 * 2 + i64::from(each % 5 > 0) + i64::from(each % 5 > 2);
    let query = Query { limit: 1_000_000, ..Query::all(schema.clone()) };
    let found = nodes[0].fetch(&query, &mut Vec::new()).await.unwrap().len;
    assert_eq!(i64::try_from(found).unwrap(), count * callers);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mixed_requests_succeed_through_a_pooler_in_transaction_mode() {
    assert_mixed_requests("mixed requests in transaction mode", &TRANSACTION).await;
    assert_mixed_requests("mixed requests over connections given out in turn", &ROUND_ROBIN).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mixed_requests_succeed_through_a_pooler_in_session_mode() {
    assert_mixed_requests("mixed requests in session mode", &SESSION).await;
}

#[tokio::test]
async fn pooler_with_one_server_connection_suffices() {
    for pool_mode in ["transaction", "session"] {
        let config = Config { pool_mode, extra_lines: "max_db_connections = 1" };
        let Some((direct, _bouncer, pooled)) = start_pooler("a small pooler", &config).await else { return };
        let storage = Sql::options(&pooled.url).max_connections(1).connect().await.unwrap().storage();
        let schema = notes(&direct.table("small"));
        storage.create_table_if_missing(&schema).await.unwrap();
        let changes = (0..20).map(|id| storage.commit(ChangeSet::one(note(&schema, id, "a"))));
        for outcome in join_all(changes).await {
            outcome.unwrap();
        }
        assert_eq!(fetch_texts(&*storage, &schema).await.len(), 39);
    }
}

#[tokio::test]
async fn mode_of_busy_pooler_is_never_misdetected() {
    let config = Config { pool_mode: "transaction", extra_lines: "max_db_connections = 1" };
    let Some((_direct, _bouncer, pooled)) = start_pooler("a busy pooler", &config).await else { return };
    let options: PgConnectOptions = pooled.url.parse().unwrap();
    let mut busy = options.extra_float_digits(None).connect().await.unwrap();
    busy.execute("BEGIN").await.unwrap();
    for mode in ["", "?pool_mode=transaction"] {
        let options = Sql::options(&format!("{}{mode}", pooled.url)).acquire_timeout(Duration::from_secs(1));
        let refused = options.connect().await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused}");
        assert!(refused.help().unwrap().contains("default_pool_size"), "{refused}");
    }
    busy.execute("COMMIT").await.unwrap();
    let refused = Sql::connect(&format!("{}?pool_mode=session", pooled.url)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported, "{refused}");
    pooled.connect().await.storage().ready().await.unwrap();
}

#[tokio::test]
async fn rejected_field_is_named_behind_pooler() {
    let Some((direct, _bouncer, pooled)) = start_pooler("refusals behind a pooler", &TRANSACTION).await
    else {
        return;
    };
    let table = direct.table("checked");
    direct
        .execute(&format!(
            "CREATE TABLE \"{table}\" (id bigint PRIMARY KEY, text varchar(9) NOT NULL CHECK (text <> 'bad'))"
        ))
        .await;
    let schema = notes(&table);
    let storage = pooled.connect().await.storage();
    let refused = (0..40).map(|id| {
        let text = if id % 2 == 0 { "bad" } else { "longer than it may be" };
        storage.commit(ChangeSet::one(note(&schema, id, text)))
    });
    for refused in join_all(refused).await {
        let refused = refused.unwrap_err();
        assert_eq!(
            (refused.kind(), refused.fields()),
            (ErrorKind::Rejected, &["text".to_owned()][..]),
            "{refused}"
        );
    }
}

#[tokio::test]
async fn extension_types_work_behind_pooler() {
    let Some((direct, _bouncer, pooled)) =
        start_pooler("types of extensions behind a pooler", &TRANSACTION).await
    else {
        return;
    };
    let (folded, listed) = (direct.table("folded"), direct.table("listed"));
    direct
        .execute(&format!(
            "SELECT pg_advisory_xact_lock(7071); CREATE EXTENSION IF NOT EXISTS citext; \
             CREATE TABLE \"{folded}\" (id bigint PRIMARY KEY, text citext NOT NULL); \
             CREATE TABLE \"{listed}\" (id bigint PRIMARY KEY, text citext[] NOT NULL)"
        ))
        .await;
    let folded = notes(&folded);
    let of_list =
        vec![Field::new("id", FieldType::Integer), Field::new("text", FieldType::Array(ScalarType::Text))];
    let listed = Arc::new(Schema::new("lists", &listed, of_list, 0, IdSource::Client));
    let options = Sql::options(&pooled.url).max_connections(3);
    let storage = options.connect().await.unwrap().storage();
    for schema in [&folded, &listed] {
        assert_eq!(storage.check(schema).await.unwrap(), []);
    }
    let changes = (0..9).map(|id| {
        let list = Value::Array(vec![Value::Text("A".to_owned())]);
        let write = Write::Insert { values: vec![Value::Integer(id), list] };
        let one = Change { answer: Some(vec![0, 1]), ..note(&folded, id, "A") };
        let other = Change { schema: listed.clone(), write, answer: Some(vec![0, 1]) };
        storage.commit(ChangeSet::of(vec![one, other]))
    });
    for changed in join_all(changes).await {
        changed.unwrap();
    }
    assert_eq!(fetch_texts(&*storage, &folded).await.replace(',', ""), "A".repeat(9));
    assert_eq!(storage.fetch(&Query::all(listed), &mut Vec::new()).await.unwrap().len, 9);
}

#[tokio::test]
async fn settings_apply_on_every_route() {
    let what = "settings through a pooler";
    let Some(direct) = TestDatabase::postgres(what) else { return };
    let settings = "concat_ws(' ', current_setting('statement_timeout'), current_setting('TimeZone'), \
                    current_setting('lock_timeout'), current_setting('client_connection_check_interval'), \
                    current_setting('transaction_isolation'))";
    let schema = session_view(&direct, "settings", settings).await;
    let mut databases = vec![(direct.with_url(&direct.url), None)];
    for config in [SESSION, SESSION_IGNORING, TRANSACTION, TRANSACTION_IGNORING] {
        let Some(bouncer) = PgBouncer::start(what, &direct, &config).await else { return };
        databases.push((bouncer.pooled_database(&direct), Some(bouncer)));
    }
    for (way, _bouncer) in &databases {
        let url = format!(
            "{}?options=-c%20lock_timeout%3D7s%20-c%20default_transaction_isolation%3Dserializable",
            way.url
        );
        let storage = Sql::options(&url).statement_timeout(Duration::from_secs(4)).connect().await.unwrap();
        let storage = storage.storage();
        let found = join_all((0..8).map(|_| fetch_texts(&*storage, &schema))).await;
        for found in found {
            assert_eq!(found, "4s UTC 7s 500ms serializable", "{}", way.url);
        }
    }
}

#[tokio::test]
async fn statement_timeout_applies_through_poolers() {
    let what = "slow statements through a pooler";
    for config in [SESSION_IGNORING, TRANSACTION] {
        let Some((direct, _bouncer, pooled)) = start_pooler(what, &config).await else { return };
        let schema =
            session_view(&direct, "slow", "SELECT count(*) FROM generate_series(1, 1000000000)").await;
        let options =
            Sql::options(&pooled.url).statement_timeout(Duration::from_millis(50)).max_connections(1);
        let storage = options.connect().await.unwrap().storage();
        let query = Query::all(schema);
        for _ in 0..3 {
            let ended = storage.fetch(&query, &mut Vec::new()).await.unwrap_err();
            assert_eq!(ended.kind(), ErrorKind::TimedOut, "{ended}");
            storage.ready().await.unwrap();
        }
    }
}

#[tokio::test]
async fn dropped_commit_leaves_no_open_transaction_behind_pooler() {
    let Some((direct, _bouncer, pooled)) =
        start_pooler("callers that go away behind a pooler", &TRANSACTION).await
    else {
        return;
    };
    let schema = notes(&direct.table("dropped"));
    let storage = Sql::options(&pooled.url).max_connections(2).connect().await.unwrap().storage();
    storage.create_table_if_missing(&schema).await.unwrap();
    for polls in 1..=40 {
        let mut commit = storage.commit(ChangeSet::one(note(&schema, polls, "a")));
        let mut read = Box::pin(fetch_texts(&*storage, &schema));
        let mut left = polls;
        std::future::poll_fn(|context| {
            let write = commit.as_mut().poll(context).is_ready();
            let read = !write && read.as_mut().poll(context).is_ready();
            left -= 1;
            if write || read || left == 0 { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
        drop((commit, read));
        // What is acknowledged next is there for everyone.
        storage.commit(ChangeSet::one(note(&schema, 1_000 + polls, "b"))).await.unwrap();
        let other = direct.connect().await.storage();
        let one = Query::one(schema.clone(), Value::Integer(1_000 + polls));
        assert_eq!(other.fetch(&one, &mut Vec::new()).await.unwrap().len, 1, "after {polls} polls");
        other.close().await.unwrap();
    }
}

#[tokio::test]
async fn pool_mode_in_url_is_verified() {
    let what = "a URL that names its pooler";
    for config in [TRANSACTION, TRANSACTION_IGNORING, ROUND_ROBIN] {
        let Some((direct, _bouncer, pooled)) = start_pooler(what, &config).await else { return };
        let refused = Sql::connect(&format!("{}?pool_mode=session", pooled.url)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unsupported, "{refused}");
        assert!(refused.help().unwrap().contains("pool_mode=transaction"), "{refused}");
        for said in ["pool_mode=transaction", "pgbouncer=true"] {
            let said = Sql::connect(&format!("{}?{said}", pooled.url)).await.unwrap().storage();
            said.ready().await.unwrap();
        }
        let around = Sql::options(&direct.url).direct_url(&pooled.url).connect().await.unwrap_err();
        assert!(around.to_string().contains("direct_url"), "{around}");
    }
    let by_statement = Config { pool_mode: "statement", extra_lines: "" };
    let Some((_direct, _bouncer, pooled)) = start_pooler(what, &by_statement).await else { return };
    let refused = Sql::connect(&pooled.url).await.unwrap_err();
    assert!(refused.help().unwrap().contains("pool_mode = transaction"), "{refused:?}");
}

#[tokio::test]
async fn transaction_mode_works_without_pooler() {
    let Some(direct) = TestDatabase::postgres("transaction mode without a pooler") else { return };
    let storage =
        Sql::options(&direct.url).pool_mode(PoolMode::Transaction).connect().await.unwrap().storage();
    let schema = notes(&direct.table("alone"));
    storage.create_table_if_missing(&schema).await.unwrap();
    storage.commit(ChangeSet::one(note(&schema, 1, "a"))).await.unwrap();
    assert_eq!(fetch_texts(&*storage, &schema).await, "a");
}

#[tokio::test]
async fn notifications_bypass_transaction_pooler() {
    let what = "notifications behind a pooler";
    let Some((direct, _bouncer, pooled)) = start_pooler(what, &TRANSACTION).await else { return };
    let alone = pooled.connect().await.storage();
    // There is no session to listen in: it is time to look at intervals, whether or not anything was rung.
    let mut polling = alone.listen("news").await.unwrap().unwrap();
    for _ in 0..2 {
        polling.notified().await.unwrap();
    }
    let around = Sql::options(&pooled.url).direct_url(&direct.url).connect().await.unwrap().storage();
    let (server, _) = direct.url.rsplit_once('/').unwrap();
    let elsewhere = Sql::options(&pooled.url).direct_url(format!("{server}/template1"));
    let elsewhere = elsewhere.acquire_timeout(Duration::from_secs(1)).connect().await.unwrap_err();
    assert!(elsewhere.to_string().contains("another database"), "{elsewhere}");
    let bell = direct.table("bell");
    let mut notifications: Box<dyn NotificationStream> = around.listen(&bell).await.unwrap().unwrap();
    alone.notify(&bell).await.unwrap();
    notifications.notified().await.unwrap();
    let Some((_direct, _bouncer, pooled)) = start_session_pooler(what).await else { return };
    let storage = pooled.connect().await.storage();
    let mut notifications = storage.listen(&bell).await.unwrap().unwrap();
    storage.notify(&bell).await.unwrap();
    notifications.notified().await.unwrap();
}

async fn start_session_pooler(what: &str) -> Option<(TestDatabase, PgBouncer, TestDatabase)> {
    start_pooler(what, &SESSION).await
}

#[tokio::test]
async fn statements_stay_prepared_unless_disabled_in_url() {
    let Some(direct) = TestDatabase::postgres("prepared statements") else { return };
    let schema = session_view(&direct, "prepared", "SELECT count(*) FROM pg_prepared_statements").await;
    for (said, kept) in
        [("", "1"), ("?statement-cache-capacity=0", "0"), ("?statement-cache-capacity=3", "1")]
    {
        let options = Sql::options(&format!("{}{said}", direct.url)).max_connections(1);
        let storage = options.connect().await.unwrap().storage();
        assert_eq!(fetch_texts(&*storage, &schema).await, kept, "{said}");
        assert_eq!(fetch_texts(&*storage, &schema).await, kept, "{said}");
    }
}
