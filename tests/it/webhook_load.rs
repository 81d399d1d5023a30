//! Endpoints that answer late, never, or with nonsense, and who is kept waiting by them: nobody else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use resourceful::adapter::Migration;
use resourceful::events::Webhooks;
use resourceful::prelude::*;
use resourceful::testing::TestApp;
use serde_json::{Value as Json, json};

use crate::support::TestStorage;
use crate::support::receiver::Receiver;
use crate::webhooks::{
    builder, create_endpoint, create_job, delivery_log, endpoint_path, make_all_due, webhooks,
};

async fn run_sql(storage: &TestStorage, sql: &str) {
    let name = Uuid::now_v7().simple().to_string();
    storage.storage().migrate(&[Migration::new(name, 1, "by hand", sql)], true).await.unwrap();
}

/// A time so many minutes ahead, as the stores write it.
fn minutes_ahead(minutes: i64) -> String {
    (Utc::now() + chrono::TimeDelta::minutes(minutes)).to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
}

async fn create_note(app: &TestApp, code: &str) {
    assert_eq!(app.post("/notes").json(json!({"code": code})).await.status(), 201);
}

#[tokio::test]
async fn hanging_endpoints_of_a_tenant_do_not_block_other_tenants() {
    for storage in TestStorage::all().await {
        let receiver = Receiver::start().await;
        // Longer than anybody waits here: what hangs stays where it is.
        let webhooks = webhooks(&storage).deadline(Duration::from_secs(600));
        let app = TestApp::build(builder(&storage).webhooks(webhooks)).await.unwrap();
        receiver.respond_with("/hangs", 0);
        for _ in 0..40 {
            create_endpoint(&app, "ann", &receiver.url("/hangs"), &["notes.*"]).await;
        }
        create_endpoint(&app, "bob", &receiver.url("/works"), &["notes.*"]).await;
        for number in 0..5 {
            create_note(&app, &format!("n{number}")).await;
        }
        let background = app.app().background();
        receiver.wait_for_messages("/works", 5).await;
        background.stop().await;
    }
}

#[tokio::test]
async fn endpoint_failing_for_days_is_disabled() {
    for storage in TestStorage::all().await.into_iter().filter(|storage| storage.name != "memory") {
        let receiver = Receiver::start().await;
        let app = TestApp::build(builder(&storage).webhooks(webhooks(&storage))).await.unwrap();
        let dead = create_endpoint(&app, "ann", &receiver.url("/dead"), &["jobs.*"]).await;
        let picky = create_endpoint(&app, "ann", &receiver.url("/picky"), &["jobs.*"]).await;
        create_job(&app, "ann", "j1", json!({})).await;
        receiver.respond_with("/dead", 500);
        app.app().deliver().await.unwrap();
        // What was sent lies a week back for both; one of them answered another message meanwhile.
        run_sql(
            &storage,
            "UPDATE resourceful_webhook_deliveries SET created_at = '2020-01-01T00:00:00.000000Z'",
        )
        .await;
        create_job(&app, "ann", "j2", json!({})).await;
        app.app().deliver().await.unwrap();
        run_sql(
            &storage,
            "UPDATE resourceful_webhook_deliveries SET state = 'pending', attempts = 1, \
             next_attempt_at = created_at WHERE subject = 'j1'",
        )
        .await;
        receiver.respond_with("/picky", 500);
        app.app().deliver().await.unwrap();
        let [dead, picky] = [
            app.get(&endpoint_path(&dead, "")).bearer("ann").await,
            app.get(&endpoint_path(&picky, "")).bearer("ann").await,
        ];
        let reason = json!("it had no successful delivery for 5 days");
        assert_eq!((&dead.json()["enabled"], &dead.json()["disabled_reason"]), (&json!(false), &reason));
        assert_eq!(picky.json()["enabled"], true, "{picky}");
    }
}

#[tokio::test]
async fn postponed_deliveries_are_sent_after_recovery() {
    for storage in TestStorage::all().await.into_iter().filter(|storage| storage.name != "memory") {
        let receiver = Receiver::start().await;
        let app = TestApp::build(builder(&storage).webhooks(webhooks(&storage))).await.unwrap();
        create_endpoint(&app, "ann", &receiver.url("/hook"), &["jobs.*"]).await;
        receiver.respond_with("/hook", 500);
        for number in 0..150 {
            create_job(&app, "ann", &format!("j{number}"), json!({})).await;
        }
        app.app().deliver().await.unwrap();
        receiver.take_messages("/hook");
        // As for an endpoint that has failed for long.
        run_sql(
            &storage,
            &format!(
                "UPDATE resourceful_webhook_deliveries SET state = 'queued', attempts = 0, next_attempt_at = '{}'",
                minutes_ahead(30)
            ),
        )
        .await;
        receiver.respond_with("/hook", 204);
        create_job(&app, "ann", "one more", json!({})).await;
        app.app().deliver().await.unwrap();
        assert_eq!(receiver.take_messages("/hook").len(), 151);
    }
}

#[tokio::test]
async fn claim_by_a_fast_clock_delays_nothing() {
    for storage in TestStorage::all().await.into_iter().filter(|storage| storage.name != "memory") {
        let receiver = Receiver::start().await;
        let app = TestApp::build(builder(&storage).webhooks(webhooks(&storage))).await.unwrap();
        create_endpoint(&app, "ann", &receiver.url("/hook"), &["jobs.*"]).await;
        receiver.respond_with("/hook", 500);
        for job_code in ["claimed", "paused"] {
            create_job(&app, "ann", job_code, json!({})).await;
        }
        app.app().deliver().await.unwrap();
        receiver.take_messages("/hook");
        receiver.respond_with("/hook", 204);
        // The pauses of these webhooks take an hour. No clock that is right writes a time three days ahead.
        for (subject, minutes) in [("claimed", 3 * 24 * 60), ("paused", 59)] {
            let sql = format!(
                "UPDATE resourceful_webhook_deliveries SET next_attempt_at = '{}' WHERE subject = '{subject}'",
                minutes_ahead(minutes)
            );
            run_sql(&storage, &sql).await;
        }
        app.app().deliver().await.unwrap();
        let sent = receiver.take_messages("/hook");
        assert_eq!(sent.len(), 1, "{}", storage.name);
        let event: Json = serde_json::from_slice(&sent[0].body).unwrap();
        assert_eq!(event["subject"], "claimed");
    }
}

#[tokio::test]
async fn panicking_owner_lookup_is_retried() {
    for storage in TestStorage::all().await.into_iter().filter(|storage| storage.name != "memory") {
        let receiver = Receiver::start().await;
        let panics = Arc::new(AtomicBool::new(true));
        let asked = panics.clone();
        let webhooks = Webhooks::stored_in(storage.storage(), tenant_role("admin"), move |owner| {
            let panics = asked.clone();
            async move {
                assert!(!panics.load(Ordering::SeqCst), "the directory fell over");
                Ok(Some(owner))
            }
        });
        let webhooks = webhooks.private_targets(true).backoff([Duration::from_secs(3600); 3]);
        let app = TestApp::build(builder(&storage).webhooks(webhooks)).await.unwrap();
        create_endpoint(&app, "ann", &receiver.url("/hook"), &["jobs.*"]).await;
        create_job(&app, "ann", "j", json!({})).await;
        app.app().deliver().await.unwrap();
        assert!(receiver.take_messages("/hook").is_empty());
        panics.store(false, Ordering::SeqCst);
        make_all_due(&storage, &app).await;
        assert_eq!(receiver.take_messages("/hook").len(), 1);
        let tried: Vec<Json> = delivery_log(&app, "ann").await;
        assert_eq!(
            (tried.len(), &tried[0]["attempts"], &tried[0]["state"]),
            (1, &json!(2), &json!("delivered"))
        );
    }
}

#[tokio::test]
async fn unreadable_rows_do_not_block_other_deliveries() {
    for storage in TestStorage::all().await.into_iter().filter(|storage| storage.name == "sqlite") {
        let receiver = Receiver::start().await;
        let app = TestApp::build(builder(&storage).webhooks(webhooks(&storage))).await.unwrap();
        let odd = create_endpoint(&app, "ann", &receiver.url("/odd"), &["jobs.*"]).await;
        create_endpoint(&app, "ann", &receiver.url("/hook"), &["jobs.*"]).await;
        receiver.respond_with("/hook", 500);
        create_job(&app, "ann", "j1", json!({})).await;
        app.app().deliver().await.unwrap();
        // As a later version of the library may write it.
        let odd = odd["id"].as_str().unwrap();
        run_sql(
            &storage,
            &format!("UPDATE resourceful_webhook_endpoints SET secrets = '[{{}}]' WHERE id = '{odd}'"),
        )
        .await;
        let log = "UPDATE resourceful_webhook_deliveries SET log = '[{}]', state = 'pending', \
                   next_attempt_at = created_at WHERE subject = 'j1'";
        run_sql(&storage, log).await;
        receiver.take_messages("/hook");
        receiver.respond_with("/hook", 204);
        create_job(&app, "ann", "j2", json!({})).await;
        app.app().deliver().await.unwrap();
        assert_eq!(receiver.take_messages("/hook").len(), 1);
        assert!(app.app().dead_letters(10).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn endpoints_per_tenant_are_limited() {
    for storage in TestStorage::all().await {
        let webhooks =
            webhooks(&storage).max_endpoints_per_tenant(2).endpoints(|endpoints| endpoints.preset(bulk()));
        let app = TestApp::build(builder(&storage).webhooks(webhooks)).await.unwrap();
        let one = json!({"url": "https://example.com/", "events": ["*"]});
        let first = create_endpoint(&app, "ann", "https://example.com/", &["*"]).await;
        let two = json!({"items": [one, one]});
        let refused = app.post("/webhook_endpoints/bulk").bearer("boss").json(two).await;
        assert_eq!(
            (refused.status(), &refused.json()["code"]),
            (409, &json!("too-many-endpoints")),
            "{refused}"
        );
        create_endpoint(&app, "boss", "https://example.com/", &["*"]).await;
        let refused = app.post("/webhook_endpoints").bearer("ann").json(one.clone()).await;
        assert_eq!(refused.status(), 409, "{refused}");
        create_endpoint(&app, "bob", "https://example.com/", &["*"]).await;
        assert_eq!(app.delete(&endpoint_path(&first, "")).bearer("ann").await.status(), 204);
        create_endpoint(&app, "ann", "https://example.com/", &["*"]).await;
    }
}

#[tokio::test]
async fn webhooks_may_be_stored_in_another_database_than_their_resources() {
    for storage in TestStorage::all().await {
        let receiver = Receiver::start().await;
        // Where nothing else is kept, and so no outbox.
        let other_storage = TestStorage::memory();
        let app = TestApp::build(builder(&storage).webhooks(webhooks(&other_storage))).await.unwrap();
        let endpoint = create_endpoint(&app, "ann", &receiver.url("/hook"), &["jobs.*"]).await;
        create_job(&app, "ann", "j", json!({})).await;
        app.app().deliver().await.unwrap();
        assert_eq!(receiver.take_messages("/hook").len(), 1);
        receiver.respond_with("/hook", 410);
        create_job(&app, "ann", "k", json!({})).await;
        app.app().deliver().await.unwrap();
        assert_eq!(app.get(&endpoint_path(&endpoint, "")).bearer("ann").await.json()["enabled"], false);
        app.app().sweep().await.unwrap();
    }
}

#[tokio::test]
async fn deliveries_are_never_sent_unsigned() {
    for storage in TestStorage::all().await.into_iter().filter(|storage| storage.name == "sqlite") {
        let (app, receiver) = (
            TestApp::build(builder(&storage).webhooks(webhooks(&storage))).await.unwrap(),
            Receiver::start().await,
        );
        let bare = create_endpoint(&app, "ann", &receiver.url("/hook"), &["jobs.*"]).await;
        // As an application leaves it that makes endpoints by hand.
        run_sql(&storage, "UPDATE resourceful_webhook_endpoints SET secrets = '[]'").await;
        create_job(&app, "ann", "j", json!({})).await;
        app.app().deliver().await.unwrap();
        assert!(receiver.take_messages("/hook").is_empty());
        let reason = &delivery_log(&app, "ann").await[0]["log"][0]["reason"];
        assert!(reason.as_str().unwrap().contains("no secret"), "{reason}");
        assert_eq!(app.post(&endpoint_path(&bare, "/rotate-secret")).bearer("ann").await.status(), 200);
        make_all_due(&storage, &app).await;
        assert_eq!(receiver.take_messages("/hook").len(), 1);
    }
}

#[tokio::test]
async fn endpoint_changed_during_delivery_is_not_disabled() {
    for storage in TestStorage::all().await.into_iter().filter(|storage| storage.name != "memory") {
        let receiver = Receiver::start().await;
        let app = TestApp::build(builder(&storage).webhooks(webhooks(&storage))).await.unwrap();
        let moved = create_endpoint(&app, "ann", &receiver.url("/hook"), &["jobs.*"]).await;
        receiver.respond_with("/hook", 410);
        // Later than any attempt begins.
        run_sql(
            &storage,
            "UPDATE resourceful_webhook_endpoints SET updated_at = '2100-01-01T00:00:00.000000Z'",
        )
        .await;
        create_job(&app, "ann", "j", json!({})).await;
        app.app().deliver().await.unwrap();
        assert_eq!(app.get(&endpoint_path(&moved, "")).bearer("ann").await.json()["enabled"], true);
        let tried = &delivery_log(&app, "ann").await[0];
        assert_eq!((&tried["state"], &tried["log"][0]["status"]), (&json!("pending"), &json!(410)));
    }
}
