//! The status of what happened is not changed by what comes after it: content codings, deadlines, hooks, reads.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use futures::future::BoxFuture;
use resourceful::adapter::Table;
use resourceful::prelude::*;
use resourceful::resource::Next;
use resourceful::testing::TestApp;
use resourceful::{Change, Error, Hook, ResourceBuilder};
use serde_json::{Value as Json, json};

use crate::support::gated::Gated;
use crate::support::{EDITOR, READER, TestStorage, builder, create, product};

/// What accepts no coding at all, in the spellings of RFC 9110, 12.5.3.
const REFUSE_EVERY_CODING: [&str; 7] = [
    "identity;q=0",
    "*;q=0",
    "*;q=0.000",
    "identity;q=0, zstd",
    "gzip;q=0, br;q=0, identity;q=0",
    "gzip;q=0, *;q=0",
    "deflate, *;q=0",
];

async fn codings_app() -> TestApp {
    let own = Router::new().route(
        "/own",
        get(|| async { "own" })
            .post(|| async { (http::StatusCode::CREATED, "made") })
            .delete(|| async { http::StatusCode::NO_CONTENT }),
    );
    let events = define_dynamic_resource("messages", crate::policies::model(&["text"]))
        .adapter(Memory::new().table("messages"))
        .id_field("text")
        .permissions(Permissions::all(anyone()))
        .streams(true)
        .build()
        .unwrap();
    TestApp::build(builder(&TestStorage::memory()).resource(events).batch(5).merge(own).compression(true))
        .await
        .unwrap()
}

/// A method, a path, a body, headers, and the status of what happens.
type Case<'a> = (&'a str, &'a str, Option<Json>, &'a [(&'a str, &'a str)], u16);

/// Sends one request that refuses every coding.
async fn assert_status(app: &TestApp, accept: &str, (method, path, body, headers, status): Case<'_>) {
    let mut request = app.request(method, path).header("accept-encoding", accept);
    for (name, value) in headers {
        request = match *name {
            "authorization" => request.bearer(value),
            name => request.header(name, *value),
        };
    }
    let answer = match body {
        Some(body) => request.json(body).await,
        None => request.await,
    };
    assert_eq!(answer.status(), status, "{accept}: {method} {path}: {answer}");
    assert_eq!(answer.header("content-encoding"), None, "{accept}: {method} {path}");
    if status >= 400 && method != "HEAD" {
        assert_eq!(answer.json()["status"], status, "{accept}: {method} {path}");
    }
}

#[tokio::test]
async fn client_refusing_every_coding_gets_the_unchanged_status() {
    for accept in REFUSE_EVERY_CODING {
        let app = codings_app().await;
        let tag = create(&app, "first", json!({})).await;
        let path = format!("/products/{}", tag["id"].as_str().unwrap());
        let category = |code: &str| json!({"code": code, "title": "t"});
        let rename = json!({"name": "renamed"});
        let made = |code: &str| json!({"operations": [{"operation": "create", "resource": "categories", "body": category(code)}]});
        let cases: [Case<'_>; 31] = [
            ("POST", "/categories", Some(category("a")), &[], 201),
            ("POST", "/categories", Some(category("a")), &[], 409),
            ("POST", "/categories", Some(category("")), &[], 422),
            ("PUT", "/categories/b", Some(json!({"title": "t"})), &[], 201),
            ("PUT", "/categories/b", Some(json!({"title": "u"})), &[], 200),
            ("GET", "/categories", None, &[], 200),
            ("HEAD", "/categories", None, &[], 200),
            ("OPTIONS", "/categories", None, &[], 204),
            ("GET", "/categories/none", None, &[], 404),
            ("GET", "/none", None, &[], 404),
            ("PUT", "/categories", Some(json!({})), &[], 405),
            ("GET", "/categories?nope=1", None, &[], 400),
            ("QUERY", "/categories", Some(json!({})), &[], 200),
            ("POST", "/categories/query", Some(json!({})), &[], 200),
            ("POST", "/categories", Some(category("c")), &[("content-type", "text/plain")], 415),
            ("POST", "/categories/bulk", Some(json!({"items": [category("d")]})), &[], 201),
            ("DELETE", "/categories/bulk", Some(json!({"ids": ["d"]})), &[], 200),
            ("POST", "/batch", Some(made("e")), &[], 200),
            ("GET", &path, None, &[("if-none-match", "*")], 304),
            ("PATCH", &path, Some(rename.clone()), &[("if-match", "\"other\"")], 412),
            ("PATCH", &path, Some(rename.clone()), &[("if-match", "*")], 200),
            ("DELETE", &path, None, &[], 204),
            ("DELETE", &path, None, &[], 404),
            ("POST", "/notes", Some(json!({"text": "x"})), &[], 401),
            ("POST", "/notes", Some(json!({"text": "x"})), &[("authorization", READER)], 403),
            ("POST", "/notes", Some(json!({"text": "x"})), &[("authorization", EDITOR)], 201),
            ("PATCH", "/notes/1", Some(json!({"text": "y"})), &[("authorization", EDITOR)], 428),
            ("GET", "/own", None, &[], 200),
            ("POST", "/own", None, &[], 201),
            ("DELETE", "/own", None, &[], 204),
            ("GET", "/openapi.json", None, &[], 200),
        ];
        for case in cases {
            assert_status(&app, accept, case).await;
        }
        let page = app.get("/docs").header("accept-encoding", accept).await;
        let plain = app.get("/docs").await;
        assert_eq!((page.status(), page.bytes()), (plain.status(), plain.bytes()), "{accept}");
        let mut stream =
            app.get("/messages/stream").header("accept-encoding", accept).stream().await.unwrap();
        assert_eq!(stream.next().await.unwrap().name, "ready", "{accept}");
    }
}

#[tokio::test]
async fn cross_origin_client_refusing_every_coding_gets_the_unchanged_status() {
    let app = TestApp::build(builder(&TestStorage::memory()).compression(true)).await.unwrap();
    let asked = |path: &str| {
        app.post(path).header("origin", "https://shop.example").header("accept-encoding", "identity;q=0")
    };
    let made = asked("/products").json(product("lamp", json!({}))).await;
    assert_eq!(made.status(), 201, "{made}");
    assert_eq!(asked("/products").json(json!({})).await.status(), 422);
    assert_eq!(app.get("/products").await.items().len(), 1);
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
struct Account {
    code: String,
    points: i64,
}

fn accounts(table: Table) -> ResourceBuilder {
    define_resource::<Account>("accounts")
        .adapter(table)
        .id_field("code")
        .permissions(Permissions::all(anyone()))
        .preset(bulk())
}

fn account(code: &str) -> Json {
    json!({"code": code, "points": 1})
}

/// A hook that does not end once the change is made.
struct HangingHook;

impl Hook for HangingHook {
    fn around<'a>(&'a self, _: &'a Change, next: Next<'a>) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async {
            next.run().await?;
            std::future::pending().await
        })
    }
}

#[tokio::test]
async fn committed_change_is_answered_despite_hooks_past_the_deadline() {
    let after = |accounts: ResourceBuilder| {
        accounts.after([Operation::Create, Operation::Update, Operation::Delete], |_: Account, _| {
            std::future::pending()
        })
    };
    let around = |accounts: ResourceBuilder| accounts.hook(HangingHook);
    type Hooked = dyn Fn(ResourceBuilder) -> ResourceBuilder;
    for storage in TestStorage::all().await {
        for (name, hooked) in [("after", &after as &Hooked), ("around", &around as &Hooked)] {
            let table = storage.table(&format!("accounts_{name}"));
            let app = create_app(AppPreset::Testing).batch(5).deadline(Duration::from_millis(400));
            let app = app.resource(hooked(accounts(table)).build().unwrap());
            let app = TestApp::build(app).await.unwrap();
            let on = format!("{name} on {}", storage.name);
            let created = app.post("/accounts").json(account("a")).await;
            assert_eq!(
                (created.status(), created.json()["points"].clone()),
                (201, json!(1)),
                "{on}: {created}"
            );
            let patched = app.patch("/accounts/a").json(json!({"points": 2})).await;
            assert_eq!(
                (patched.status(), patched.json()["points"].clone()),
                (200, json!(2)),
                "{on}: {patched}"
            );
            let many = app.post("/accounts/bulk").json(json!({"items": [account("b"), account("c")]})).await;
            assert_eq!(many.status(), 201, "{on}: {many}");
            let batch = json!({"operations": [{"operation": "create", "resource": "accounts", "body": account("d")}]});
            let batch = app.post("/batch").json(batch).await;
            assert_eq!(
                (batch.status(), batch.json()["results"][0]["status"].clone()),
                (200, json!(201)),
                "{on}"
            );
            let deleted = app.delete("/accounts/a").await;
            assert_eq!(deleted.status(), 204, "{on}: {deleted}");
            assert_eq!(app.get("/accounts").await.items().len(), 3, "{on}");
        }
    }
}

#[tokio::test]
async fn committed_batch_is_answered_despite_a_failed_read() {
    let gated = Gated::over(TestStorage::memory().storage().clone(), "accounts");
    let failing = gated.clone();
    let table = Table::new(gated.clone() as Arc<dyn resourceful::adapter::Storage>, "accounts")
        .create_table_if_missing();
    let accounts = accounts(table)
        .after([Operation::Create], move |account: Account, _| {
            failing.set_failing(account.code == "b");
            std::future::ready(Ok(()))
        })
        .build()
        .unwrap();
    let app = TestApp::build(create_app(AppPreset::Testing).batch(5).resource(accounts)).await.unwrap();
    assert_eq!(app.post("/accounts").json(account("a")).await.status(), 201);
    let operations = json!({"operations": [
        {"operation": "create", "resource": "accounts", "body": account("b")},
        {"operation": "update", "resource": "accounts", "id": "a", "body": {"points": 1}},
    ]});
    let batch = app.post("/batch").json(operations).await;
    assert_eq!(batch.status(), 200, "{batch}");
    assert_eq!(batch.json()["results"][1]["body"], account("a"));
    gated.set_failing(false);
    assert_eq!(app.get("/accounts").await.items().len(), 2);
}
