//! Changes of several resources, all of them or none.

use resourceful::prelude::*;
use resourceful::testing::{TestApp, TestResponse};
use serde_json::{Value as Json, json};

use crate::support::{TestStorage, faults};

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
struct Order {
    id: Uuid,
    user_id: String,
    note: String,
    secret: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
struct Line {
    id: i64,
    order_id: Uuid,
    #[validate(range(min = 1))]
    quantity: i64,
}

async fn app(place: &TestStorage) -> TestApp {
    let orders = define_resource::<Order>("orders")
        .adapter(place.table("orders"))
        .permissions(Permissions::all(signed_in()).delete(role("clerk")))
        .preset(owned_by("user_id").or(role("clerk")))
        .version("version")
        .unique(["note"])
        .visible_to(["secret"], role("clerk"))
        .build()
        .unwrap();
    let lines = define_resource::<Line>("lines")
        .adapter(place.table("lines"))
        .permissions(Permissions::all(any_of([owner("order.user_id"), role("clerk")])))
        .relation(belongs_to("order", "orders"))
        .version("version")
        .build()
        .unwrap();
    let elsewhere = define_dynamic_resource("elsewhere", crate::policies::model(&["code"]))
        .adapter(Memory::new().table("elsewhere"))
        .id_field("code")
        .permissions(Permissions::all(signed_in()))
        .build()
        .unwrap();
    let tokens = BearerTokens::new()
        .token("ada", Actor::user("ada"))
        .token("bob", Actor::user("bob"))
        .token("clerk", Actor::user("cleo").with_role("clerk"));
    let app = create_app(AppPreset::Testing).prefix("/v1").authenticator(tokens).batch(20);
    TestApp::build(app.resource(orders).resource(lines).resource(elsewhere)).await.unwrap()
}

async fn batch(app: &TestApp, who: &str, operations: Json) -> TestResponse {
    app.post("/v1/batch").bearer(who).json(json!({"operations": operations})).await
}

fn order(note: &str) -> Json {
    json!({"operation": "create", "resource": "orders", "body": {"note": note}})
}

fn line(order: &Json, quantity: i64) -> Json {
    json!({"operation": "create", "resource": "lines", "body": {"order_id": order, "quantity": quantity}})
}

async fn counts(app: &TestApp) -> (u64, u64, usize) {
    let events = app.events().await.len();
    (app.app().count("orders").await.unwrap(), app.app().count("lines").await.unwrap(), events)
}

#[tokio::test]
async fn batch_changes_several_resources_with_references() {
    for place in TestStorage::all().await {
        let app = app(&place).await;
        let first = json!({"$ref": "0/id"});
        let created = batch(&app, "ada", json!([order("a"), line(&first, 1), line(&first, 2)])).await;
        assert_eq!(created.status(), 200, "{}: {created}", place.name);
        let results = created.json()["results"].as_array().unwrap().clone();
        assert_eq!(results.iter().map(|one| &one["status"]).collect::<Vec<_>>(), [201, 201, 201]);
        let id = results[0]["body"]["id"].clone();
        assert_eq!((&results[1]["body"]["order_id"], &results[2]["body"]["quantity"]), (&id, &json!(2)));
        assert_eq!(results[0]["location"], format!("/v1/orders/{}", id.as_str().unwrap()));
        assert_eq!(
            app.get(results[1]["location"].as_str().unwrap()).bearer("ada").await.json(),
            results[1]["body"]
        );
        assert_eq!(counts(&app).await, (1, 2, 3));

        let line_id = &results[1]["body"]["id"];
        let changed = batch(
            &app,
            "clerk",
            json!([
                {"operation": "update", "resource": "orders", "id": id, "if_match": "\"1\"", "body": {"note": "b"}},
                {"operation": "update", "resource": "lines", "id": line_id, "body": {"quantity": 1}},
                {"operation": "delete", "resource": "lines", "id": results[2]["body"]["id"]},
            ]),
        );
        let changed = changed.await.json();
        let said: Vec<_> = changed["results"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| json!([one["status"], one["etag"]]))
            .collect();
        assert_eq!(said, [json!([200, "\"2\""]), json!([200, "\"1\""]), json!([204, null])], "{changed}");
        assert_eq!(counts(&app).await, (1, 1, 5));
    }
}

#[tokio::test]
async fn failed_operation_rolls_back_the_batch() {
    for place in TestStorage::all().await {
        let app = app(&place).await;
        assert_eq!(batch(&app, "ada", json!([order("taken")])).await.status(), 200);
        let first = json!({"$ref": "0/id"});
        let clash = batch(&app, "ada", json!([order("a"), line(&first, 1), order("taken")])).await;
        assert_eq!(
            (clash.status(), faults(&clash.json())),
            (409, vec![("/operations/2/body/note", "unique")])
        );
        let invalid = batch(&app, "ada", json!([order("a"), line(&first, 0)])).await;
        assert_eq!(
            (invalid.status(), faults(&invalid.json())),
            (422, vec![("/operations/1/body/quantity", "range")])
        );
        assert_eq!(counts(&app).await, (1, 0, 1), "{}", place.name);
        let dry_run = app.post("/v1/batch").bearer("ada").header("prefer", "dry-run");
        let dry_run = dry_run.json(json!({"operations": [order("a"), line(&first, 1)]})).await.json();
        assert_eq!(
            (&dry_run["status"], &dry_run["body"]["results"][1]["status"]),
            (&json!(200), &json!(201)),
            "{dry_run}"
        );
        assert_eq!(counts(&app).await, (1, 0, 1));
    }
}

#[tokio::test]
async fn each_operation_is_authorized_like_a_single_request() {
    for place in TestStorage::all().await {
        let app = app(&place).await;
        let created = batch(&app, "ada", json!([order("a")])).await.json();
        let id = &created["results"][0]["body"]["id"];
        assert_eq!(app.post("/v1/batch").json(json!({"operations": [order("b")]})).await.status(), 401);
        let theirs = batch(&app, "bob", json!([order("b"), line(id, 1)])).await;
        assert_eq!(
            (theirs.status(), faults(&theirs.json())),
            (409, vec![("/operations/1/body/order_id", "foreign-key")]),
            "{theirs}"
        );
        let update = |id: &Json| json!([{"operation": "update", "resource": "orders", "id": id, "body": {"note": "x"}}]);
        let hidden = batch(&app, "bob", update(id)).await;
        assert_eq!((hidden.status(), faults(&hidden.json())), (404, vec![("/operations/0", "not-found")]));
        let delete = json!([{"operation": "delete", "resource": "orders", "id": id}]);
        assert_eq!(batch(&app, "ada", delete).await.status(), 403);
        let mut secret = order("c");
        secret["body"]["secret"] = json!("s");
        let created = batch(&app, "clerk", json!([secret, {"operation": "create", "resource": "orders", "body": {"note": {"$ref": "0/secret"}}}])).await;
        assert_eq!(created.json()["results"][1]["body"]["note"], "s");
        let unseen = batch(&app, "ada", json!([order("d"), {"operation": "create", "resource": "orders", "body": {"note": {"$ref": "0/secret"}}}])).await;
        assert_eq!(faults(&unseen.json()), [("/operations/1/body/note", "reference")], "{unseen}");
    }
}

#[tokio::test]
async fn malformed_batches_are_refused() {
    let app = app(&TestStorage::memory()).await;
    let said = async |operations: Json| {
        let answer = batch(&app, "ada", operations).await;
        assert_eq!(answer.status(), 422, "{answer}");
        let problem = answer.json();
        faults(&problem).into_iter().map(|(at, code)| (at.to_owned(), code.to_owned())).collect::<Vec<_>>()
    };
    let one = |at: &str, code: &str| vec![(at.to_owned(), code.to_owned())];
    assert_eq!(said(json!([])).await, one("/operations", "length"));
    assert_eq!(said(json!(vec![order("a"); 21])).await, one("/operations", "length"));
    assert_eq!(said(json!([{"operation": "drop", "resource": "orders"}])).await[0].1, "type");
    assert_eq!(
        said(json!([{"operation": "create", "resource": "order", "body": {}}])).await,
        one("/operations/0/resource", "unknown")
    );
    assert_eq!(
        said(json!([{"operation": "create", "resource": "orders"}])).await,
        one("/operations/0/body", "required")
    );
    assert_eq!(
        said(json!([{"operation": "delete", "resource": "orders"}])).await,
        one("/operations/0/id", "required")
    );
    let minted = json!([order("a"), line(&json!({"$ref": "0/id"}), 1), {"operation": "create", "resource": "orders", "body": {"note": {"$ref": "1/id"}}}]);
    assert_eq!(said(minted).await, one("/operations/2/body/note", "reference"));
    assert_eq!(
        said(json!([order("a"), line(&json!({"$ref": "1/id"}), 1)])).await,
        one("/operations/1/body/order_id", "reference")
    );
    let other_storage =
        json!([order("a"), {"operation": "create", "resource": "elsewhere", "body": {"code": "x"}}]);
    assert_eq!(said(other_storage).await, one("/operations/1/resource", "elsewhere"));
    let update = json!({"operation": "update", "resource": "orders", "id": Uuid::nil(), "body": {}});
    assert_eq!(said(json!([update, update])).await, one("/operations/1/id", "repeated"));
    let id = Uuid::from_u128(0xabc).to_string();
    let spelled = |id: &str| json!({"operation": "update", "resource": "orders", "id": id, "body": {}});
    let twice = json!([spelled(&id), spelled(&id.to_uppercase())]);
    assert_eq!(said(twice).await, one("/operations/1/id", "repeated"), "however it is spelled");
    let keyed = app.post("/v1/batch").bearer("ada").header("idempotency-key", "k");
    let keyed = keyed.json(json!({"operations": [order("a")]})).await;
    assert_eq!(
        (keyed.status(), keyed.json()["errors"][0]["header"].clone()),
        (400, json!("Idempotency-Key"))
    );
    let document = app.get("/openapi.json").await.json();
    assert_eq!(document["paths"]["/v1/batch"]["post"]["operationId"], "batch");
    let without = crate::support::shop(&TestStorage::memory()).await;
    assert_eq!(without.post("/batch").json(json!({})).await.status(), 404);
}

#[tokio::test]
async fn unauthorized_caller_gets_no_faults_of_a_batch() {
    let app = app(&TestStorage::memory()).await;
    for body in [
        json!({"operations": []}),
        json!({"operations": [{"operation": "create", "resource": "nothing", "body": {}}]}),
        json!({"no": "batch"}),
    ] {
        let refused = app.post("/v1/batch").json(body.clone()).await;
        assert_eq!(refused.status(), 401, "{body}: {refused}");
        let invalid = app.post("/v1/batch").bearer("ada").json(body).await;
        assert_eq!(invalid.status(), 422, "{invalid}");
    }
    // What is named beside an unknown resource is refused first.
    let both = json!({"operations": [
        {"operation": "create", "resource": "nothing", "body": {}},
        {"operation": "delete", "resource": "orders", "id": Uuid::nil()},
    ]});
    assert_eq!(app.post("/v1/batch").bearer("ada").json(both).await.status(), 403);
}

#[tokio::test]
async fn batch_cannot_reference_an_item_that_it_deletes() {
    for place in TestStorage::all().await {
        let shape = |name: &str| {
            json!({
                "type": "object",
                "properties": {
                    "code": {"type": "string"}, name: {"type": ["string", "null"]},
                    "deleted_at": {"type": ["string", "null"], "format": "date-time"},
                },
                "required": ["code"],
            })
        };
        let define = |name: &str, field: &str| {
            define_dynamic_resource(name, shape(field))
                .adapter(place.table(name))
                .id_field("code")
                .permissions(Permissions::all(anyone()))
                .preset(soft_delete())
        };
        let shelves = define("shelves", "note").build().unwrap();
        let books = define("books", "shelf_id").relation(belongs_to("shelf", "shelves")).build().unwrap();
        let app = create_app(AppPreset::Testing).batch(10).resource(shelves).resource(books);
        let app = TestApp::build(app).await.unwrap();
        for code in ["s", "t"] {
            assert_eq!(app.post("/shelves").json(json!({"code": code})).await.status(), 201);
        }
        let delete = json!({"operation": "delete", "resource": "shelves", "id": "s"});
        let create = |shelf: &str| json!({"operation": "create", "resource": "books", "body": {"code": "b", "shelf_id": shelf}});
        let send = async |operations: Json| app.post("/batch").json(json!({"operations": operations})).await;
        let refused = send(json!([delete, create("s")])).await;
        assert_eq!(refused.status(), 409, "{}: {refused}", place.name);
        assert!(
            faults(&refused.json()).contains(&("/operations/1/body/shelf_id", "foreign-key")),
            "{refused}"
        );
        assert_eq!(app.get("/shelves/s").await.status(), 200, "nothing of it was made");
        let done = send(json!([delete, create("t")])).await;
        assert_eq!(done.status(), 200, "{}: {done}", place.name);
    }
}
