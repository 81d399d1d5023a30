//! How large a filter may be: every node of it counts, on every path that takes one.

use resourceful::prelude::*;
use resourceful::testing::{TestApp, TestResponse};
use serde_json::{Value as Json, json};

use crate::support::{create, on_every_storage};

/// Filters of more nodes than there may be, each of another kind.
fn oversized() -> Vec<(&'static str, Json)> {
    let many = |branch: Json, count: usize| vec![branch; count];
    let nested = |count: usize| (0..count).map(|_| json!({"and": [{}, {"not": {}}]})).collect::<Vec<_>>();
    let operators: serde_json::Map<String, Json> =
        (0..1_000).map(|number| (format!("op{number}"), json!(1))).collect();
    let fields: serde_json::Map<String, Json> =
        (0..1_000).map(|number| (format!("f{number}"), json!(1))).collect();
    vec![
        ("empty branches of or", json!({"or": many(json!({}), 1_000)})),
        ("empty branches of and", json!({"and": many(json!({}), 256)})),
        ("empty connectives", json!({"or": many(json!({"or": []}), 256)})),
        ("negations of nothing", json!({"or": many(json!({"not": {}}), 128)})),
        ("empty branches in depth", json!({"or": nested(64)})),
        ("comparisons", json!({"or": many(json!({"name": "a"}), 256)})),
        ("operators of one field", json!({"or": many(json!({"name": {"gte": "a", "lte": "b"}}), 86)})),
        ("unknown operators", json!({"name": operators})),
        ("unknown fields", Json::Object(fields)),
    ]
}

fn assert_node_limit_fault(what: &str, answer: &TestResponse) {
    assert_eq!(answer.status(), 400, "{what}");
    let faults = answer.json()["errors"].as_array().unwrap().clone();
    let limit = faults.iter().find(|fault| fault["code"] == "limit");
    let limit = limit.unwrap_or_else(|| panic!("{what}: {answer}"));
    assert!(limit["detail"].as_str().unwrap().contains("at most 256 nodes"), "{what}: {limit}");
    assert!(limit["pointer"].as_str().unwrap().starts_with("/filter"), "{what}: {limit}");
    // The rest of it is not read, so it is not answered either.
    assert!(faults.len() <= 257, "{what}: {} faults", faults.len());
}

/// So many comparisons as a query string, each of another field: a parameter is given once.
fn comparisons(count: usize) -> String {
    (0..count).map(|index| format!("field{index}=a&")).collect()
}

#[tokio::test]
async fn filter_nodes_are_limited_on_every_route() {
    on_every_storage(|app| async move {
        create(&app, "a", json!({})).await;
        for (what, filter) in oversized() {
            let body = json!({"filter": filter});
            assert_node_limit_fault(what, &app.request("QUERY", "/products").json(body.clone()).await);
            assert_node_limit_fault(what, &app.post("/products/query").json(body.clone()).await);
            let bulk = json!({"filter": filter, "max_affected": 5});
            assert_node_limit_fault(what, &app.delete("/products/bulk").json(bulk).await);
            let bulk = json!({"filter": filter, "patch": {"stock": 2}, "max_affected": 5});
            assert_node_limit_fault(what, &app.patch("/products/bulk").json(bulk).await);
        }
        // As many as there may be are answered.
        let most = json!({"filter": {"or": vec![json!({"name": "a"}); 255]}});
        let found = app.post("/products/query").json(most).await;
        assert_eq!((found.status(), found.items().len()), (200, 1), "{found}");
        let hollow = json!({"filter": {"and": vec![json!({}); 255]}});
        assert_eq!(app.post("/products/query").json(hollow).await.items().len(), 1);
        let more = app.get(&format!("/products?{}", comparisons(257))).await;
        let codes: Vec<_> =
            more.json()["errors"].as_array().unwrap().iter().map(|one| one["code"].clone()).collect();
        assert_eq!((more.status(), codes.len(), &codes[256]), (400, 257, &json!("limit")), "{more}");
    })
    .await;
}

#[tokio::test]
async fn oversized_filter_is_not_parsed_beyond_the_limit() {
    let app = crate::support::shop(&crate::support::TestStorage::memory()).await;
    for branch in [json!({}), json!({"x": 1})] {
        let body = json!({"filter": {"or": vec![branch.clone(); 60_000]}});
        assert_node_limit_fault(&branch.to_string(), &app.request("QUERY", "/products").json(body).await);
    }
}

#[tokio::test]
async fn filter_nodes_of_a_subscription_are_limited() {
    let rooms = define_dynamic_resource("rooms", crate::policies::model(&["name"]))
        .adapter(Memory::new().table("rooms"))
        .id_field("name")
        .permissions(Permissions::all(anyone()))
        .streams(true)
        .build()
        .unwrap();
    let app = TestApp::build(create_app(AppPreset::Testing).resource(rooms)).await.unwrap();
    let mut socket = app.get("/ws").socket().await.unwrap();
    // What fits into a message.
    for (what, filter) in oversized().into_iter().filter(|(_, filter)| filter.to_string().len() < 60_000) {
        socket.send(json!({"type": "subscribe", "id": "1", "resource": "rooms", "filter": filter})).await;
        let answer = socket.next().await.unwrap();
        assert_eq!(answer["type"], "error", "{what}: {answer}");
        assert!(answer.to_string().contains("at most 256 nodes"), "{what}: {answer}");
    }
    let refused = app.get(&format!("/rooms/stream?{}", comparisons(257))).stream().await.unwrap_err();
    assert_eq!((refused.status(), refused.json()["errors"][256]["code"].clone()), (400, json!("limit")));
}

#[tokio::test]
async fn number_of_reported_faults_is_limited() {
    on_every_storage(|app| async move {
        let unknown: serde_json::Map<String, Json> =
            (0..3_000).map(|number| (format!("f{number}"), json!(1))).collect();
        let queried = app.post("/products/query").json(Json::Object(unknown.clone())).await;
        assert_eq!((queried.status(), queried.json()["errors"].as_array().unwrap().len()), (400, 1_000));
        let created = app.post("/categories").json(Json::Object(unknown)).await;
        assert_eq!(created.status(), 422);
        assert!(created.json()["errors"].as_array().unwrap().len() <= 1_000);
    })
    .await;
}
