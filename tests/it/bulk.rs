//! Many items in one request.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use resourceful::prelude::*;
use resourceful::testing::{TestApp, TestResponse, policy_matrix};
use resourceful::{Change, Error, ErrorKind, ResourceBuilder};
use serde_json::{Value as Json, json};

use crate::support::{TestStorage, faults};

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
struct Part {
    id: Uuid,
    #[validate(length(min = 1))]
    name: String,
    #[validate(range(min = 0))]
    stock: i64,
    org_id: String,
    note: Option<String>,
}

fn parts(place: &TestStorage) -> ResourceBuilder {
    define_resource::<Part>("parts")
        .adapter(place.table("parts"))
        .permissions(Permissions::all(signed_in()).delete(tenant_role("clerk")))
        .preset(multi_tenant("org_id"))
        .preset(bulk().max_items(50).max_affected(20))
        .preset(idempotency())
        .unique(["name"])
        .index(["stock"])
        .version("version")
        .visible_to(["note"], tenant_role("clerk"))
}

async fn app_of(resource: ResourceBuilder) -> TestApp {
    let of = |name: &'static str, tenant: &'static str, role: &'static str| {
        Actor::user(name).in_tenant(tenant, [role])
    };
    let tokens = BearerTokens::new()
        .token("ada", of("ada", "acme", "member"))
        .token("clerk", of("cleo", "acme", "clerk"))
        .token("bob", of("bob", "bolt", "clerk"));
    let app = create_app(AppPreset::Testing).authenticator(tokens).resource(resource.build().unwrap());
    TestApp::build(app).await.unwrap()
}

async fn send(app: &TestApp, method: &str, query: &str, who: &str, body: Json) -> TestResponse {
    app.request(method, &format!("/parts/bulk{query}")).bearer(who).json(body).await
}

fn new(names: &[&str]) -> Json {
    json!({"items": names.iter().map(|name| json!({"name": name, "stock": 1})).collect::<Vec<_>>()})
}

/// Creates parts, and answers their ids.
async fn create_parts(app: &TestApp, names: &[&str]) -> Vec<Json> {
    let created = send(app, "POST", "", "clerk", new(names)).await;
    assert_eq!(created.status(), 201, "{created}");
    created.items().iter().map(|item| item["id"].clone()).collect()
}

async fn stock(app: &TestApp) -> Vec<(String, i64)> {
    let items = app.get("/parts?sort=name").bearer("clerk").await.items();
    let one = |item: &Json| (item["name"].as_str().unwrap().to_owned(), item["stock"].as_i64().unwrap());
    items.iter().map(one).collect()
}

#[tokio::test]
async fn bulk_create_is_atomic() {
    for place in TestStorage::all().await {
        let app = app_of(parts(&place)).await;
        let created = send(&app, "POST", "", "clerk", new(&["a", "b", "c"])).await;
        assert_eq!(created.status(), 201, "{}: {created}", place.name);
        let items = created.items();
        assert_eq!(items.iter().map(|item| &item["org_id"]).collect::<Vec<_>>(), ["acme", "acme", "acme"]);
        let minimal = app.post("/parts/bulk").bearer("clerk").header("prefer", "return=minimal");
        let minimal = minimal.json(new(&["d"])).await;
        assert_eq!((minimal.status(), minimal.bytes().len(), minimal.header("content-type")), (201, 0, None));
        assert_eq!(minimal.header("preference-applied"), Some("return=minimal"));

        // One clashes in the database, and none is there.
        let clash = send(&app, "POST", "", "clerk", new(&["e", "f", "a"])).await;
        assert_eq!(
            (clash.status(), faults(&clash.json())),
            (409, vec![("/items/2/name", "unique")]),
            "{clash}"
        );
        // Every fault of every item at once.
        let body = json!({"items": [{"name": "", "stock": -1}, {"name": "g", "stock": 1}, {"name": "h", "stok": 1}]});
        let invalid = send(&app, "POST", "", "clerk", body).await;
        let expected = [
            ("/items/0/name", "length"),
            ("/items/0/stock", "range"),
            ("/items/2/stock", "required"),
            ("/items/2/stok", "unknown"),
        ];
        assert_eq!((invalid.status(), faults(&invalid.json())), (422, expected.to_vec()), "{invalid}");
        assert_eq!(stock(&app).await.len(), 4);
        assert_eq!(app.events().await.len(), 4, "an event for each, and none for what failed");
    }
}

#[tokio::test]
async fn bulk_update_and_delete_are_atomic() {
    for place in TestStorage::all().await {
        let app = app_of(parts(&place)).await;
        let ids = create_parts(&app, &["a", "b", "c", "d"]).await;
        let id = |index: usize| ids[index].clone();
        let patched = send(
            &app,
            "PATCH",
            "",
            "clerk",
            json!({"items": [
                {"id": id(1), "stock": 9, "if_match": "\"1\""}, {"id": id(0)}, {"id": id(2), "stock": 7},
            ]}),
        );
        let patched = patched.await;
        let stocks: Vec<_> = patched.items().iter().map(|item| item["stock"].clone()).collect();
        assert_eq!(
            (patched.status(), stocks),
            (200, vec![json!(9), json!(1), json!(7)]),
            "in order: {patched}"
        );
        let stale =
            json!({"items": [{"id": id(0), "stock": 5}, {"id": id(1), "stock": 5, "if_match": "\"1\""}]});
        let stale = send(&app, "PATCH", "", "clerk", stale).await;
        assert_eq!((stale.status(), faults(&stale.json())), (412, vec![("/items/1", "mismatch")]));
        let twice = json!({"items": [{"id": id(0), "stock": 5}, {"id": id(0), "stock": 6}]});
        let twice = send(&app, "PATCH", "", "clerk", twice).await;
        assert_eq!((twice.status(), faults(&twice.json())), (422, vec![("/items/1", "repeated")]));
        let absent = json!({"ids": [id(0), Uuid::nil()]});
        let absent = send(&app, "DELETE", "", "clerk", absent).await;
        assert_eq!(
            (absent.status(), faults(&absent.json())),
            (404, vec![("/ids/1", "not-found")]),
            "{absent}"
        );
        let expected = [("a", 1), ("b", 9), ("c", 7), ("d", 1)];
        assert_eq!(stock(&app).await, expected.map(|(name, stock)| (name.to_owned(), stock)));

        let deleted = send(&app, "DELETE", "", "clerk", json!({"ids": [id(0), id(2)]})).await;
        assert_eq!((deleted.status(), deleted.json()), (200, json!({"affected": 2})));
        let types: Vec<_> = app.events().await.into_iter().map(|event| event.action().to_owned()).collect();
        let expected = ["created"; 4].into_iter().chain(["updated"; 2]).chain(["deleted"; 2]);
        assert_eq!(types, expected.collect::<Vec<_>>(), "an event for each, and none for what failed");
    }
}

#[tokio::test]
async fn partial_mode_reports_a_status_per_item() {
    for place in TestStorage::all().await {
        let app = app_of(parts(&place)).await;
        let ids = create_parts(&app, &["a", "b"]).await;
        let body = json!({"items": [{"name": "c", "stock": 1}, {"name": "", "stock": 1}, {"name": "a", "stock": 1}]});
        let created = send(&app, "POST", "?mode=partial", "clerk", body).await;
        assert_eq!(created.status(), 207, "{}: {created}", place.name);
        let results = created.json()["results"].as_array().unwrap().clone();
        let statuses: Vec<_> = results.iter().map(|result| (&result["index"], &result["status"])).collect();
        assert_eq!(statuses, [(&json!(0), &json!(201)), (&json!(1), &json!(422)), (&json!(2), &json!(409))]);
        assert_eq!((&results[0]["body"]["name"], &results[0]["etag"]), (&json!("c"), &json!("\"1\"")));
        let at = results[0]["location"].as_str().unwrap();
        assert_eq!(app.get(at).bearer("clerk").await.json(), results[0]["body"]);
        assert_eq!(results[1]["problem"]["errors"][0]["pointer"], "/name");

        let body =
            json!({"items": [{"id": ids[0], "stock": 5, "if_match": "\"8\""}, {"id": ids[1], "stock": 5}]});
        let patched = send(&app, "PATCH", "?mode=partial", "clerk", body).await.json();
        assert_eq!(
            (&patched["results"][0]["status"], &patched["results"][1]["etag"]),
            (&json!(412), &json!("\"2\""))
        );
        let deleted =
            send(&app, "DELETE", "?mode=partial", "clerk", json!({"ids": [Uuid::nil(), ids[1]]})).await;
        let statuses: Vec<_> =
            deleted.json()["results"].as_array().unwrap().iter().map(|one| one["status"].clone()).collect();
        assert_eq!(statuses, [404, 204]);
    }
}

#[tokio::test]
async fn bulk_by_filter_respects_max_affected_and_the_tenant() {
    for place in TestStorage::all().await {
        let app = app_of(parts(&place)).await;
        create_parts(&app, &["a", "b", "c"]).await;
        send(&app, "POST", "", "bob", new(&["x", "y"])).await;
        let patch = |filter: Json, max_affected: Json| json!({"filter": filter, "patch": {"stock": 4}, "max_affected": max_affected});
        let one = json!({"stock": 1});
        let too_many = send(&app, "PATCH", "", "ada", patch(one.clone(), json!(2))).await;
        assert_eq!((too_many.status(), too_many.json()["code"].clone()), (409, json!("too-many-affected")));
        let patched = send(&app, "PATCH", "", "ada", patch(one.clone(), json!(3))).await;
        assert_eq!((patched.status(), patched.items().len()), (200, 3), "{}: {patched}", place.name);
        let others = app.get("/parts").bearer("bob").await.items();
        assert!(others.iter().all(|item| item["stock"] == 1), "a row of another tenant");

        let empty = send(&app, "DELETE", "", "clerk", json!({"filter": {}, "max_affected": 9})).await;
        assert_eq!((empty.status(), empty.json()["code"].clone()), (400, json!("empty-filter")));
        // Nor is one a condition that holds nothing but branches without any.
        for hollow in [
            json!({"and": []}),
            json!({"and": [{}]}),
            json!({"or": [{}, {"and": []}]}),
            json!({"not": {"or": []}}),
        ] {
            let body = json!({"filter": hollow, "max_affected": 9});
            let empty = send(&app, "DELETE", "", "clerk", body).await;
            assert_eq!(
                (empty.status(), empty.json()["code"].clone()),
                (400, json!("empty-filter")),
                "{hollow}"
            );
        }
        let unbounded = send(&app, "DELETE", "", "clerk", json!({"filter": {"stock": 4}})).await;
        assert_eq!(faults(&unbounded.json()), [("/max_affected", "required")]);
        let beyond =
            send(&app, "DELETE", "", "clerk", json!({"filter": {"stock": 4}, "max_affected": 21})).await;
        assert_eq!(faults(&beyond.json()), [("/max_affected", "range")]);
        let hidden = send(&app, "PATCH", "", "ada", patch(json!({"note": "x"}), json!(9))).await;
        assert_eq!((hidden.status(), hidden.json()["errors"][0]["code"].clone()), (400, json!("unknown")));
        let denied =
            send(&app, "DELETE", "", "ada", json!({"filter": {"stock": 4}, "max_affected": 9})).await;
        assert_eq!(denied.status(), 403);
        let deleted =
            send(&app, "DELETE", "", "clerk", json!({"filter": {"stock": 4}, "max_affected": 9})).await;
        assert_eq!(deleted.json(), json!({"affected": 3}));
    }
}

#[tokio::test]
async fn malformed_and_oversized_bulk_requests_are_refused() {
    let app = app_of(parts(&TestStorage::memory())).await;
    let post = async |body| send(&app, "POST", "", "clerk", body).await;
    assert_eq!(faults(&post(json!([])).await.json()), [("", "type")]);
    assert_eq!(faults(&post(json!({"items": []})).await.json()), [("/items", "length")]);
    assert_eq!(
        faults(&post(json!({"item": []})).await.json()),
        [("/item", "unknown"), ("/items", "required")]
    );
    let many: Vec<_> = (0..51).map(|number| number.to_string()).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    assert_eq!(faults(&post(new(&many)).await.json()), [("/items", "length")]);
    let mode = send(&app, "POST", "?mode=some", "clerk", new(&["a"])).await;
    assert_eq!((mode.status(), mode.json()["errors"][0]["parameter"].clone()), (400, json!("mode")));
    let other = send(&app, "POST", "?mod=partial", "clerk", new(&["a"])).await;
    assert_eq!(other.status(), 400);
    let patch = async |items| faults_of(send(&app, "PATCH", "", "clerk", json!({"items": items})).await);
    assert_eq!(patch(json!([{"stock": 1}])).await, [("/items/0/id".to_owned(), "required".to_owned())]);
    let tag = patch(json!([{"id": Uuid::nil(), "if_match": 7}])).await;
    assert_eq!(tag, [("/items/0/if_match".to_owned(), "syntax".to_owned())]);
    assert_eq!(
        app.get("/parts/bulk").bearer("clerk").await.header("allow"),
        Some("DELETE, OPTIONS, PATCH, POST")
    );
    let both = parts(&TestStorage::memory()).action(
        "bulk",
        resourceful::Action::on_collection(anyone(), |_: resourceful::resource::NoInput, _: &mut Change| {
            Ok(())
        }),
    );
    assert!(both.build().unwrap_err().to_string().contains("both claim the path /bulk"));
}

fn faults_of(response: TestResponse) -> Vec<(String, String)> {
    faults(&response.json()).into_iter().map(|(at, code)| (at.to_owned(), code.to_owned())).collect()
}

#[tokio::test]
async fn hooks_run_per_item_and_one_refusal_fails_the_bulk_request() {
    for place in TestStorage::all().await {
        let after = Arc::new(AtomicUsize::new(0));
        let counted = after.clone();
        let resource = parts(&place)
            .before([Operation::Create, Operation::Update], |part: &mut Part, _: &mut Change| {
                match part.name.as_str() {
                    "bad" => Err(Error::new(ErrorKind::Conflict, "bad", "No.")),
                    _ => {
                        part.stock += 100;
                        Ok(())
                    }
                }
            })
            .after([Operation::Create], move |_: Part, _| {
                counted.fetch_add(1, Ordering::SeqCst);
                std::future::ready(Ok(()))
            });
        let app = app_of(resource).await;
        let refused = send(&app, "POST", "", "clerk", new(&["a", "bad", "b"])).await;
        assert_eq!(
            (refused.status(), faults(&refused.json())),
            (409, vec![("/items/1", "bad")]),
            "{refused}"
        );
        assert_eq!((stock(&app).await.len(), after.load(Ordering::SeqCst)), (0, 0));
        create_parts(&app, &["a", "b"]).await;
        assert_eq!(after.load(Ordering::SeqCst), 2);
        assert_eq!(stock(&app).await, [("a".to_owned(), 101), ("b".to_owned(), 101)]);
    }
}

#[tokio::test]
async fn idempotency_key_applies_to_atomic_and_partial_bulk_requests() {
    for place in TestStorage::all().await {
        let app = app_of(parts(&place)).await;
        let post = |query: &str, key: &str| {
            let request = app.post(&format!("/parts/bulk{query}")).bearer("clerk");
            request.header("idempotency-key", key)
        };
        let first = post("", "k").json(new(&["a", "b"])).await;
        let again = post("", "k").json(new(&["a", "b"])).await;
        assert_eq!((first.status(), again.status()), (201, 201), "{first}");
        assert_eq!((again.bytes(), again.header("idempotent-replayed")), (first.bytes(), Some("true")));
        let first = post("?mode=partial", "p").json(new(&["c", "a", "d"])).await.json();
        let again = post("?mode=partial", "p").json(new(&["c", "a", "d"])).await.json();
        let bodies =
            |answer: &Json| [answer["results"][0]["body"].clone(), answer["results"][2]["body"].clone()];
        assert_eq!(bodies(&again), bodies(&first));
        assert_eq!(stock(&app).await.len(), 4);
        let ids: Vec<_> = first["results"].as_array().unwrap().iter().map(|one| &one["body"]["id"]).collect();
        let delete = || {
            let request = app.delete("/parts/bulk").bearer("clerk").header("idempotency-key", "d");
            request.json(json!({"ids": [ids[0], ids[2]]}))
        };
        assert_eq!(
            (delete().await.json(), delete().await.json()),
            (json!({"affected": 2}), json!({"affected": 2}))
        );
        let dry_run = post("", "t").header("prefer", "dry-run").json(new(&["x", "y"])).await.json();
        assert_eq!(
            (&dry_run["status"], dry_run["events"].as_array().unwrap().len()),
            (&json!(201), 2),
            "{dry_run}"
        );
        assert_eq!(stock(&app).await.len(), 2);
    }
}

#[tokio::test]
async fn concurrent_bulk_updates_of_the_same_items_both_succeed() {
    for place in TestStorage::all().await {
        let app = app_of(parts(&place)).await;
        let ids = create_parts(&app, &["a", "b", "c"]).await;
        let change = async |field: &str, value: Json| {
            let items: Vec<_> = ids.iter().map(|id| json!({"id": id, field: value})).collect();
            send(&app, "PATCH", "", "clerk", json!({"items": items})).await.status()
        };
        let (one, other) = tokio::join!(change("stock", json!(5)), change("note", json!("n")));
        assert_eq!((one, other), (200, 200), "{}", place.name);
        let items = app.get("/parts").bearer("clerk").await.items();
        assert!(items.iter().all(|item| item["stock"] == 5 && item["note"] == "n"), "{items:?}");
    }
}

#[tokio::test]
async fn policy_matrix_passes_for_bulk_routes() {
    for place in TestStorage::all().await {
        let app = app_of(parts(&place)).await;
        create_parts(&app, &["a", "b"]).await;
        send(&app, "POST", "", "bob", new(&["x"])).await;
        let mut matrix = policy_matrix(&app).caller("nobody", Actor::anonymous(), []);
        for (token, tenant, role) in
            [("ada", "acme", "member"), ("clerk", "acme", "clerk"), ("bob", "bolt", "clerk")]
        {
            let name = if token == "clerk" { "cleo" } else { token };
            let actor = Actor::user(name).in_tenant(tenant, [role]);
            matrix = matrix.caller(token, actor, [("authorization", format!("Bearer {token}").as_str())]);
        }
        matrix.run().await.unwrap().assert_passed();
        let document = app.get("/openapi.json").await.json();
        assert_eq!(document["paths"]["/parts/bulk"].as_object().unwrap().len(), 3);
    }
}

#[tokio::test]
async fn failure_pointer_names_its_item_after_unchanged_items() {
    for place in TestStorage::all().await {
        let app = app_of(parts(&place)).await;
        let ids = create_parts(&app, &["a", "b", "c"]).await;
        let body = json!({"items": [{"id": ids[0]}, {"id": ids[1], "name": "c"}]});
        let clash = send(&app, "PATCH", "", "clerk", body).await;
        assert_eq!(
            (clash.status(), faults(&clash.json())),
            (409, vec![("/items/1/name", "unique")]),
            "{clash}"
        );
    }
}

#[tokio::test]
async fn repeated_partial_bulk_by_filter_reaches_newly_matching_items() {
    for place in TestStorage::all().await {
        let app = app_of(parts(&place)).await;
        create_parts(&app, &["a"]).await;
        let patch = async || {
            let request =
                app.patch("/parts/bulk?mode=partial").bearer("clerk").header("idempotency-key", "f");
            let body = json!({"filter": {"stock": 1}, "patch": {"stock": 2}, "max_affected": 5});
            request.json(body).await.json()["results"].as_array().unwrap().len()
        };
        assert_eq!(patch().await, 1, "{}", place.name);
        create_parts(&app, &["b"]).await;
        assert_eq!(patch().await, 1);
        assert_eq!(stock(&app).await, [("a".to_owned(), 2), ("b".to_owned(), 2)]);
    }
}
