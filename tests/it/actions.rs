//! What can be done with items beside creating, changing and deleting them.

use resourceful::prelude::*;
use resourceful::resource::{NoInput, StateMachine};
use resourceful::testing::{TestApp, policy_matrix};
use resourceful::{Action, Change, Error, ErrorKind};
use serde_json::json;

use crate::support::{TestStorage, faults};

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
struct Order {
    id: i64,
    user_id: String,
    status: Status,
    total_cents: i64,
    #[serde(default)]
    address: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Status {
    Draft,
    Submitted,
    Shipped,
    Cancelled,
}

/// Where it goes.
#[derive(Serialize, Deserialize, JsonSchema, Validate)]
struct Ship {
    #[validate(length(min = 3))]
    address: String,
}

#[derive(Serialize, Deserialize, JsonSchema)]
struct Shipment {
    order: i64,
    to: String,
}

#[derive(Serialize, Deserialize, JsonSchema, Validate)]
struct Import {
    totals: Vec<i64>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
struct Parcel {
    id: i64,
    #[validate(length(max = 20))]
    address: String,
}

fn ship(order: &mut Order, ship: Ship, change: &mut Change) -> Result<Shipment, Error> {
    if order.status != Status::Submitted {
        return Err(Error::new(ErrorKind::Conflict, "not-submitted", "It was not submitted."));
    }
    (order.status, order.address) = (Status::Shipped, Some(ship.address.clone()));
    change.create("parcels", json!({"address": ship.address}));
    Ok(Shipment { order: order.id, to: ship.address })
}

fn import(import: Import, change: &mut Change) -> Result<(), Error> {
    for total_cents in import.totals {
        change.create("orders", json!({"status": "draft", "total_cents": total_cents, "user_id": "import"}));
    }
    Ok(())
}

fn reject_empty_order(order: &Order) -> Result<(), Error> {
    match order.total_cents {
        0 => Err(Error::new(ErrorKind::Conflict, "empty", "There is nothing in it.")),
        _ => Ok(()),
    }
}

async fn app(place: &TestStorage) -> TestApp {
    let machine = StateMachine::of("status", "draft")
        .transition("submit", ["draft"], "submitted", signed_in())
        .guard(reject_empty_order)
        .transition("cancel", ["draft", "submitted"], "cancelled", signed_in());
    let orders = define_resource::<Order>("orders")
        .adapter(place.table("orders"))
        .permissions(Permissions::all(signed_in()))
        .preset(owned_by("user_id").or(role("clerk")))
        .version("version")
        .states(machine)
        .action("ship", Action::on_item(role("clerk"), ship).event("shipped").description("Sends it away."))
        .action("touch", Action::on_item(signed_in(), |_: &mut Order, _: NoInput, _| Ok(())))
        .action("import", Action::on_collection(role("clerk"), import))
        .build()
        .unwrap();
    let parcels = define_resource::<Parcel>("parcels")
        .adapter(place.table("parcels"))
        .permissions(Permissions::all(signed_in()))
        .unique(["address"])
        .build()
        .unwrap();
    let tokens = BearerTokens::new()
        .token("ada", Actor::user("ada"))
        .token("bob", Actor::user("bob"))
        .token("clerk", Actor::user("cleo").with_role("clerk"));
    let app = create_app(AppPreset::Testing).authenticator(tokens).resource(orders).resource(parcels);
    TestApp::build(app).await.unwrap()
}

async fn order(app: &TestApp, total: i64) -> String {
    let created = app.post("/orders").bearer("ada").json(json!({"total_cents": total})).await;
    assert_eq!((created.status(), created.json()["status"].clone()), (201, json!("draft")), "{created}");
    created.header("location").unwrap().to_owned()
}

async fn invoke(app: &TestApp, path: &str, action: &str, who: &str) -> u16 {
    app.post(&format!("{path}/{action}")).bearer(who).await.status()
}

async fn event_types(app: &TestApp) -> Vec<String> {
    app.events().await.into_iter().map(|event| event.event_type).collect()
}

#[tokio::test]
async fn action_commits_item_and_enlisted_changes_with_its_own_event() {
    for place in TestStorage::all().await {
        let app = app(&place).await;
        let path = order(&app, 5).await;
        assert_eq!(invoke(&app, &path, "submit", "ada").await, 200);
        let ship = async |address: &str| {
            app.post(&format!("{path}/ship")).bearer("clerk").json(json!({"address": address})).await
        };
        // What it enlists is refused, so nothing of it happens.
        assert_eq!(ship("a street whose name is far too long").await.status(), 500, "{}", place.name);
        assert_eq!(app.get(&path).bearer("ada").await.json()["status"], "submitted");
        let shipped = ship("home").await;
        assert_eq!(shipped.status(), 200, "{shipped}");
        assert_eq!(shipped.json(), json!({"order": 1, "to": "home"}));
        let item = app.get(&path).bearer("ada").await;
        assert_eq!((&item.json()["address"], item.header("etag")), (&json!("home"), Some("\"3\"")));
        let expected = ["orders.created", "orders.submit", "orders.shipped", "parcels.created"];
        assert_eq!(event_types(&app).await, expected);
        // Its own refusal, and the clash of what another one enlists.
        assert_eq!(ship("home").await.json()["code"], "not-submitted");
        let other = order(&app, 5).await;
        assert_eq!(invoke(&app, &other, "submit", "ada").await, 200);
        let clash = app.post(&format!("{other}/ship")).bearer("clerk").json(json!({"address": "home"})).await;
        assert_eq!((clash.status(), clash.json()["code"].clone()), (409, json!("conflict")), "{clash}");
        assert_eq!(app.get(&other).bearer("ada").await.json()["status"], "submitted");
    }
}

#[tokio::test]
async fn action_requires_its_permission_and_a_visible_item() {
    for place in TestStorage::all().await {
        let app = app(&place).await;
        let path = order(&app, 5).await;
        assert_eq!(app.post(&format!("{path}/submit")).await.status(), 401);
        assert_eq!(invoke(&app, &path, "ship", "ada").await, 403, "she owns it and is no clerk");
        assert_eq!(invoke(&app, &path, "submit", "bob").await, 404, "he does not see it");
        assert_eq!(invoke(&app, "/orders/77", "submit", "ada").await, 404);
        assert_eq!(invoke(&app, "/orders/seven", "submit", "ada").await, 404);
        assert_eq!(
            app.get(&format!("{path}/submit")).bearer("ada").await.header("allow"),
            Some("OPTIONS, POST")
        );
    }
}

#[tokio::test]
async fn action_input_is_validated_like_a_request_body() {
    for place in TestStorage::all().await {
        let app = app(&place).await;
        let path = order(&app, 5).await;
        let ship = async |body| app.post(&format!("{path}/ship")).bearer("clerk").json(body).await;
        let short = ship(json!({"address": "x"})).await;
        assert_eq!((short.status(), faults(&short.json())), (422, vec![("/address", "length")]), "{short}");
        let wrong = ship(json!({"adress": "home", "address": 7})).await.json();
        assert_eq!(faults(&wrong), [("/address", "type"), ("/adress", "unknown")]);
        let absent = app.post(&format!("{path}/ship")).bearer("clerk").await;
        assert_eq!((absent.status(), faults(&absent.json())), (422, vec![("", "required")]), "{absent}");
        let surplus = app.post(&format!("{path}/submit")).bearer("ada").json(json!({"x": 1})).await;
        assert_eq!(faults(&surplus.json()), [("/x", "unknown")]);
        let text = app.post(&format!("{path}/ship")).bearer("clerk").header("content-type", "text/plain");
        assert_eq!(text.body("home").await.header("accept-post"), Some("application/json"));
    }
}

#[tokio::test]
async fn action_honors_if_match_and_a_no_op_emits_no_event() {
    for place in TestStorage::all().await {
        let app = app(&place).await;
        let path = order(&app, 5).await;
        let touch = |tag: &str| app.post(&format!("{path}/touch")).bearer("ada").header("if-match", tag);
        let touched = touch("\"1\"").await;
        assert_eq!((touched.status(), touched.header("etag")), (200, Some("\"1\"")), "{touched}");
        assert_eq!(touched.json()["total_cents"], 5, "an action without an output answers the item");
        assert_eq!(touch("\"2\"").await.status(), 412);
        assert_eq!(event_types(&app).await, ["orders.created"]);
        let dry_run =
            app.post(&format!("{path}/submit")).bearer("ada").header("prefer", "dry-run").await.json();
        assert_eq!(
            (&dry_run["body"]["status"], &dry_run["events"][0]["type"]),
            (&json!("submitted"), &json!("orders.submit"))
        );
        assert_eq!(app.get(&path).bearer("ada").await.json()["status"], "draft");
    }
}

#[tokio::test]
async fn collection_action_is_atomic() {
    for place in TestStorage::all().await {
        let app = app(&place).await;
        let import = async |who: &str, totals| {
            app.post("/orders/import").bearer(who).json(json!({"totals": totals})).await.status()
        };
        assert_eq!(import("clerk", json!([1, 2])).await, 200, "{}", place.name);
        assert_eq!(import("ada", json!([1])).await, 403);
        assert_eq!(import("clerk", json!(["x"])).await, 422);
        assert_eq!(event_types(&app).await, ["orders.created", "orders.created"]);
        assert_eq!(app.get("/orders").bearer("clerk").await.items().len(), 2);
        assert_eq!(app.get("/orders").bearer("ada").await.items().len(), 0, "they are the importer's");
    }
}

#[tokio::test]
async fn state_changes_only_through_transitions() {
    for place in TestStorage::all().await {
        let app = app(&place).await;
        let path = order(&app, 0).await;
        let patched = app.patch(&path).bearer("ada").json(json!({"status": "shipped"})).await;
        assert_eq!(faults(&patched.json()), [("/status", "read-only")], "{patched}");
        let posted =
            app.post("/orders").bearer("ada").json(json!({"status": "shipped", "total_cents": 1})).await;
        assert_eq!(faults(&posted.json()), [("/status", "read-only")], "{posted}");
        let put = app.put(&path).bearer("ada").json(json!({"total_cents": 0})).await;
        assert_eq!((put.status(), put.json()["status"].clone()), (200, json!("draft")), "{put}");

        let refused = app.post(&format!("{path}/submit")).bearer("ada").await;
        assert_eq!((refused.status(), refused.json()["code"].clone()), (409, json!("empty")), "its guard");
        app.patch(&path).bearer("ada").json(json!({"total_cents": 9})).await;
        let submitted = app.post(&format!("{path}/submit")).bearer("ada").await;
        assert_eq!(submitted.json()["status"], "submitted", "{submitted}");
        let again = app.post(&format!("{path}/submit")).bearer("ada").await;
        let detail = again.json()["detail"].as_str().unwrap().to_owned();
        assert_eq!((again.status(), again.json()["code"].clone()), (409, json!("illegal-transition")));
        assert_eq!(
            detail,
            "`submit` is no transition from status `submitted`: its transitions are `cancel`."
        );
        assert_eq!(invoke(&app, &path, "cancel", "ada").await, 200);
        let ended = app.post(&format!("{path}/cancel")).bearer("ada").await.json();
        assert!(ended["detail"].as_str().unwrap().ends_with("that state has no transitions."), "{ended}");
    }
}

#[tokio::test]
async fn one_of_many_concurrent_transitions_succeeds() {
    for place in TestStorage::all().await {
        let app = app(&place).await;
        let path = order(&app, 5).await;
        let all = futures::future::join_all((0..8).map(|_| invoke(&app, &path, "submit", "ada"))).await;
        assert_eq!(all.iter().filter(|status| **status == 200).count(), 1, "{}: {all:?}", place.name);
        assert!(all.iter().all(|status| [200, 409].contains(status)), "{all:?}");
    }
}

#[tokio::test]
async fn actions_are_documented_and_pass_the_policy_matrix() {
    let app = app(&TestStorage::memory()).await;
    for total in [1, 2] {
        order(&app, total).await;
    }
    let document = app.get("/openapi.json").await.json();
    let ship = &document["paths"]["/orders/{id}/ship"]["post"];
    assert_eq!((&ship["operationId"], &ship["summary"]), (&json!("ship_order"), &json!("Ship an order")));
    assert!(ship["description"].as_str().unwrap().starts_with("Sends it away. Needs"), "{ship}");
    let input = &ship["requestBody"]["content"]["application/json"]["schema"]["$ref"];
    assert_eq!(input, "#/components/schemas/Order_ShipInput");
    assert_eq!(document["components"]["schemas"]["Order_ShipInput"]["required"], json!(["address"]));
    let output = &ship["responses"]["200"]["content"]["application/json"]["schema"]["$ref"];
    assert_eq!(output, "#/components/schemas/Order_ShipOutput");
    let submit = &document["paths"]["/orders/{id}/submit"]["post"];
    assert_eq!(submit["requestBody"]["required"], false);
    let answers = &submit["responses"]["200"]["content"]["application/json"]["schema"]["$ref"];
    assert_eq!(answers, "#/components/schemas/Order");
    assert!(document["paths"]["/orders/import"]["post"].is_object());

    let mut matrix = policy_matrix(&app);
    let callers = [Actor::user("ada"), Actor::user("bob"), Actor::user("cleo").with_role("clerk")];
    for (token, actor) in ["ada", "bob", "clerk"].into_iter().zip(callers) {
        matrix = matrix.caller(token, actor, [("authorization", format!("Bearer {token}").as_str())]);
    }
    let report = matrix.run().await.unwrap();
    report.assert_passed();
}

#[tokio::test]
async fn conflicting_and_unknown_declarations_are_reported_as_faults() {
    let place = TestStorage::memory();
    let declare = || {
        define_resource::<Order>("orders")
            .adapter(place.table("orders"))
            .permissions(Permissions::all(signed_in()))
    };
    let said = |builder: resourceful::ResourceBuilder| builder.build().unwrap_err().to_string();
    let twice = said(
        declare()
            .states(StateMachine::of("status", "draft").transition("ship", ["draft"], "shipped", signed_in()))
            .action("ship", Action::on_item(role("clerk"), ship)),
    );
    assert!(twice.contains(".action(\"ship\", …) twice claim the path /{id}/ship"), "{twice}");
    let presets = said(declare().preset(owned_by("user_id")).preset(multi_tenant("user_id")));
    assert!(
        presets
            .contains("the preset `owned_by` and the preset `multi_tenant` both claim the field `user_id`"),
        "{presets}"
    );
    let unknown = said(declare().states(StateMachine::of("status", "open").transition(
        "end",
        ["open"],
        "shut",
        signed_in(),
    )));
    assert!(
        unknown.contains("`open` is no state of it") && unknown.contains("one of draft, submitted"),
        "{unknown}"
    );
    let field = said(declare().states(StateMachine::of("state", "draft")));
    assert!(field.contains("a field that the model does not have"), "{field}");
    let number = said(declare().states(StateMachine::of("total_cents", "draft")));
    assert!(number.contains("a field that is no text"), "{number}");
    let name = said(declare().action("Send Back", Action::on_item(signed_in(), ship)));
    assert!(name.contains("cannot be the name of an action"), "{name}");
    let taken = said(declare().action("query", Action::on_collection(signed_in(), import)));
    assert!(taken.contains("the path is reserved"), "{taken}");
}
