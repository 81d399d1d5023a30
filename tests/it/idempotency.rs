//! Changes that happen once, however often they are asked for.

use std::sync::Arc;

use resourceful::prelude::*;
use resourceful::resource::NoInput;
use resourceful::testing::{TestApp, TestRequest, TestResponse};
use resourceful::{Action, Change, Error};
use serde_json::json;
use tokio::sync::Barrier;

use crate::support::aged_rows::KEYS;
use crate::support::{TestStorage, faults};

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
struct Payment {
    id: i64,
    #[validate(length(min = 1))]
    reference: String,
    cents: i64,
    note: Option<String>,
}

fn pay(payment: &mut Payment, _: NoInput, _: &mut Change) -> Result<i64, Error> {
    payment.cents += 1;
    Ok(payment.cents)
}

fn payments(place: &TestStorage) -> resourceful::ResourceBuilder {
    define_resource::<Payment>("payments")
        .adapter(place.table("payments"))
        .permissions(Permissions::all(signed_in()).delete(role("clerk")))
        .unique(["reference"])
        .version("version")
        .visible_to(["note"], role("clerk"))
        .action("pay", Action::on_item(signed_in(), pay))
        .preset(idempotency())
}

async fn app_of(resource: resourceful::ResourceBuilder) -> TestApp {
    let clerk = Actor::user("cleo").with_role("clerk");
    let tokens = BearerTokens::new()
        .token("ada", Actor::user("ada"))
        .token("ada at acme", Actor::user("ada").in_tenant("acme", Vec::<String>::new()))
        .token("bob", Actor::user("bob"))
        .token("clerk", clerk)
        .token("cleo without", Actor::user("cleo"));
    let app = create_app(AppPreset::Testing).authenticator(tokens).resource(resource.build().unwrap());
    TestApp::build(app).await.unwrap()
}

fn post(app: &TestApp, who: &str, key: &str, reference: &str) -> TestRequest {
    let request = app.post("/payments").bearer(who).header("idempotency-key", key);
    let mut body = json!({"reference": reference, "cents": 1});
    if who.starts_with("cl") {
        // The others do not see it, and what they do not see they do not set.
        body["note"] = json!("n");
    }
    request.json(body)
}

fn is_replayed(response: &TestResponse) -> bool {
    response.header("idempotent-replayed") == Some("true")
}

#[tokio::test]
async fn repeated_request_is_replayed_and_executed_once() {
    for place in TestStorage::all().await {
        let app = app_of(payments(&place)).await;
        let first = post(&app, "clerk", "\"k-1\"", "a").await;
        assert_eq!((first.status(), is_replayed(&first)), (201, false), "{}: {first}", place.name);
        // Quoted or bare, it is one key.
        let again = post(&app, "clerk", "k-1", "a").await;
        assert_eq!((again.status(), is_replayed(&again)), (201, true), "{again}");
        for header in ["location", "etag", "content-type"] {
            assert_eq!(again.header(header), first.header(header), "{header}");
        }
        assert_eq!(again.bytes(), first.bytes());

        let at = first.header("location").unwrap().to_owned();
        let with = |request: TestRequest, key| request.bearer("clerk").header("idempotency-key", key);
        let patch = || with(app.patch(&at), "k-2").json(json!({"cents": 5}));
        let (patched, replay) = (patch().await, patch().await);
        assert_eq!((patched.status(), replay.header("etag")), (200, Some("\"2\"")), "{patched}");
        assert!(is_replayed(&replay) && patched.bytes() == replay.bytes());
        let pay = || with(app.post(&format!("{at}/pay")), "k-2");
        let (paid, replay) = (pay().await, pay().await);
        assert_eq!(
            (paid.json(), replay.json(), is_replayed(&replay)),
            (json!(6), json!(6), true),
            "{replay}"
        );
        let delete = || with(app.delete(&at), "k-3");
        let (deleted, replay) = (delete().await, delete().await);
        assert_eq!((deleted.status(), replay.status(), is_replayed(&replay)), (204, 204, true), "{replay}");
        // The item has gone since, and the first answer is what it was.
        assert_eq!(post(&app, "clerk", "k-1", "a").await.bytes(), first.bytes());
        let types: Vec<_> = app.events().await.into_iter().map(|event| event.event_type).collect();
        assert_eq!(types, ["payments.created", "payments.updated", "payments.pay", "payments.deleted"]);
    }
}

#[tokio::test]
async fn bulk_replay_equals_the_first_response_with_any_preference() {
    for place in TestStorage::all().await {
        let app = app_of(payments(&place).preset(bulk())).await;
        for (number, (prefer, mode)) in
            [("", "atomic"), ("", "partial"), ("return=minimal", "atomic"), ("return=minimal", "partial")]
                .into_iter()
                .enumerate()
        {
            let items = json!([{"reference": format!("{number}-a"), "cents": 1}, {"reference": format!("{number}-b"), "cents": 1}]);
            let create = async || {
                let request = app.post(&format!("/payments/bulk?mode={mode}")).bearer("clerk");
                let request =
                    request.header("idempotency-key", format!("k-{number}")).header("prefer", prefer);
                request.json(json!({"items": items})).await
            };
            let (first, again) = (create().await, create().await);
            let of = format!("{} {mode} {prefer}: {first} {again}", place.name);
            let is_minimal = prefer == "return=minimal";
            assert_eq!(first.header("preference-applied"), is_minimal.then_some(prefer), "{of}");
            if mode == "atomic" {
                assert_eq!(
                    (first.status(), first.bytes().is_empty(), is_replayed(&again)),
                    (201, is_minimal, true),
                    "{of}"
                );
                assert_eq!(first.header("content-type").is_none(), is_minimal, "{of}");
            } else {
                let bodies = |one: &TestResponse| {
                    one.json()["results"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .any(|result| result.get("body").is_some())
                };
                assert_eq!((first.status(), bodies(&first)), (207, !is_minimal), "{of}");
            }
            assert_eq!((again.status(), again.bytes()), (first.status(), first.bytes()), "{of}");
            for header in ["content-type", "cache-control", "preference-applied"] {
                assert_eq!(again.header(header), first.header(header), "{header} of {of}");
            }
        }
        assert_eq!(app.app().count("payments").await.unwrap(), 8, "{}", place.name);
    }
}

#[tokio::test]
async fn expired_key_may_be_reused_and_is_removed() {
    for place in TestStorage::all().await {
        let app = app_of(payments(&place)).await;
        let (now, day) = (Utc::now(), std::time::Duration::from_secs(24 * 3600));
        let expire = async || KEYS.put(&place, now..now + 2 * day, now - day).await;
        assert_eq!(post(&app, "ada", "k", "a").await.status(), 201);
        assert_eq!(expire().await, 1, "kept for a day: {}", place.name);
        let reused = post(&app, "ada", "k", "b").await;
        assert_eq!((reused.status(), is_replayed(&reused)), (201, false), "{}: {reused}", place.name);
        let again = post(&app, "ada", "k", "b").await;
        assert_eq!((again.bytes(), is_replayed(&again)), (reused.bytes(), true), "{}: {again}", place.name);

        expire().await;
        assert_eq!(post(&app, "ada", "another", "c").await.status(), 201);
        app.app().sweep().await.unwrap();
        assert_eq!(
            KEYS.put(&place, now - 2 * day..now, now).await,
            0,
            "{}: what expired has gone",
            place.name
        );
        assert!(is_replayed(&post(&app, "ada", "another", "c").await), "{}: and nothing else", place.name);
    }
}

#[tokio::test]
async fn creating_put_is_executed_once() {
    for place in TestStorage::all().await {
        let codes = define_dynamic_resource("codes", crate::policies::model(&["code", "body"]))
            .adapter(place.table("codes"))
            .id_field("code")
            .permissions(Permissions::all(signed_in()))
            .preset(idempotency());
        let app = app_of(codes).await;
        let put = || {
            let request = app.put("/codes/a").bearer("ada").header("idempotency-key", "k");
            request.header("prefer", "return=minimal").json(json!({"body": "b"}))
        };
        let (first, again) = (put().await, put().await);
        assert_eq!((first.status(), is_replayed(&first)), (201, false), "{}: {first}", place.name);
        assert_eq!((again.status(), is_replayed(&again)), (201, true), "{}: {again}", place.name);
        assert_eq!(again.bytes(), first.bytes());
        for header in ["location", "etag", "content-type"] {
            assert_eq!(again.header(header), first.header(header), "{header}");
        }
    }
}

#[tokio::test]
async fn key_reuse_for_another_request_is_422() {
    for place in TestStorage::all().await {
        let app = app_of(payments(&place)).await;
        assert_eq!(post(&app, "ada", "k", "a").await.status(), 201);
        let other = post(&app, "ada", "k", "b").await;
        assert_eq!((other.status(), other.json()["code"].clone()), (422, json!("key-reused")), "{other}");
        assert_eq!(other.json()["errors"][0]["header"], "Idempotency-Key");
        let minimal = post(&app, "ada", "k", "a").header("prefer", "return=minimal").await;
        assert_eq!(minimal.status(), 422, "another preference is another request");
        // Another actor, another tenant, another route: other keys.
        for (who, reference) in [("bob", "b"), ("ada at acme", "c")] {
            let created = post(&app, who, "k", reference).await;
            assert_eq!((created.status(), is_replayed(&created)), (201, false), "{who}: {created}");
        }
        let item = app.get("/payments").bearer("ada").await.items()[0]["id"].to_string();
        let patch = |path: String| app.patch(&path).bearer("ada").header("idempotency-key", "k");
        assert_eq!(patch(format!("/payments/{item}")).json(json!({"cents": 2})).await.status(), 200);
        let second = app.get("/payments").bearer("ada").await.items()[1]["id"].to_string();
        assert_eq!(patch(format!("/payments/{second}")).json(json!({"cents": 2})).await.status(), 422);
    }
}

#[tokio::test]
async fn equivalent_json_bodies_are_the_same_request() {
    for place in TestStorage::all().await {
        let app = app_of(payments(&place)).await;
        let send = |body: &str, key: &str| {
            let post = app.post("/payments").bearer("ada").header("idempotency-key", key);
            post.header("content-type", "application/json").body(body.as_bytes().to_vec())
        };
        let first = send(r#"{"reference": "a/é", "cents": 100}"#, "k").await;
        assert_eq!((first.status(), is_replayed(&first)), (201, false), "{first}");
        for again in [
            r#"{"cents":100,"reference":"a/é"}"#,
            "\n{ \"cents\" : 100.0,\t\"reference\" : \"a\\/\\u00e9\" }\n",
            r#"{"reference":"a/é","cents":1e2}"#,
        ] {
            let again = send(again, "k").await;
            assert_eq!(
                (again.status(), is_replayed(&again), again.json()),
                (201, true, first.json()),
                "{again}"
            );
        }
        for other in [
            r#"{"cents":101,"reference":"a/é"}"#,
            r#"{"cents":100,"reference":"a/é","note":null}"#,
            r#"{"cents":"100","reference":"a/é"}"#,
        ] {
            let other = send(other, "k").await;
            assert_eq!((other.status(), other.json()["code"].clone()), (422, json!("key-reused")), "{other}");
        }
        // Doubles would make one of these two.
        assert_eq!(send(r#"{"cents":9007199254740993,"reference":"b"}"#, "l").await.status(), 201);
        assert_eq!(
            send(r#"{"cents":9007199254740992,"reference":"b"}"#, "l").await.json()["code"],
            "key-reused"
        );
        // A preference counts on whichever line it stands.
        let minimal = send(r#"{"cents":100,"reference":"a/é"}"#, "k").header("prefer", "wait=5");
        assert_eq!(minimal.header("prefer", "return=minimal").await.status(), 422);
    }
}

#[tokio::test]
async fn failed_request_stores_no_key_and_can_be_retried() {
    for place in TestStorage::all().await {
        let app = app_of(payments(&place)).await;
        assert_eq!(post(&app, "ada", "k0", "taken").await.status(), 201);
        assert_eq!(post(&app, "ada", "k", "taken").await.status(), 409);
        assert_eq!(post(&app, "ada", "k", "").await.status(), 422);
        let created = post(&app, "ada", "k", "free").await;
        assert_eq!((created.status(), is_replayed(&created)), (201, false), "{created}");
        assert_eq!(app.app().count("payments").await.unwrap(), 2);
        let tried = post(&app, "ada", "k2", "tried").header("prefer", "dry-run").await;
        assert_eq!(tried.json()["status"], 201, "{tried}");
        assert_eq!(post(&app, "ada", "k2", "tried").await.status(), 201, "a dry run leaves no key");
    }
}

#[tokio::test]
async fn malformed_key_and_missing_required_key_are_400() {
    let place = TestStorage::memory();
    let app = app_of(payments(&place).preset(idempotency().required())).await;
    let absent = app.post("/payments").bearer("ada").json(json!({"reference": "a", "cents": 1})).await;
    assert_eq!(
        (absent.status(), absent.json()["errors"][0]["header"].clone()),
        (400, json!("Idempotency-Key"))
    );
    for bad in ["", "\"\"", "two words", "\"a", &"k".repeat(256)] {
        let refused = post(&app, "ada", bad, "a").await;
        assert_eq!(refused.status(), 400, "{bad}: {refused}");
    }
    assert_eq!(app.get("/payments").bearer("ada").await.status(), 200, "reads need none");
    let document = app.get("/openapi.json").await.json();
    let parameters = crate::openapi::parameters(&document, "/payments", "post");
    let key = parameters.iter().find(|one| one["name"] == "Idempotency-Key").unwrap();
    assert_eq!(key["required"], true);
}

#[tokio::test]
async fn replay_is_masked_by_current_permissions() {
    for place in TestStorage::all().await {
        let app = app_of(payments(&place).policy_on([Operation::Read, Operation::List], role("clerk"))).await;
        let created = post(&app, "clerk", "k", "a").await;
        assert_eq!(created.json()["note"], "n");
        let patch = |who: &str| app.patch("/payments/1").bearer(who).header("idempotency-key", "p");
        assert_eq!(patch("clerk").json(json!({"cents": 2})).await.status(), 200);
        // The same actor, who is no clerk any more, and sees neither the field nor the item. What they made is answered
        // as it is to whoever may create and not read.
        let replay = post(&app, "cleo without", "k", "a").await;
        assert_eq!((replay.status(), replay.json().get("note")), (201, None), "{replay}");
        let replay = patch("cleo without").json(json!({"cents": 2})).await;
        assert_eq!(replay.status(), 403, "{replay}");

        let app = app_of(payments(&TestStorage::memory())).await;
        assert_eq!(post(&app, "clerk", "k", "a").await.json()["note"], "n");
        let replay = post(&app, "cleo without", "k", "a").await;
        assert_eq!((replay.status(), is_replayed(&replay)), (201, true), "{replay}");
        assert_eq!(replay.json().get("note"), None, "a field that is hidden from them now");
        let delete = |who: &str| app.delete("/payments/1").bearer(who).header("idempotency-key", "d");
        assert_eq!(delete("clerk").await.status(), 204);
        assert_eq!(delete("cleo without").await.status(), 403, "the permission comes before the replay");
    }
}

#[tokio::test]
async fn replay_of_an_action_requires_a_visible_item() {
    for place in TestStorage::all().await {
        let resource = payments(&place).policy_on(
            [Operation::Read, Operation::List],
            resourceful::access::rows(json!({"cents": {"lt": 3}})),
        );
        let app = app_of(resource).await;
        assert_eq!(post(&app, "clerk", "k", "a").await.status(), 201);
        let pay = || app.post("/payments/1/pay").bearer("clerk").header("idempotency-key", "p");
        assert_eq!((pay().await.json(), pay().await.json()), (json!(2), json!(2)), "{}", place.name);
        let again = app.post("/payments/1/pay").bearer("clerk").header("idempotency-key", "q").await;
        assert_eq!(again.json(), 3);
        // The item is out of sight now, and so is what was answered of it.
        assert_eq!(pay().await.status(), 404);
    }
}

#[tokio::test]
async fn one_of_a_hundred_concurrent_requests_is_executed() {
    for place in TestStorage::all().await {
        let app = app_of(payments(&place)).await;
        let all =
            futures::future::join_all((0..100).map(|_| async { post(&app, "ada", "k", "a").await })).await;
        let created = all.iter().filter(|answer| answer.status() == 201 && !is_replayed(answer)).count();
        assert_eq!(created, 1, "{}", place.name);
        for answer in all.iter().filter(|answer| !is_replayed(answer) && answer.status() != 201) {
            let problem = answer.json();
            assert_eq!((answer.status(), &problem["code"]), (409, &json!("key-in-flight")), "{answer}");
            assert_eq!(answer.header("retry-after"), Some("1"));
        }
        assert_eq!(app.app().count("payments").await.unwrap(), 1);
        assert_eq!(app.events().await.len(), 1);
    }
}

/// Two nodes do not know of each other's requests: the database alone decides.
#[tokio::test]
async fn concurrent_requests_on_two_nodes_are_executed_once() {
    let Some(place) = TestStorage::postgres().await else { return };
    let barrier = Arc::new(Barrier::new(2));
    let node = async || {
        let storage = Sql::connect(place.url().unwrap()).await.unwrap();
        let barrier = barrier.clone();
        let resource = payments(&place).adapter(storage.table("payments").create_table_if_missing());
        // Both look the key up before either commits.
        let resource = resource.hook(BarrierHook(barrier));
        app_of(resource).await
    };
    let (one, other) = (node().await, node().await);
    let (first, second) = tokio::join!(async { post(&one, "ada", "k", "a").await }, async {
        post(&other, "ada", "k", "a").await
    });
    assert_eq!((first.status(), second.status()), (201, 201), "{first} {second}");
    assert!(is_replayed(&first) != is_replayed(&second), "{first} {second}");
    assert_eq!((first.bytes(), one.app().count("payments").await.unwrap()), (second.bytes(), 1));
}

/// Waits for the other node's change, once.
struct BarrierHook(Arc<Barrier>);

impl resourceful::Hook for BarrierHook {
    fn before<'a>(&'a self, _: &'a mut Change) -> futures::future::BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            self.0.wait().await;
            Ok(())
        })
    }
}

#[tokio::test]
async fn faults_of_a_body_are_reported_with_a_key() {
    let app = app_of(payments(&TestStorage::memory())).await;
    let wrong = app.post("/payments").bearer("ada").header("idempotency-key", "k");
    let wrong = wrong.json(json!({"reference": "a", "cents": "x"})).await;
    assert_eq!(faults(&wrong.json()), [("/cents", "type")]);
    let malformed = app.post("/payments").bearer("ada").header("idempotency-key", "k");
    let malformed = malformed.header("content-type", "application/json").body("{").await;
    assert_eq!(malformed.json()["code"], "invalid-json");
}

#[tokio::test]
async fn no_op_request_is_replayed_without_changes() {
    for place in TestStorage::all().await {
        let app = app_of(payments(&place).preset(bulk())).await;
        let created = post(&app, "clerk", "k", "a").await;
        let (at, id) = (created.header("location").unwrap().to_owned(), created.json()["id"].clone());
        let with = |request: TestRequest, key: &str| request.bearer("clerk").header("idempotency-key", key);
        let put = json!({"reference": "a", "cents": 1, "note": "n"});
        let many = json!({"items": [{"id": id, "cents": 1}]});
        let asked = [
            ("PATCH", at.clone(), json!({"cents": 1})),
            ("PUT", at.clone(), put),
            ("PATCH", "/payments/bulk".to_owned(), many),
        ];
        let mut first = Vec::new();
        for (position, (method, path, body)) in asked.iter().enumerate() {
            let answer = with(app.request(method, path), &format!("key-{position}")).json(body.clone()).await;
            assert_eq!((answer.status(), is_replayed(&answer)), (200, false), "{method} {path}: {answer}");
            first.push(answer);
        }
        assert_eq!(with(app.patch(&at), "another").json(json!({"cents": 7})).await.status(), 200);
        for (position, (method, path, body)) in asked.iter().enumerate() {
            let again = with(app.request(method, path), &format!("key-{position}")).json(body.clone()).await;
            assert_eq!((again.status(), is_replayed(&again)), (200, true), "{method} {path}: {again}");
            assert_eq!(
                (again.bytes(), again.header("etag")),
                (first[position].bytes(), first[position].header("etag"))
            );
        }
        assert_eq!(app.get(&at).bearer("clerk").await.json()["cents"], 7, "on {}", place.name);
    }
}

#[tokio::test]
async fn key_in_flight_is_409_with_retry_after() {
    for place in TestStorage::all().await {
        // Entered, and let go.
        let barrier = Arc::new(Barrier::new(2));
        let app =
            app_of(payments(&place).hook(BarrierHook(barrier.clone())).hook(BarrierHook(barrier.clone())))
                .await;
        let meanwhile = async {
            barrier.wait().await;
            let second = post(&app, "ada", "k", "a").await;
            barrier.wait().await;
            second
        };
        let (first, second) = tokio::join!(async { post(&app, "ada", "k", "a").await }, meanwhile);
        assert_eq!((first.status(), is_replayed(&first)), (201, false), "{first}");
        assert_eq!(
            (second.status(), &second.json()["code"], second.header("retry-after")),
            (409, &json!("key-in-flight"), Some("1")),
            "{}: {second}",
            place.name
        );
        let third = post(&app, "ada", "k", "a").await;
        assert_eq!((third.status(), is_replayed(&third), third.bytes()), (201, true, first.bytes()));
    }
}

#[tokio::test]
async fn query_by_post_ignores_idempotency_keys() {
    for place in TestStorage::all().await {
        let app = app_of(payments(&place).preset(idempotency().required())).await;
        let query = async |key: Option<&str>| {
            let request = app.post("/payments/query").bearer("ada");
            let request = if let Some(key) = key { request.header("idempotency-key", key) } else { request };
            request.json(json!({"fields": ["reference"]})).await
        };
        let before = [query(None).await, query(Some("k")).await];
        assert_eq!(post(&app, "ada", "k", "a").await.status(), 201, "the key is free");
        for (empty, after) in before.iter().zip([query(None).await, query(Some("k")).await]) {
            assert_eq!((empty.status(), empty.items().len()), (200, 0), "{empty}");
            assert_eq!(
                (after.status(), after.items().len(), is_replayed(&after)),
                (200, 1, false),
                "{after}"
            );
        }
    }
}
