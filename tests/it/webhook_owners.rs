//! Whose sight an endpoint is sent by, and who may change that.

use resourceful::adapter::Migration;
use resourceful::events::Webhooks;
use resourceful::prelude::*;
use resourceful::testing::TestApp;
use serde_json::{Value as Json, json};

use crate::policies::model;
use crate::support::TestStorage;
use crate::support::receiver::Receiver;
use crate::webhooks::{builder, create_endpoint, create_job, endpoint_path, make_all_due, webhooks};

/// The fields that a path was sent of the next job.
async fn delivered_fields(app: &TestApp, receiver: &Receiver, path: &str, code: &str) -> Vec<String> {
    create_job(app, "boss", code, json!({})).await;
    app.app().deliver().await.unwrap();
    let [message] = <[_; 1]>::try_from(receiver.take_messages(path)).unwrap();
    message.json()["data"].as_object().unwrap().keys().cloned().collect()
}

#[tokio::test]
async fn endpoint_keeps_its_owner_until_take_over_or_url_change() {
    for storage in TestStorage::all().await {
        let receiver = Receiver::start().await;
        let auditors = || tenant_role("admin");
        let webhooks = webhooks(&storage).endpoints(move |endpoints| {
            let trail = audit().readable_by(auditors()).revertible_by(auditors());
            endpoints.preset(bulk()).preset(trail)
        });
        let app = TestApp::build(builder(&storage).webhooks(webhooks).batch(10)).await.unwrap();
        let of_ann = create_endpoint(&app, "ann", &receiver.url("/ann"), &["jobs.*"]).await;
        let first: Json = app.get(&endpoint_path(&of_ann, "/history")).bearer("ann").await.json();
        let then = first["items"][0]["at"].as_str().unwrap().to_owned();
        let (item, id) = (endpoint_path(&of_ann, ""), of_ann["id"].as_str().unwrap());
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
            ("POST", endpoint_path(&of_ann, "/rotate-secret"), json!({})),
            ("POST", endpoint_path(&of_ann, "/reveal-secret"), json!({})),
            ("POST", endpoint_path(&of_ann, "/revert"), json!({"as_of": then})),
        ] {
            let changed = app.request(method, &path).bearer("boss").json(body).await;
            assert!(changed.status() < 300, "{method} {path}: {changed}");
            assert_eq!(app.get(&item).bearer("boss").await.json()["owner_id"], "ann", "{method} {path}");
        }
        assert_eq!(delivered_fields(&app, &receiver, "/ann", "j1").await, ["code", "org_id", "secret"]);

        let taken = app.post(&endpoint_path(&of_ann, "/take-over")).bearer("bob").await;
        assert_eq!(taken.status(), 404, "{taken}");
        let taken = app.post(&endpoint_path(&of_ann, "/take-over")).bearer("boss").await;
        assert_eq!((taken.status(), &taken.json()["owner_id"]), (200, &json!("boss")), "{taken}");
        assert_eq!(
            delivered_fields(&app, &receiver, "/ann", "j2").await,
            ["code", "org_id", "salary", "secret"]
        );
        // Who names another address is the owner of it.
        let moved = app.patch(&item).bearer("ann").json(json!({"url": receiver.url("/moved")})).await;
        assert_eq!(moved.json()["owner_id"], "ann");
        assert_eq!(delivered_fields(&app, &receiver, "/moved", "j3").await, ["code", "org_id", "secret"]);
    }
}

#[tokio::test]
async fn endpoint_with_removed_event_types_can_still_be_updated() {
    for storage in TestStorage::all().await.into_iter().filter(|storage| storage.name != "memory") {
        let receiver = Receiver::start().await;
        let app = TestApp::build(builder(&storage).webhooks(webhooks(&storage))).await.unwrap();
        let old = create_endpoint(&app, "ann", &receiver.url("/hook"), &["jobs.*"]).await;
        let events = match storage.name {
            "sqlite" => r#"'["gone.*", "jobs.created"]'"#,
            _ => "ARRAY['gone.*', 'jobs.created']",
        };
        let sql = format!("UPDATE resourceful_webhook_endpoints SET events = {events}");
        storage.storage().migrate(&[Migration::new("renamed", 1, "renamed", sql)], true).await.unwrap();
        for _ in 0..7 {
            let rotated = app.post(&endpoint_path(&old, "/rotate-secret")).bearer("ann").await;
            assert_eq!(rotated.status(), 200, "{rotated}");
        }
        let noted =
            app.patch(&endpoint_path(&old, "")).bearer("ann").json(json!({"description": "old"})).await;
        assert_eq!(noted.status(), 200, "{noted}");
        let more = json!({"events": ["gone.*", "gone.created"]});
        let refused = app.patch(&endpoint_path(&old, "")).bearer("ann").json(more).await;
        assert_eq!((refused.status(), &refused.json()["errors"][0]["pointer"]), (422, &json!("/events/1")));
        // However often it was rotated, a message holds a few signatures.
        create_job(&app, "ann", "j", json!({})).await;
        app.app().deliver().await.unwrap();
        let [message] = <[_; 1]>::try_from(receiver.take_messages("/hook")).unwrap();
        assert_eq!(message.header("webhook-signature").split(' ').count(), 5);
        receiver.respond_with("/hook", 410);
        create_job(&app, "ann", "k", json!({})).await;
        app.app().deliver().await.unwrap();
        assert_eq!(app.get(&endpoint_path(&old, "")).bearer("ann").await.json()["enabled"], false);
    }
}

#[tokio::test]
async fn maximum_durations_do_not_overflow() {
    let (storage, receiver) = (TestStorage::memory(), Receiver::start().await);
    let webhooks =
        webhooks(&storage).deadline(Duration::MAX).backoff([Duration::MAX]).retention(Duration::MAX);
    let webhooks = webhooks.secret_overlap(Duration::MAX);
    let app = TestApp::build(builder(&storage).webhooks(webhooks)).await.unwrap();
    let endpoint = create_endpoint(&app, "ann", &receiver.url("/hook"), &["jobs.*"]).await;
    assert_eq!(app.post(&endpoint_path(&endpoint, "/rotate-secret")).bearer("ann").await.status(), 200);
    receiver.respond_with("/hook", 500);
    create_job(&app, "ann", "j", json!({})).await;
    app.app().deliver().await.unwrap();
    app.app().sweep().await.unwrap();
    let log = app.get("/webhook_deliveries").bearer("ann").await.items();
    assert_eq!((log.len(), &log[0]["state"], &log[0]["attempts"]), (1, &json!("pending"), &json!(1)));
}

#[tokio::test]
async fn openapi_describes_only_visible_endpoint_fields() {
    let app = TestApp::build(builder(&TestStorage::memory()).webhooks(webhooks(&TestStorage::memory())))
        .await
        .unwrap();
    let document = app.get("/openapi.json").await.json();
    let shapes = document["components"]["schemas"].as_object().unwrap();
    let of_endpoints: Vec<_> = shapes.keys().filter(|name| name.starts_with("WebhookEndpoint")).collect();
    let shown = &shapes["WebhookEndpoint"]["properties"];
    assert!(shown.get("url").is_some() && shown.get("owner_id").is_some(), "{shown}");
    assert!(shown.get("secrets").is_none() && shown.get("owner").is_none(), "{shown}");
    // Nor is the shape of what is hidden.
    assert!(!of_endpoints.iter().any(|name| name.ends_with("EndpointSecret")), "{of_endpoints:?}");
    let output = &shapes["WebhookEndpoint_RotateSecretOutput"]["properties"];
    assert_eq!(output.as_object().unwrap().keys().collect::<Vec<_>>(), ["secret"]);
}

#[tokio::test]
async fn retry_evaluates_rules_on_the_complete_event() {
    for storage in TestStorage::all().await.into_iter().filter(|storage| storage.name != "memory") {
        let receiver = Receiver::start().await;
        // A rule speaks of what its callers are not told.
        let drafts = define_dynamic_resource("drafts", model(&["code", "author", "editor", "text"]))
            .adapter(storage.table("drafts"))
            .id_field("code")
            .permissions(Permissions::all(tenant_member()))
            .policy_on([Operation::Read, Operation::List], all_of([owner("author"), owner("editor")]))
            .redacted_for(["author"], tenant_member(), json!("somebody"))
            .visible_to(["editor"], role("chief"))
            .build()
            .unwrap();
        let app = builder(&storage).resource(drafts).webhooks(webhooks(&storage));
        let app = TestApp::build(app).await.unwrap();
        create_endpoint(&app, "ann", &receiver.url("/hook"), &["drafts.*"]).await;
        receiver.respond_with("/hook", 500);
        let draft = |code: &str| json!({"code": code, "author": "ann", "editor": "ann", "text": ""});
        app.app().load().rows("drafts", [draft("kept"), draft("gone")]).unwrap().commit().await.unwrap();
        assert_eq!(app.patch("/drafts/kept").bearer("ann").json(json!({"text": "t"})).await.status(), 200);
        assert_eq!(app.delete("/drafts/gone").bearer("ann").await.status(), 204);
        app.app().deliver().await.unwrap();
        let tried = receiver.take_messages("/hook").len();
        assert_eq!(tried, 2);
        receiver.respond_with("/hook", 204);
        make_all_due(&storage, &app).await;
        let again = receiver.take_messages("/hook");
        assert_eq!(again.len(), tried, "{}", storage.name);
        assert!(again.iter().any(|message| message.json()["type"] == "drafts.deleted"));
        for message in again {
            let data = &message.json()["data"];
            assert_eq!((&data["author"], data.get("editor")), (&json!("somebody"), None), "{data}");
        }
    }
}

#[tokio::test]
async fn production_build_names_missing_webhook_migrations() {
    let database = Sql::connect("sqlite::memory:").await.unwrap();
    let webhooks = Webhooks::stored_in(&database.storage(), role("admin"), async |owner| Ok(Some(owner)));
    let production = || create_app(AppPreset::Production).secret("0".repeat(32));
    let refused = production().webhooks(webhooks).build().await.unwrap_err().to_string();
    for expected in ["0002_webhooks` is not applied", "RESOURCEFUL_MIGRATE=1"] {
        assert!(refused.contains(expected), "{expected}: {refused}");
    }
    let webhooks = || Webhooks::stored_in(&database.storage(), role("admin"), async |owner| Ok(Some(owner)));
    production().webhooks(webhooks()).migrate().await.unwrap();
    production().webhooks(webhooks()).build().await.unwrap();
}

#[tokio::test]
async fn endpoint_accepts_only_event_types_that_are_emitted() {
    let app = crate::examples::shop(&TestStorage::memory()).await;
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
