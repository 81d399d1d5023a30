//! A database that takes no writes, as a standby after a failover or a file that is opened to read.

use resourceful::Sql;
use resourceful::testing::{TestApp, TestResponse};
use serde_json::json;

use crate::support::{TestStorage, builder, create, path, product};

fn assert_unavailable(response: &TestResponse) {
    assert_eq!((response.status(), response.header("retry-after")), (503, Some("1")), "{response}");
    assert_eq!(response.json()["code"], "unavailable", "{response}");
}

/// The same tables through two URLs: writes go by the first, and the second takes none.
async fn assert_serves_only_reads(writable: &TestStorage, read_only: &TestStorage) {
    let app = TestApp::build(builder(writable)).await.unwrap();
    let lamp = create(&app, "lamp", json!({})).await;
    assert_eq!(app.get("/readyz").await.status(), 200);
    let standby = TestApp::build(builder(read_only)).await.unwrap();
    for _ in 0..2 {
        assert_eq!(standby.get(&path(&lamp)).await.json(), lamp);
        assert_eq!(standby.get("/products").await.items().len(), 1);
        assert_unavailable(&standby.post("/products").json(product("chair", json!({}))).await);
        assert_unavailable(&standby.patch(&path(&lamp)).json(json!({"name": "other"})).await);
        assert_unavailable(&standby.delete(&path(&lamp)).await);
        let several = json!({"items": [product("a", json!({})), product("b", json!({}))]});
        assert_unavailable(&standby.post("/products/bulk").json(several).await);
        assert_unavailable(&standby.get("/readyz").await);
        assert_eq!(standby.get("/healthz").await.status(), 200);
    }
    assert_eq!(app.get(&path(&lamp)).await.json(), lamp);
}

#[tokio::test]
async fn read_only_sqlite_file_serves_reads_and_is_not_ready() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("shop.db").display());
    let writable = TestStorage::of("sqlite", &url).await;
    let read_only = TestStorage::of("sqlite", &format!("{url}?mode=ro")).await;
    assert_serves_only_reads(&writable, &read_only).await;
}

#[tokio::test]
async fn read_only_postgres_serves_reads_and_is_not_ready() {
    let Some(writable) = TestStorage::postgres().await else { return };
    let url = writable.url().unwrap();
    let url = format!("{url}&options=-c%20default_transaction_read_only%3Don");
    assert!(Sql::connect(&url).await.is_ok());
    assert_serves_only_reads(&writable, &TestStorage::of("postgres", &url).await).await;
}
