//! Endpoints that answer late, never, or with nonsense, and who is kept waiting by them: nobody else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use resourceful::adapter::Migration;
use resourceful::events::Webhooks;
use resourceful::prelude::*;
use resourceful::testing::TestApp;
use serde_json::{Value as Json, json};

use crate::support::Place;
use crate::support::receiver::Receiver;
use crate::webhooks::{at, builder, endpoint, hurry, job, log, webhooks};

async fn run(place: &Place, sql: &str) {
    let name = Uuid::now_v7().simple().to_string();
    place.storage().migrate(&[Migration::new(name, 1, "by hand", sql)], true).await.unwrap();
}

/// A time so many minutes ahead, as the stores write it.
fn ahead(minutes: i64) -> String {
    (Utc::now() + chrono::TimeDelta::minutes(minutes)).to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
}

async fn note(app: &TestApp, code: &str) {
    assert_eq!(app.post("/notes").json(json!({"code": code})).await.status(), 201);
}

#[tokio::test]
async fn a_tenant_whose_endpoints_all_hang_leaves_room_for_the_others() {
    for place in Place::all().await {
        let receiver = Receiver::start().await;
        // Longer than anybody waits here: what hangs stays where it is.
        let webhooks = webhooks(&place).deadline(Duration::from_secs(600));
        let app = TestApp::build(builder(&place).webhooks(webhooks)).await.unwrap();
        receiver.answers("/hangs", 0);
        for _ in 0..40 {
            endpoint(&app, "ann", &receiver.url("/hangs"), &["notes.*"]).await;
        }
        endpoint(&app, "bob", &receiver.url("/works"), &["notes.*"]).await;
        for number in 0..5 {
            note(&app, &format!("n{number}")).await;
        }
        let background = app.app().background();
        receiver.come("/works", 5).await;
        background.stop().await;
    }
}

#[tokio::test]
async fn an_endpoint_that_answers_nothing_with_success_for_days_is_disabled() {
    for place in Place::all().await.into_iter().filter(|place| place.name != "memory") {
        let receiver = Receiver::start().await;
        let app = TestApp::build(builder(&place).webhooks(webhooks(&place))).await.unwrap();
        let dead = endpoint(&app, "ann", &receiver.url("/dead"), &["jobs.*"]).await;
        let picky = endpoint(&app, "ann", &receiver.url("/picky"), &["jobs.*"]).await;
        job(&app, "ann", "j1", json!({})).await;
        receiver.answers("/dead", 500);
        app.app().deliver().await.unwrap();
        // What was sent lies a week back for both; one of them answered another message meanwhile.
        run(&place, "UPDATE resourceful_webhook_deliveries SET created_at = '2020-01-01T00:00:00.000000Z'")
            .await;
        job(&app, "ann", "j2", json!({})).await;
        app.app().deliver().await.unwrap();
        run(
            &place,
            "UPDATE resourceful_webhook_deliveries SET state = 'pending', attempts = 1, \
             next_attempt_at = created_at WHERE subject = 'j1'",
        )
        .await;
        receiver.answers("/picky", 500);
        app.app().deliver().await.unwrap();
        let [dead, picky] =
            [app.get(&at(&dead, "")).bearer("ann").await, app.get(&at(&picky, "")).bearer("ann").await];
        let said = json!("it answered nothing with success for 5 days");
        assert_eq!((&dead.json()["enabled"], &dead.json()["disabled_reason"]), (&json!(false), &said));
        assert_eq!(picky.json()["enabled"], true, "{picky}");
    }
}

#[tokio::test]
async fn what_was_put_off_follows_once_its_endpoint_answers_again() {
    for place in Place::all().await.into_iter().filter(|place| place.name != "memory") {
        let receiver = Receiver::start().await;
        let app = TestApp::build(builder(&place).webhooks(webhooks(&place))).await.unwrap();
        endpoint(&app, "ann", &receiver.url("/hook"), &["jobs.*"]).await;
        receiver.answers("/hook", 500);
        for number in 0..150 {
            job(&app, "ann", &format!("j{number}"), json!({})).await;
        }
        app.app().deliver().await.unwrap();
        receiver.took("/hook");
        // As for an endpoint that has failed for long.
        run(
            &place,
            &format!(
                "UPDATE resourceful_webhook_deliveries SET state = 'queued', attempts = 0, next_attempt_at = '{}'",
                ahead(30)
            ),
        )
        .await;
        receiver.answers("/hook", 204);
        job(&app, "ann", "one more", json!({})).await;
        app.app().deliver().await.unwrap();
        assert_eq!(receiver.took("/hook").len(), 151);
    }
}

#[tokio::test]
async fn a_claim_by_a_clock_that_is_days_ahead_holds_up_nothing() {
    for place in Place::all().await.into_iter().filter(|place| place.name != "memory") {
        let receiver = Receiver::start().await;
        let app = TestApp::build(builder(&place).webhooks(webhooks(&place))).await.unwrap();
        endpoint(&app, "ann", &receiver.url("/hook"), &["jobs.*"]).await;
        receiver.answers("/hook", 500);
        for job_code in ["claimed", "paused"] {
            job(&app, "ann", job_code, json!({})).await;
        }
        app.app().deliver().await.unwrap();
        receiver.took("/hook");
        receiver.answers("/hook", 204);
        // The pauses of these webhooks take an hour. No clock that is right writes a time three days ahead.
        for (subject, minutes) in [("claimed", 3 * 24 * 60), ("paused", 59)] {
            let sql = format!(
                "UPDATE resourceful_webhook_deliveries SET next_attempt_at = '{}' WHERE subject = '{subject}'",
                ahead(minutes)
            );
            run(&place, &sql).await;
        }
        app.app().deliver().await.unwrap();
        let sent = receiver.took("/hook");
        assert_eq!(sent.len(), 1, "{}", place.name);
        let event: Json = serde_json::from_slice(&sent[0].body).unwrap();
        assert_eq!(event["subject"], "claimed");
    }
}

#[tokio::test]
async fn a_lookup_of_owners_that_panics_is_tried_again() {
    for place in Place::all().await.into_iter().filter(|place| place.name != "memory") {
        let receiver = Receiver::start().await;
        let panics = Arc::new(AtomicBool::new(true));
        let asked = panics.clone();
        let webhooks = Webhooks::stored_in(place.storage(), tenant_role("admin"), move |owner| {
            let panics = asked.clone();
            async move {
                assert!(!panics.load(Ordering::SeqCst), "the directory fell over");
                Ok(Some(owner))
            }
        });
        let webhooks = webhooks.private_targets(true).backoff([Duration::from_secs(3600); 3]);
        let app = TestApp::build(builder(&place).webhooks(webhooks)).await.unwrap();
        endpoint(&app, "ann", &receiver.url("/hook"), &["jobs.*"]).await;
        job(&app, "ann", "j", json!({})).await;
        app.app().deliver().await.unwrap();
        assert!(receiver.took("/hook").is_empty());
        panics.store(false, Ordering::SeqCst);
        hurry(&place, &app).await;
        assert_eq!(receiver.took("/hook").len(), 1);
        let tried: Vec<Json> = log(&app, "ann").await;
        assert_eq!(
            (tried.len(), &tried[0]["attempts"], &tried[0]["state"]),
            (1, &json!(2), &json!("delivered"))
        );
    }
}

#[tokio::test]
async fn what_cannot_be_read_holds_up_nothing_else() {
    for place in Place::all().await.into_iter().filter(|place| place.name == "sqlite") {
        let receiver = Receiver::start().await;
        let app = TestApp::build(builder(&place).webhooks(webhooks(&place))).await.unwrap();
        let odd = endpoint(&app, "ann", &receiver.url("/odd"), &["jobs.*"]).await;
        endpoint(&app, "ann", &receiver.url("/hook"), &["jobs.*"]).await;
        receiver.answers("/hook", 500);
        job(&app, "ann", "j1", json!({})).await;
        app.app().deliver().await.unwrap();
        // As a later version of the library may write it.
        let odd = odd["id"].as_str().unwrap();
        run(
            &place,
            &format!("UPDATE resourceful_webhook_endpoints SET secrets = '[{{}}]' WHERE id = '{odd}'"),
        )
        .await;
        let log = "UPDATE resourceful_webhook_deliveries SET log = '[{}]', state = 'pending', \
                   next_attempt_at = created_at WHERE subject = 'j1'";
        run(&place, log).await;
        receiver.took("/hook");
        receiver.answers("/hook", 204);
        job(&app, "ann", "j2", json!({})).await;
        app.app().deliver().await.unwrap();
        assert_eq!(receiver.took("/hook").len(), 1);
        assert!(app.app().dead_letters(10).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_tenant_has_no_more_endpoints_than_said() {
    for place in Place::all().await {
        let webhooks =
            webhooks(&place).max_endpoints_per_tenant(2).endpoints(|endpoints| endpoints.preset(bulk()));
        let app = TestApp::build(builder(&place).webhooks(webhooks)).await.unwrap();
        let one = json!({"url": "https://example.com/", "events": ["*"]});
        let first = endpoint(&app, "ann", "https://example.com/", &["*"]).await;
        let two = json!({"items": [one, one]});
        let refused = app.post("/webhook_endpoints/bulk").bearer("boss").json(two).await;
        assert_eq!(
            (refused.status(), &refused.json()["code"]),
            (409, &json!("too-many-endpoints")),
            "{refused}"
        );
        endpoint(&app, "boss", "https://example.com/", &["*"]).await;
        let refused = app.post("/webhook_endpoints").bearer("ann").json(one.clone()).await;
        assert_eq!(refused.status(), 409, "{refused}");
        endpoint(&app, "bob", "https://example.com/", &["*"]).await;
        assert_eq!(app.delete(&at(&first, "")).bearer("ann").await.status(), 204);
        endpoint(&app, "ann", "https://example.com/", &["*"]).await;
    }
}

#[tokio::test]
async fn endpoints_may_be_kept_elsewhere_than_what_they_are_told_of() {
    for place in Place::all().await {
        let receiver = Receiver::start().await;
        // Where nothing else is kept, and so no outbox.
        let elsewhere = Place::memory();
        let app = TestApp::build(builder(&place).webhooks(webhooks(&elsewhere))).await.unwrap();
        let endpoint = endpoint(&app, "ann", &receiver.url("/hook"), &["jobs.*"]).await;
        job(&app, "ann", "j", json!({})).await;
        app.app().deliver().await.unwrap();
        assert_eq!(receiver.took("/hook").len(), 1);
        receiver.answers("/hook", 410);
        job(&app, "ann", "k", json!({})).await;
        app.app().deliver().await.unwrap();
        assert_eq!(app.get(&at(&endpoint, "")).bearer("ann").await.json()["enabled"], false);
        app.app().sweep().await.unwrap();
    }
}

#[tokio::test]
async fn nothing_is_sent_unsigned() {
    for place in Place::all().await.into_iter().filter(|place| place.name == "sqlite") {
        let (app, receiver) = (
            TestApp::build(builder(&place).webhooks(webhooks(&place))).await.unwrap(),
            Receiver::start().await,
        );
        let bare = endpoint(&app, "ann", &receiver.url("/hook"), &["jobs.*"]).await;
        // As an application leaves it that makes endpoints by hand.
        run(&place, "UPDATE resourceful_webhook_endpoints SET secrets = '[]'").await;
        job(&app, "ann", "j", json!({})).await;
        app.app().deliver().await.unwrap();
        assert!(receiver.took("/hook").is_empty());
        let reason = &log(&app, "ann").await[0]["log"][0]["reason"];
        assert!(reason.as_str().unwrap().contains("no secret"), "{reason}");
        assert_eq!(app.post(&at(&bare, "/rotate-secret")).bearer("ann").await.status(), 200);
        hurry(&place, &app).await;
        assert_eq!(receiver.took("/hook").len(), 1);
    }
}

#[tokio::test]
async fn an_endpoint_that_was_changed_meanwhile_is_not_disabled_for_what_it_was() {
    for place in Place::all().await.into_iter().filter(|place| place.name != "memory") {
        let receiver = Receiver::start().await;
        let app = TestApp::build(builder(&place).webhooks(webhooks(&place))).await.unwrap();
        let moved = endpoint(&app, "ann", &receiver.url("/hook"), &["jobs.*"]).await;
        receiver.answers("/hook", 410);
        // Later than any attempt begins.
        run(&place, "UPDATE resourceful_webhook_endpoints SET updated_at = '2100-01-01T00:00:00.000000Z'")
            .await;
        job(&app, "ann", "j", json!({})).await;
        app.app().deliver().await.unwrap();
        assert_eq!(app.get(&at(&moved, "")).bearer("ann").await.json()["enabled"], true);
        let tried = &log(&app, "ann").await[0];
        assert_eq!((&tried["state"], &tried["log"][0]["status"]), (&json!("pending"), &json!(410)));
    }
}
