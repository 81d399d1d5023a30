//! Whose sight an endpoint is sent by, and who may change that.

use resourceful::adapter::Migration;
use resourceful::events::Webhooks;
use resourceful::prelude::*;
use resourceful::testing::TestApp;
use serde_json::{Value as Json, json};

use crate::policies::model;
use crate::support::Place;
use crate::support::receiver::Receiver;
use crate::webhooks::{at, builder, endpoint, hurry, job, webhooks};

/// The fields that a path was sent of the next job.
async fn sent(app: &TestApp, receiver: &Receiver, path: &str, code: &str) -> Vec<String> {
    job(app, "boss", code, json!({})).await;
    app.app().deliver().await.unwrap();
    let [message] = <[_; 1]>::try_from(receiver.took(path)).unwrap();
    message.json()["data"].as_object().unwrap().keys().cloned().collect()
}

#[tokio::test]
async fn nobody_lends_their_sight_to_an_address_that_somebody_else_named() {
    for place in Place::all().await {
        let receiver = Receiver::start().await;
        let auditors = || tenant_role("admin");
        let webhooks = webhooks(&place).endpoints(move |endpoints| {
            let trail = audit().readable_by(auditors()).revertible_by(auditors());
            endpoints.preset(bulk()).preset(trail)
        });
        let app = TestApp::build(builder(&place).webhooks(webhooks).batch(10)).await.unwrap();
        let of_ann = endpoint(&app, "ann", &receiver.url("/ann"), &["jobs.*"]).await;
        let first: Json = app.get(&at(&of_ann, "/history")).bearer("ann").await.json();
        let then = first["items"][0]["at"].as_str().unwrap().to_owned();
        let (item, id) = (at(&of_ann, ""), of_ann["id"].as_str().unwrap());
        let whole = json!({"url": receiver.url("/ann"), "events": ["*"]});
        let many = json!({"filter": {"enabled": true}, "patch": {"description": "b"}, "max_affected": 10});
        let batch = json!({"operations": [
            {"operation": "update", "resource": "webhook_endpoints", "id": id, "body": {"description": "c"}},
        ]});
        for (method, path, body) in [
            ("PATCH", item.clone(), json!({"description": "a"})),
            ("PATCH", item.clone(), json!({"enabled": true, "url": receiver.url("/ann")})),
            ("PUT", item.clone(), whole),
            ("PATCH", "/webhook_endpoints/bulk".to_owned(), many),
            ("POST", "/batch".to_owned(), batch),
            ("POST", at(&of_ann, "/rotate-secret"), json!({})),
            ("POST", at(&of_ann, "/reveal-secret"), json!({})),
            ("POST", at(&of_ann, "/revert"), json!({"as_of": then})),
        ] {
            let changed = app.request(method, &path).bearer("boss").json(body).await;
            assert!(changed.status() < 300, "{method} {path}: {changed}");
            assert_eq!(app.get(&item).bearer("boss").await.json()["owner_id"], "ann", "{method} {path}");
        }
        assert_eq!(sent(&app, &receiver, "/ann", "j1").await, ["code", "org_id", "secret"]);

        let taken = app.post(&at(&of_ann, "/take-over")).bearer("bob").await;
        assert_eq!(taken.status(), 404, "{taken}");
        let taken = app.post(&at(&of_ann, "/take-over")).bearer("boss").await;
        assert_eq!((taken.status(), &taken.json()["owner_id"]), (200, &json!("boss")), "{taken}");
        assert_eq!(sent(&app, &receiver, "/ann", "j2").await, ["code", "org_id", "salary", "secret"]);
        // Who names another address is the owner of it.
        let moved = app.patch(&item).bearer("ann").json(json!({"url": receiver.url("/moved")})).await;
        assert_eq!(moved.json()["owner_id"], "ann");
        assert_eq!(sent(&app, &receiver, "/moved", "j3").await, ["code", "org_id", "secret"]);
    }
}

#[tokio::test]
async fn an_endpoint_of_what_is_no_more_can_still_be_changed() {
    for place in Place::all().await.into_iter().filter(|place| place.name != "memory") {
        let receiver = Receiver::start().await;
        let app = TestApp::build(builder(&place).webhooks(webhooks(&place))).await.unwrap();
        let old = endpoint(&app, "ann", &receiver.url("/hook"), &["jobs.*"]).await;
        let events = match place.name {
            "sqlite" => r#"'["gone.*", "jobs.created"]'"#,
            _ => "ARRAY['gone.*', 'jobs.created']",
        };
        let sql = format!("UPDATE resourceful_webhook_endpoints SET events = {events}");
        place.storage().migrate(&[Migration::new("renamed", 1, "renamed", sql)], true).await.unwrap();
        for _ in 0..7 {
            let rotated = app.post(&at(&old, "/rotate-secret")).bearer("ann").await;
            assert_eq!(rotated.status(), 200, "{rotated}");
        }
        let noted = app.patch(&at(&old, "")).bearer("ann").json(json!({"description": "old"})).await;
        assert_eq!(noted.status(), 200, "{noted}");
        let more = json!({"events": ["gone.*", "gone.created"]});
        let refused = app.patch(&at(&old, "")).bearer("ann").json(more).await;
        assert_eq!((refused.status(), &refused.json()["errors"][0]["pointer"]), (422, &json!("/events/1")));
        // However often it was rotated, a message holds a few signatures.
        job(&app, "ann", "j", json!({})).await;
        app.app().deliver().await.unwrap();
        let [message] = <[_; 1]>::try_from(receiver.took("/hook")).unwrap();
        assert_eq!(message.header("webhook-signature").split(' ').count(), 5);
        receiver.answers("/hook", 410);
        job(&app, "ann", "k", json!({})).await;
        app.app().deliver().await.unwrap();
        assert_eq!(app.get(&at(&old, "")).bearer("ann").await.json()["enabled"], false);
    }
}

#[tokio::test]
async fn times_that_never_end_are_no_trouble() {
    let (place, receiver) = (Place::memory(), Receiver::start().await);
    let webhooks = webhooks(&place).deadline(Duration::MAX).backoff([Duration::MAX]).retention(Duration::MAX);
    let webhooks = webhooks.secret_overlap(Duration::MAX);
    let app = TestApp::build(builder(&place).webhooks(webhooks)).await.unwrap();
    let endpoint = endpoint(&app, "ann", &receiver.url("/hook"), &["jobs.*"]).await;
    assert_eq!(app.post(&at(&endpoint, "/rotate-secret")).bearer("ann").await.status(), 200);
    receiver.answers("/hook", 500);
    job(&app, "ann", "j", json!({})).await;
    app.app().deliver().await.unwrap();
    app.app().sweep().await.unwrap();
    let log = app.get("/webhook_deliveries").bearer("ann").await.items();
    assert_eq!((log.len(), &log[0]["state"], &log[0]["attempts"]), (1, &json!("pending"), &json!(1)));
}

#[tokio::test]
async fn the_document_tells_of_endpoints_what_is_shown_of_them() {
    let app = TestApp::build(builder(&Place::memory()).webhooks(webhooks(&Place::memory()))).await.unwrap();
    let document = app.get("/openapi.json").await.json();
    let shapes = document["components"]["schemas"].as_object().unwrap();
    let of_endpoints: Vec<_> = shapes.keys().filter(|name| name.starts_with("WebhookEndpoint")).collect();
    let shown = &shapes["WebhookEndpoint"]["properties"];
    assert!(shown.get("url").is_some() && shown.get("owner_id").is_some(), "{shown}");
    assert!(shown.get("secrets").is_none() && shown.get("owner").is_none(), "{shown}");
    // Nor is the shape of what is hidden.
    assert!(!of_endpoints.iter().any(|name| name.ends_with("EndpointSecret")), "{of_endpoints:?}");
    let told = &shapes["WebhookEndpoint_RotateSecretOutput"]["properties"];
    assert_eq!(told.as_object().unwrap().keys().collect::<Vec<_>>(), ["secret"]);
}

#[tokio::test]
async fn what_is_tried_again_is_judged_by_all_of_the_event() {
    for place in Place::all().await.into_iter().filter(|place| place.name != "memory") {
        let receiver = Receiver::start().await;
        // A rule speaks of what its callers are not told.
        let drafts = define_dynamic_resource("drafts", model(&["code", "author", "editor", "text"]))
            .adapter(place.table("drafts"))
            .id_field("code")
            .permissions(Permissions::all(tenant_member()))
            .policy_on([Operation::Read, Operation::List], all_of([owner("author"), owner("editor")]))
            .redacted_for(["author"], tenant_member(), json!("somebody"))
            .visible_to(["editor"], role("chief"))
            .build()
            .unwrap();
        let app = builder(&place).resource(drafts).webhooks(webhooks(&place));
        let app = TestApp::build(app).await.unwrap();
        endpoint(&app, "ann", &receiver.url("/hook"), &["drafts.*"]).await;
        receiver.answers("/hook", 500);
        let draft = |code: &str| json!({"code": code, "author": "ann", "editor": "ann", "text": ""});
        app.app().load().rows("drafts", [draft("kept"), draft("gone")]).unwrap().commit().await.unwrap();
        assert_eq!(app.patch("/drafts/kept").bearer("ann").json(json!({"text": "t"})).await.status(), 200);
        assert_eq!(app.delete("/drafts/gone").bearer("ann").await.status(), 204);
        app.app().deliver().await.unwrap();
        let tried = receiver.took("/hook").len();
        assert_eq!(tried, 2);
        receiver.answers("/hook", 204);
        hurry(&place, &app).await;
        let again = receiver.took("/hook");
        assert_eq!(again.len(), tried, "{}", place.name);
        assert!(again.iter().any(|message| message.json()["type"] == "drafts.deleted"));
        for message in again {
            let data = &message.json()["data"];
            assert_eq!((&data["author"], data.get("editor")), (&json!("somebody"), None), "{data}");
        }
    }
}

#[tokio::test]
async fn in_production_tables_that_are_missing_are_named() {
    let database = Sql::connect("sqlite::memory:").await.unwrap();
    let webhooks = Webhooks::stored_in(&database.storage(), role("admin"), async |owner| Ok(Some(owner)));
    let production = || create_app(AppPreset::Production).secret("0".repeat(32));
    let refused = production().webhooks(webhooks).build().await.unwrap_err().to_string();
    for said in ["0002_webhooks` is not applied", "RESOURCEFUL_MIGRATE=1"] {
        assert!(refused.contains(said), "{said}: {refused}");
    }
    let webhooks = || Webhooks::stored_in(&database.storage(), role("admin"), async |owner| Ok(Some(owner)));
    production().webhooks(webhooks()).migrate().await.unwrap();
    production().webhooks(webhooks()).build().await.unwrap();
}

#[tokio::test]
async fn the_events_that_can_be_wanted_are_those_that_are_left() {
    let app = crate::examples::shop(&Place::memory()).await;
    let ada = crate::examples::token("ACME_ADMIN");
    let wants = |events: Json| {
        let body = json!({"url": "https://example.com/", "events": events});
        app.post("/webhook_endpoints").bearer(&ada).json(body)
    };
    let left = ["products.restocked", "products.restored", "products.purged", "orders.pay", "orders.updated"];
    let wanted = wants(json!(left)).await;
    assert_eq!(wanted.status(), 201, "{wanted}");
    let refused = wants(json!(["orders.updated", "products.revert"])).await;
    assert_eq!((refused.status(), &refused.json()["errors"][0]["pointer"]), (422, &json!("/events/1")));
    assert_eq!(
        refused.json()["errors"][0]["detail"].as_str().unwrap().split(". ").next().unwrap(),
        "No such event: `products` leaves created, deleted, purged, restocked, restored, updated",
    );
}
