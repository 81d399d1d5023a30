//! Changes by filter, and what others change meanwhile.

use std::sync::Arc;

use resourceful::ResourceBuilder;
use resourceful::adapter::{Storage, Table};
use resourceful::prelude::*;
use resourceful::testing::{TestApp, TestResponse};
use serde_json::{Value as Json, json};

use crate::support::TestStorage;
use crate::support::gated::Gated;

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
struct Part {
    id: i64,
    state: String,
    stock: i64,
}

fn parts(table: Table, has_version: bool) -> ResourceBuilder {
    let parts = define_resource::<Part>("parts")
        .adapter(table.create_table_if_missing())
        .permissions(Permissions::all(anyone()))
        .preset(bulk().max_affected(20))
        .preset(idempotency())
        .index(["state"]);
    if has_version { parts.version("version") } else { parts }
}

async fn app_of(resource: ResourceBuilder) -> TestApp {
    let tokens = BearerTokens::new().token("ada", Actor::user("ada"));
    let app = create_app(AppPreset::Testing).authenticator(tokens).resource(resource.build().unwrap());
    TestApp::build(app).await.unwrap()
}

/// Two nodes of one application, of which the first can be held up where it has read rows.
async fn nodes(place: &TestStorage, has_version: bool) -> (TestApp, Arc<Gated>, TestApp) {
    let gated = Gated::over(place.storage().clone(), "parts");
    let storage: Arc<dyn Storage> = gated.clone();
    let held = app_of(parts(Table::new(storage, "parts"), has_version)).await;
    let other = app_of(parts(place.table("parts"), has_version)).await;
    let items: Vec<_> = (0..3).map(|stock| json!({"state": "old", "stock": stock})).collect();
    let created = other.post("/parts/bulk").json(json!({"items": items})).await;
    assert_eq!(created.status(), 201, "{created}");
    (held, gated, other)
}

/// Sends a change by filter, and takes part 2 out of what the filter means when the change has found its items.
async fn race_change_by_filter(
    held: &TestApp,
    gated: &Gated,
    other: &TestApp,
    method: &str,
    query: &str,
) -> TestResponse {
    let mut body = json!({"filter": {"state": "old"}, "max_affected": 10});
    if method == "PATCH" {
        body["patch"] = json!({"stock": 100});
    }
    gated.hold_reads();
    let request = held.request(method, &format!("/parts/bulk{query}")).json(body);
    let change = tokio::spawn(async move { request.await });
    gated.wait_until_held(1).await;
    let updated = other.patch("/parts/2").json(json!({"state": "new", "stock": 7})).await;
    assert_eq!(updated.status(), 200, "{updated}");
    gated.release_reads();
    change.await.unwrap()
}

async fn rows(app: &TestApp) -> Vec<Json> {
    app.get("/parts?fields=id,state,stock").await.items()
}

#[tokio::test]
async fn change_by_filter_skips_items_that_no_longer_match() {
    for has_version in [true, false] {
        for place in TestStorage::all().await {
            let (held, gated, other) = nodes(&place, has_version).await;
            let answer = race_change_by_filter(&held, &gated, &other, "PATCH", "").await;
            assert_eq!(
                (answer.status(), answer.json()["items"].as_array().unwrap().len()),
                (200, 2),
                "{answer}"
            );
            let expected = [
                json!({"id": 1, "state": "old", "stock": 100}),
                json!({"id": 2, "state": "new", "stock": 7}),
                json!({"id": 3, "state": "old", "stock": 100}),
            ];
            assert_eq!(rows(&other).await, expected, "{} {has_version}", place.name);
            assert_eq!(other.patch("/parts/2").json(json!({"state": "old"})).await.status(), 200);
            let answer = race_change_by_filter(&held, &gated, &other, "DELETE", "").await;
            assert_eq!((answer.status(), answer.json()), (200, json!({"affected": 2})), "{answer}");
            assert_eq!(rows(&other).await, [json!({"id": 2, "state": "new", "stock": 7})], "{}", place.name);
        }
    }
}

#[tokio::test]
async fn partial_mode_reports_409_for_items_that_no_longer_match() {
    for (method, done) in [("PATCH", 200), ("DELETE", 204)] {
        for place in TestStorage::all().await {
            let (held, gated, other) = nodes(&place, true).await;
            let answer = race_change_by_filter(&held, &gated, &other, method, "?mode=partial").await;
            assert_eq!(answer.status(), 207, "{answer}");
            let results = answer.json()["results"].as_array().unwrap().clone();
            let statuses: Vec<_> = results.iter().map(|result| result["status"].as_u64().unwrap()).collect();
            assert_eq!(statuses, [done, 409, done], "{}: {answer}", place.name);
            assert_eq!(results[1]["problem"]["code"], "no-longer-matching", "{answer}");
            let left = rows(&other).await;
            assert!(left.contains(&json!({"id": 2, "state": "new", "stock": 7})), "{}: {left:?}", place.name);
        }
    }
}

#[tokio::test]
async fn idempotency_key_covers_the_whole_partial_bulk_request() {
    for place in TestStorage::all().await {
        let app = app_of(parts(place.table("parts"), true)).await;
        let items: Vec<_> = (0..3).map(|stock| json!({"state": "old", "stock": stock})).collect();
        assert_eq!(app.post("/parts/bulk").json(json!({"items": items})).await.status(), 201);
        let send = async |key: &str, items: Json| {
            let request = app.patch("/parts/bulk?mode=partial").bearer("ada").header("idempotency-key", key);
            request.json(json!({"items": items})).await
        };
        // One item twice: of the second change the first would be the answer.
        let twice = send("k1", json!([{"id": 1, "stock": 5}, {"id": 1, "stock": 6}])).await;
        assert_eq!(twice.status(), 422, "{}: {twice}", place.name);
        assert_eq!(twice.json()["errors"][0]["pointer"], "/items/1", "{twice}");
        let ids = app.delete("/parts/bulk?mode=partial").json(json!({"ids": [1, 2, 1]})).await;
        assert_eq!(
            (ids.status(), ids.json()["errors"][0]["pointer"].clone()),
            (422, json!("/ids/2")),
            "{ids}"
        );
        assert_eq!(rows(&app).await[0]["stock"], 0, "{}", place.name);

        let first = send("k2", json!([{"id": 1, "stock": 5}, {"id": 99, "stock": 5}])).await;
        assert_eq!(first.status(), 207, "{first}");
        // Another request under the key is refused as a whole, whichever items it names.
        for other in
            [json!([{"id": 2, "stock": 9}]), json!([{"id": 1, "stock": 9}]), json!([{"id": 99, "stock": 9}])]
        {
            let refused = send("k2", other).await;
            assert_eq!(refused.status(), 422, "{}: {refused}", place.name);
            assert_eq!(refused.json()["code"], "key-reused", "{refused}");
        }
        let again = send("k2", json!([{"id": 1, "stock": 5}, {"id": 99, "stock": 5}])).await;
        assert_eq!(
            (again.status(), again.json()["results"][0].clone()),
            (207, first.json()["results"][0].clone())
        );
        let stock: Vec<_> = rows(&app).await.iter().map(|row| row["stock"].clone()).collect();
        assert_eq!(stock, [5, 1, 2], "{}", place.name);
    }
}

#[tokio::test]
async fn anonymous_callers_do_not_share_idempotency_keys() {
    for place in TestStorage::all().await {
        let app = app_of(parts(place.table("parts"), true)).await;
        let create = async |stock: i64| {
            let request = app.post("/parts").header("idempotency-key", "1");
            request.json(json!({"state": "old", "stock": stock})).await
        };
        let (one, other, again) = (create(1).await, create(2).await, create(1).await);
        assert_eq!(
            (one.status(), other.status(), again.status()),
            (201, 201, 201),
            "{}: {other}",
            place.name
        );
        assert_eq!(other.json()["stock"], 2, "{other}");
        assert_eq!(again.json()["id"], one.json()["id"], "{again}");
        assert_eq!(again.header("idempotent-replayed"), Some("true"), "{again}");
        assert_eq!(rows(&app).await.len(), 2);
    }
}
