//! Events that are sent to endpoints: what they show, to whom, and what becomes of them when nobody answers.

use std::sync::{Arc, Mutex};

use resourceful::AppBuilder;
use resourceful::adapter::Migration;
use resourceful::events::Webhooks;
use resourceful::prelude::*;
use resourceful::testing::TestApp;
use serde_json::{Value as Json, json};

use crate::policies::{actors, model};
use crate::support::TestStorage;
use crate::support::receiver::Receiver;

pub(crate) fn webhooks(storage: &TestStorage) -> Webhooks {
    Webhooks::stored_in(storage.storage(), tenant_role("admin"), async |owner| Ok(Some(owner)))
        .private_targets(true)
        .backoff([Duration::from_secs(3600), Duration::from_secs(3600)])
}

pub(crate) fn builder(storage: &TestStorage) -> AppBuilder {
    let mut shape = model(&["code", "org_id"]);
    shape["properties"]["salary"] = json!({"type": "string", "default": "much"});
    shape["properties"]["secret"] = json!({"type": "boolean", "default": false});
    let jobs = define_dynamic_resource("jobs", shape)
        .adapter(storage.table("jobs"))
        .id_field("code")
        .permissions(Permissions::all(tenant_member()))
        .preset(multi_tenant("org_id"))
        .preset(bulk())
        .visible_to(["salary"], tenant_role("boss"))
        .policy_on(
            [Operation::Read, Operation::List],
            any_of([tenant_role("boss"), resourceful::access::rows(json!({"secret": false}))]),
        )
        .build()
        .unwrap();
    let notes = define_dynamic_resource("notes", model(&["code"]))
        .adapter(storage.table("notes"))
        .id_field("code")
        .permissions(Permissions::all(anyone()))
        .build()
        .unwrap();
    let quiet = define_dynamic_resource("quiet", model(&["code"]))
        .adapter(storage.table("quiet"))
        .id_field("code")
        .permissions(Permissions::all(anyone()))
        .events(false)
        .build()
        .unwrap();
    let actors = actors().token("boss", Actor::user("boss").in_tenant("acme", ["admin", "boss"]));
    create_app(AppPreset::Testing).authenticator(actors).resource(jobs).resource(notes).resource(quiet)
}

pub(crate) async fn app(storage: &TestStorage) -> TestApp {
    TestApp::build(builder(storage).webhooks(webhooks(storage))).await.unwrap()
}

/// Sets an endpoint up and answers it.
pub(crate) async fn create_endpoint(app: &TestApp, who: &str, url: &str, events: &[&str]) -> Json {
    let body = json!({"url": url, "events": events});
    let created = app.post("/webhook_endpoints").bearer(who).json(body).await;
    assert_eq!(created.status(), 201, "{created}");
    created.json()
}

pub(crate) fn endpoint_path(endpoint: &Json, rest: &str) -> String {
    format!("/webhook_endpoints/{}{rest}", endpoint["id"].as_str().unwrap())
}

pub(crate) async fn secret(app: &TestApp, who: &str, endpoint: &Json, action: &str) -> String {
    let answer = app.post(&endpoint_path(endpoint, &format!("/{action}-secret"))).bearer(who).await;
    assert_eq!(answer.status(), 200, "{answer}");
    answer.json()["secret"].as_str().unwrap().to_owned()
}

pub(crate) async fn create_job(app: &TestApp, who: &str, code: &str, members: Json) {
    let mut body = json!({"code": code});
    body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    let created = app.post("/jobs").bearer(who).json(body).await;
    assert_eq!(created.status(), 201, "{created}");
}

pub(crate) async fn delivery_log(app: &TestApp, who: &str) -> Vec<Json> {
    let log = app.get("/webhook_deliveries?sort=created_at").bearer(who).await;
    assert_eq!(log.status(), 200, "{log}");
    log.items()
}

/// Makes everything that waits to be tried again due now.
pub(crate) async fn make_all_due(storage: &TestStorage, app: &TestApp) {
    let sql = "UPDATE resourceful_webhook_deliveries SET next_attempt_at = created_at \
               WHERE next_attempt_at IS NOT NULL";
    let name = Uuid::now_v7().simple().to_string();
    storage.storage().migrate(&[Migration::new(name, 1, "hurry", sql)], true).await.unwrap();
    app.app().deliver().await.unwrap();
}

#[tokio::test]
async fn delivery_is_signed_with_every_active_secret() {
    for storage in TestStorage::all().await {
        let (app, receiver) = (app(&storage).await, Receiver::start().await);
        let endpoint = create_endpoint(&app, "boss", &receiver.url("/hook"), &["jobs.created"]).await;
        assert_eq!(endpoint["enabled"], true);
        let shown = endpoint.to_string();
        assert!(!shown.contains("whsec_") && !shown.contains("roles"), "{shown}");
        create_job(&app, "boss", "j1", json!({})).await;
        app.patch("/jobs/j1").bearer("boss").json(json!({"secret": true})).await;
        assert!(receiver.take_messages("/hook").is_empty(), "nothing is sent inside of a request");
        app.app().deliver().await.unwrap();
        app.app().deliver().await.unwrap();
        let [message] = <[_; 1]>::try_from(receiver.take_messages("/hook")).unwrap();
        let event = message.json();
        assert_eq!(event["type"], "jobs.created");
        assert_eq!(event["specversion"], "1.0");
        assert_eq!(event["subject"], "j1");
        assert_eq!(event["tenantid"], "acme");
        assert_eq!(event["data"], json!({"code": "j1", "org_id": "acme", "salary": "much", "secret": false}));
        assert_eq!(message.header("content-type"), "application/cloudevents+json");
        assert_eq!(message.header("webhook-id"), event["id"].as_str().unwrap());
        let sent: i64 = message.header("webhook-timestamp").parse().unwrap();
        assert!((resourceful::prelude::Utc::now().timestamp() - sent).abs() < 300);
        let first = secret(&app, "boss", &endpoint, "reveal").await;
        assert!(message.is_signed_with(&first));

        let second = secret(&app, "boss", &endpoint, "rotate").await;
        assert_ne!(first, second);
        assert_eq!(secret(&app, "boss", &endpoint, "reveal").await, second);
        create_job(&app, "boss", "j2", json!({})).await;
        app.app().deliver().await.unwrap();
        let [message] = <[_; 1]>::try_from(receiver.take_messages("/hook")).unwrap();
        assert!(message.is_signed_with(&first) && message.is_signed_with(&second));
        let third = secret(&app, "boss", &endpoint, "rotate").await;
        assert!(![first, second].contains(&third));
        let log = delivery_log(&app, "boss").await;
        assert_eq!(log.len(), 2, "{log:?}");
        assert!(
            log.iter()
                .all(|delivery| delivery["state"] == "delivered" && delivery["log"][0]["status"] == 204)
        );
    }
}

#[tokio::test]
async fn endpoint_receives_only_what_its_owner_may_see() {
    for storage in TestStorage::all().await {
        let (app, receiver) = (app(&storage).await, Receiver::start().await);
        create_endpoint(&app, "ann", &receiver.url("/ann"), &["*"]).await;
        create_endpoint(&app, "bob", &receiver.url("/bob"), &["jobs.*"]).await;
        create_endpoint(&app, "boss", &receiver.url("/boss"), &["jobs.*"]).await;
        create_job(&app, "boss", "open", json!({})).await;
        create_job(&app, "boss", "closed", json!({"secret": true})).await;
        let many =
            json!({"items": [{"code": "m1", "salary": "1"}, {"code": "m2", "salary": "2", "secret": true}]});
        assert_eq!(app.post("/jobs/bulk").bearer("boss").json(many).await.status(), 201);
        app.post("/notes").json(json!({"code": "n"})).await;
        app.post("/quiet").json(json!({"code": "q"})).await;
        app.delete("/jobs/open").bearer("boss").await;
        app.delete("/jobs/closed").bearer("boss").await;
        app.app().deliver().await.unwrap();
        let told = |path: &str| {
            let came = receiver.take_messages(path).into_iter().map(|message| message.json());
            let mut told: Vec<_> = came
                .map(|event| {
                    assert_eq!(event["data"].get("salary").is_some(), path == "/boss", "{event}");
                    format!("{} {}", event["type"].as_str().unwrap(), event["subject"].as_str().unwrap())
                })
                .collect();
            told.sort();
            told
        };
        let ann = told("/ann");
        assert_eq!(ann, ["jobs.created m1", "jobs.created open", "jobs.deleted open", "notes.created n"]);
        assert_eq!(told("/boss").len(), 6);
        assert_eq!(told("/bob"), [""; 0]);
        // What was hidden when it happened is not told when it is hidden no more.
        create_job(&app, "boss", "later-open", json!({"secret": true})).await;
        app.patch("/jobs/later-open").bearer("boss").json(json!({"secret": false})).await;
        app.app().deliver().await.unwrap();
        assert_eq!(told("/ann"), ["jobs.updated later-open"]);
        // The log tells of nothing else, and of one's own tenant alone.
        let subjects = |log: Vec<Json>| {
            log.into_iter().map(|one| one["subject"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(subjects(delivery_log(&app, "bob").await), [""; 0]);
        let of_acme = subjects(delivery_log(&app, "ann").await);
        assert_eq!(of_acme.len(), 13, "{of_acme:?}");
        assert_eq!(app.get("/webhook_deliveries").bearer("abe").await.status(), 403);
        assert_eq!(app.get("/webhook_endpoints").bearer("bob").await.items().len(), 1);
        // Whoever sets an endpoint is its owner: what another one may see goes nowhere that they did not say.
        let all = app.get("/webhook_endpoints").bearer("ann").await.items();
        let boss = all.iter().find(|one| one["owner_id"] == "boss").unwrap();
        let moved = app
            .patch(&endpoint_path(boss, ""))
            .bearer("ann")
            .json(json!({"url": receiver.url("/moved")}))
            .await;
        assert_eq!(moved.json()["owner_id"], "ann");
        create_job(&app, "boss", "later", json!({})).await;
        app.app().deliver().await.unwrap();
        let [message] = <[_; 1]>::try_from(receiver.take_messages("/moved")).unwrap();
        assert_eq!(message.json()["data"], json!({"code": "later", "org_id": "acme", "secret": false}));
    }
}

#[tokio::test]
async fn delivery_uses_the_owners_current_permissions() {
    for storage in TestStorage::all().await.into_iter().filter(|storage| storage.name != "memory") {
        let receiver = Receiver::start().await;
        let today = Arc::new(Mutex::new(Some(Actor::user("boss").in_tenant("acme", ["admin", "boss"]))));
        let asked = today.clone();
        let webhooks = Webhooks::stored_in(storage.storage(), tenant_role("admin"), move |owner: Actor| {
            assert_eq!((owner.id(), owner.tenant()), (Some("boss"), Some("acme")));
            assert!(owner.has_tenant_role("boss") && !owner.has_role("boss"));
            std::future::ready(match asked.lock().unwrap().clone() {
                Some(actor) if actor.is_anonymous() => Err("the directory is away".into()),
                actor => Ok(actor),
            })
        });
        let webhooks = webhooks.private_targets(true).backoff([Duration::from_secs(3600); 3]);
        let app = TestApp::build(builder(&storage).webhooks(webhooks)).await.unwrap();
        let endpoint = create_endpoint(&app, "boss", &receiver.url("/hook"), &["jobs.*"]).await;
        receiver.respond_with("/hook", 500);
        create_job(&app, "boss", "closed", json!({"secret": true})).await;
        create_job(&app, "boss", "open", json!({})).await;
        app.app().deliver().await.unwrap();
        assert!(
            receiver.take_messages("/hook").iter().all(|message| message.json()["data"]["salary"] == "much")
        );
        // A boss no more: what was tried before goes on without what may not be seen.
        *today.lock().unwrap() = Some(Actor::user("boss").in_tenant("acme", ["member"]));
        receiver.respond_with("/hook", 204);
        make_all_due(&storage, &app).await;
        let [message] = <[_; 1]>::try_from(receiver.take_messages("/hook")).unwrap();
        assert_eq!(message.json()["data"], json!({"code": "open", "org_id": "acme", "secret": false}));
        let states = |log: Vec<Json>| {
            let mut states: Vec<_> =
                log.into_iter().map(|one| one["state"].as_str().unwrap().to_owned()).collect();
            states.sort();
            states
        };
        assert_eq!(states(delivery_log(&app, "boss").await), ["cancelled", "delivered"]);
        // Nobody can say who they are: it is tried again, and nothing is told of it until then.
        *today.lock().unwrap() = Some(Actor::anonymous());
        create_job(&app, "boss", "next", json!({})).await;
        app.app().deliver().await.unwrap();
        assert!(receiver.take_messages("/hook").is_empty());
        assert_eq!(delivery_log(&app, "boss").await.len(), 2);
        *today.lock().unwrap() = Some(Actor::user("boss").in_tenant("acme", ["boss"]));
        make_all_due(&storage, &app).await;
        assert_eq!(receiver.take_messages("/hook").len(), 1);
        // Gone: the endpoint is disabled.
        *today.lock().unwrap() = None;
        create_job(&app, "boss", "last", json!({})).await;
        app.app().deliver().await.unwrap();
        let left = app.get(&endpoint_path(&endpoint, "")).bearer("boss").await.json();
        assert_eq!(
            (&left["enabled"], &left["disabled_reason"]),
            (&json!(false), &json!("its owner is gone"))
        );
        assert!(receiver.take_messages("/hook").is_empty());
    }
}

#[tokio::test]
async fn failing_endpoints_do_not_block_others() {
    for storage in TestStorage::all().await {
        let receiver = Receiver::start().await;
        let handled = Arc::new(Mutex::new(0));
        let handled_counter = handled.clone();
        let builder = builder(&storage).webhooks(webhooks(&storage).deadline(Duration::from_millis(200))).on(
            "jobs.*",
            move |_, _| {
                *handled_counter.lock().unwrap() += 1;
                std::future::ready(Ok(()))
            },
        );
        let app = TestApp::build(builder).await.unwrap();
        receiver.respond_with("/hangs", 0);
        receiver.respond_with("/fails", 500);
        receiver.respond_with("/moved", 302);
        for path in ["/hangs", "/fails", "/moved", "/works"] {
            create_endpoint(&app, "ann", &receiver.url(path), &["jobs.*"]).await;
        }
        create_endpoint(&app, "ann", "http://127.0.0.1:1/", &["jobs.*"]).await;
        for number in 0..8 {
            create_job(&app, "ann", &format!("j{number}"), json!({})).await;
        }
        app.app().deliver().await.unwrap();
        assert_eq!((receiver.take_messages("/works").len(), *handled.lock().unwrap()), (8, 8));
        assert!(receiver.take_messages("/elsewhere").is_empty(), "a redirect was followed");
        assert!(app.app().dead_letters(10).await.unwrap().is_empty());
        let log = delivery_log(&app, "ann").await;
        let of = |reason: &str| {
            let says =
                |one: &&Json| one["log"][0]["reason"].as_str().is_some_and(|text| text.contains(reason));
            log.iter().filter(says).cloned().collect::<Vec<_>>()
        };
        for reason in ["did not answer within", "not answered with success", "redirects are not", "efused"] {
            let failed = of(reason);
            assert_eq!(failed.len(), 8, "{reason}: {log:?}");
            assert!(failed.iter().all(|one| one["state"] == "pending" && one["attempts"] == 1));
        }
        assert_eq!(
            (&of("redirects")[0]["log"][0]["status"], &of("answer within")[0]["log"][0]["status"]),
            (&json!(302), &Json::Null)
        );
    }
}

#[tokio::test]
async fn failed_delivery_is_retried_up_to_the_limit_and_can_be_replayed() {
    for storage in TestStorage::all().await {
        let receiver = Receiver::start().await;
        let webhooks = webhooks(&storage).backoff([Duration::ZERO; 9]);
        let app = TestApp::build(builder(&storage).webhooks(webhooks)).await.unwrap();
        let endpoint = create_endpoint(&app, "ann", &receiver.url("/hook"), &["jobs.*"]).await;
        receiver.respond_with("/hook", 503);
        create_job(&app, "ann", "j", json!({})).await;
        app.app().deliver().await.unwrap();
        let tried = receiver.take_messages("/hook");
        assert_eq!(tried.len(), 10);
        assert!(tried.iter().all(|message| message.header("webhook-id") == tried[0].header("webhook-id")));
        let failed = delivery_log(&app, "ann").await.pop().unwrap();
        assert_eq!((&failed["state"], &failed["attempts"]), (&json!("failed"), &json!(10)));
        assert_eq!(failed["next_attempt_at"], Json::Null);
        assert_eq!(failed["log"].as_array().unwrap().len(), 10);

        receiver.respond_with("/hook", 200);
        let replay = format!("/webhook_deliveries/{}/replay", failed["id"].as_str().unwrap());
        assert_eq!(app.post(&replay).bearer("abe").await.status(), 403);
        assert_eq!(app.post(&replay).bearer("bob").await.status(), 404);
        let again = app.post(&replay).bearer("ann").await;
        assert_eq!((again.status(), &again.json()["state"]), (200, &json!("pending")), "{again}");
        let twice = app.post(&replay).bearer("ann").await;
        assert_eq!((twice.status(), &twice.json()["code"]), (409, &json!("webhook-pending")));
        app.app().deliver().await.unwrap();
        let [message] = <[_; 1]>::try_from(receiver.take_messages("/hook")).unwrap();
        assert_eq!(message.header("webhook-id"), tried[0].header("webhook-id"));
        assert_eq!(message.body, tried[0].body);
        assert_eq!(delivery_log(&app, "ann").await.pop().unwrap()["state"], "delivered");
        // The log is for reading.
        for (method, path) in [("POST", "/webhook_deliveries"), ("PATCH", replay.trim_end_matches("/replay"))]
        {
            let refused = app.request(method, path).bearer("ann").json(json!({"state": "pending"})).await;
            assert_eq!(refused.status(), 403, "{refused}");
        }

        // Gone for good: nothing more is sent until somebody enables it.
        receiver.respond_with("/hook", 410);
        create_job(&app, "ann", "k", json!({})).await;
        app.app().deliver().await.unwrap();
        create_job(&app, "ann", "l", json!({})).await;
        app.app().deliver().await.unwrap();
        assert_eq!(receiver.take_messages("/hook").len(), 1);
        let disabled = app.get(&endpoint_path(&endpoint, "")).bearer("ann").await.json();
        assert_eq!(
            (&disabled["enabled"], &disabled["disabled_reason"]),
            (&json!(false), &json!("it answered 410 Gone"))
        );
        receiver.respond_with("/hook", 200);
        let enabled = app
            .patch(&endpoint_path(&endpoint, ""))
            .bearer("ann")
            .json(json!({"enabled": true}))
            .await
            .json();
        assert_eq!(enabled["disabled_reason"], Json::Null);
        create_job(&app, "ann", "m", json!({})).await;
        app.app().deliver().await.unwrap();
        assert_eq!(receiver.take_messages("/hook").len(), 1);
    }
}

#[test]
fn the_default_attempts_are_ten_over_three_days() {
    let total: Duration = Webhooks::PAUSES.iter().sum();
    assert_eq!(Webhooks::PAUSES.len() + 1, 10);
    assert!((Duration::from_secs(3 * 86_400)..Duration::from_secs(4 * 86_400)).contains(&total));
}

#[tokio::test]
async fn deliveries_go_only_to_public_addresses() {
    let storage = TestStorage::memory();
    let receiver = Receiver::start().await;
    let port = receiver.url("").rsplit_once(':').unwrap().1.to_owned();
    let open = Webhooks::stored_in(storage.storage(), tenant_role("admin"), async |owner| Ok(Some(owner)));
    let app = TestApp::build(builder(&storage).webhooks(open)).await.unwrap();
    for (url, text) in [
        ("nonsense", "Must be"),
        ("ftp://example.com/", "https://"),
        ("http://example.com/", "https://"),
        ("https://user:pass@example.com/", "password"),
        ("https://127.0.0.1/", "public Internet"),
        ("https://localhost/", "public Internet"),
        ("https://[::1]/", "public Internet"),
        ("https://[::ffff:10.0.0.1]/", "public Internet"),
        ("https://169.254.169.254/latest", "public Internet"),
        ("https://LocalHost./", "public Internet"),
        ("https://example.com:99999/", "port"),
        ("https://example.com:0/", "port"),
        ("https://example.com:/", "port"),
    ] {
        let body = json!({"url": url, "events": ["*"]});
        let refused = app.post("/webhook_endpoints").bearer("ann").json(body).await;
        assert_eq!(refused.status(), 422, "{url}: {refused}");
        let fault = &refused.json()["errors"][0];
        assert_eq!(fault["pointer"], "/url", "{url}");
        assert!(fault["detail"].as_str().unwrap().contains(text), "{url}: {fault}");
    }
    for (events, text) in [
        (json!(["job.created"]), "`jobs`"),
        (json!(["jobs"]), "`jobs.*`"),
        (json!(["quiet.*"]), "No resource"),
        (json!(["jobs.craeted"]), "`created`"),
    ] {
        let body = json!({"url": "https://example.com/", "events": events});
        let refused = app.post("/webhook_endpoints").bearer("ann").json(body).await;
        assert_eq!((refused.status(), &refused.json()["errors"][0]["pointer"]), (422, &json!("/events/0")));
        assert!(refused.json()["errors"][0]["detail"].as_str().unwrap().contains(text), "{refused}");
    }
    // A name may mean anything by the time that it is sent to.
    create_endpoint(&app, "ann", &format!("https://0x7f000001:{port}/hook"), &["jobs.*"]).await;
    create_job(&app, "ann", "j", json!({})).await;
    app.app().deliver().await.unwrap();
    let log = delivery_log(&app, "ann").await;
    assert_eq!(log.len(), 1);
    for delivery in log {
        let reason = delivery["log"][0]["reason"].as_str().unwrap();
        assert!(reason.contains("no address of the public Internet"), "{reason}");
    }
    assert!(receiver.take_messages("/hook").is_empty());
}

#[tokio::test]
async fn a_long_event_is_sent_without_its_data() {
    let storage = TestStorage::memory();
    let receiver = Receiver::start().await;
    let app =
        TestApp::build(builder(&storage).webhooks(webhooks(&storage).payload_limit(1_000))).await.unwrap();
    create_endpoint(&app, "boss", &receiver.url("/hook"), &["jobs.*"]).await;
    create_job(&app, "boss", "j", json!({"salary": "m".repeat(1_000)})).await;
    app.app().deliver().await.unwrap();
    let [message] = <[_; 1]>::try_from(receiver.take_messages("/hook")).unwrap();
    let event = message.json();
    assert!(message.body.len() < 1_000 && event.get("data").is_none(), "{event}");
    assert_eq!((&event["type"], &event["subject"]), (&json!("jobs.created"), &json!("j")));
}

#[tokio::test]
async fn nodes_send_each_delivery_once_and_take_over_after_a_crash() {
    for storage in TestStorage::all().await.into_iter().filter(|storage| storage.name != "memory") {
        let receiver = Receiver::start().await;
        let nodes = futures::future::join_all((0..3).map(|_| app(&storage))).await;
        for path in ["/a", "/b", "/c"] {
            create_endpoint(&nodes[0], "ann", &receiver.url(path), &["jobs.*"]).await;
        }
        for number in 0..30 {
            create_job(&nodes[number % 3], "ann", &format!("j{number}"), json!({})).await;
        }
        let delivered = nodes.iter().map(|node| node.app().deliver());
        for outcome in futures::future::join_all(delivered).await {
            outcome.unwrap();
        }
        nodes[0].app().deliver().await.unwrap();
        for path in ["/a", "/b", "/c"] {
            let mut ids: Vec<_> = receiver
                .take_messages(path)
                .iter()
                .map(|message| message.header("webhook-id").to_owned())
                .collect();
            let sent = ids.len();
            ids.sort();
            ids.dedup();
            assert_eq!((sent, ids.len()), (30, 30), "{path} on {}", storage.name);
        }
        // A node that ends in the middle leaves a claim, which holds for a while.
        receiver.respond_with("/a", 0);
        create_job(&nodes[0], "ann", "hangs", json!({})).await;
        let sending = nodes.iter().map(|node| {
            let app = node.app().clone();
            tokio::spawn(async move { app.deliver().await })
        });
        let sending: Vec<_> = sending.collect();
        receiver.wait_for_messages("/a", 1).await;
        for sending in sending {
            sending.abort();
            let _ = sending.await;
        }
        assert_eq!(receiver.take_messages("/a").len(), 1);
        receiver.respond_with("/a", 204);
        nodes[1].app().deliver().await.unwrap();
        assert!(receiver.take_messages("/a").is_empty(), "the claim of the other node still holds");
        make_all_due(&storage, &nodes[1]).await;
        assert_eq!(receiver.take_messages("/a").len(), 1);
        let states = delivery_log(&nodes[2], "ann").await;
        assert!(states.iter().all(|one| one["state"] == "delivered"), "{states:?}");
    }
}

#[tokio::test]
async fn background_tasks_send_deliveries() {
    for storage in TestStorage::all().await {
        let (app, receiver) = (app(&storage).await, Receiver::start().await);
        receiver.respond_with("/fails", 500);
        for path in ["/a", "/fails", "/b"] {
            create_endpoint(&app, "ann", &receiver.url(path), &["jobs.*"]).await;
        }
        let background = app.app().background();
        for number in 0..25 {
            create_job(&app, "ann", &format!("j{number}"), json!({})).await;
        }
        // More than are sent to one endpoint at once, and while others are claimed.
        for path in ["/a", "/b"] {
            receiver.wait_for_messages(path, 25).await;
            assert_eq!(receiver.take_messages(path).len(), 25, "{path} on {}", storage.name);
        }
        background.stop().await;
    }
}

#[tokio::test]
async fn redelivered_event_is_queued_once() {
    for storage in TestStorage::all().await.into_iter().filter(|storage| storage.name != "memory") {
        let receiver = Receiver::start().await;
        let builder = builder(&storage).webhooks(webhooks(&storage)).on("jobs.*", async |_, delivery| {
            if delivery.attempt() == 1 { Err("not now".into()) } else { Ok(()) }
        });
        let app = TestApp::build(builder).await.unwrap();
        create_endpoint(&app, "ann", &receiver.url("/hook"), &["jobs.*"]).await;
        create_job(&app, "ann", "j", json!({})).await;
        app.app().deliver().await.unwrap();
        let sql = "UPDATE resourceful_events SET due_at = NULL, handled = NULL";
        let name = Uuid::now_v7().simple().to_string();
        storage.storage().migrate(&[Migration::new(name, 1, "hurry", sql)], true).await.unwrap();
        app.app().deliver().await.unwrap();
        assert_eq!(receiver.take_messages("/hook").len(), 1, "{}", storage.name);
    }
}
