//! Changes as they happen, many of them over one connection: `GET /ws`.

use std::time::Duration;

use resourceful::access::check;
use resourceful::define_dynamic_resource;
use resourceful::live::Streams;
use resourceful::prelude::*;
use resourceful::testing::{TestApp, TestSocket};
use serde_json::{Value as Json, json};

use crate::streams::{app, change, create, model, open_stream, things};
use crate::support::TestStorage;

pub(crate) async fn socket(app: &TestApp) -> TestSocket {
    app.get("/ws").socket().await.unwrap_or_else(|answer| panic!("no socket: {answer}"))
}

/// Subscribes; answers where that begins.
pub(crate) async fn subscribe(socket: &mut TestSocket, id: &str, mut request: Json) -> String {
    request["type"] = "subscribe".into();
    request["id"] = id.into();
    socket.send(request).await;
    let ready = socket.next().await.expect("an answer");
    assert_eq!((&ready["type"], &ready["id"]), (&json!("ready"), &json!(id)), "{ready}");
    ready["position"].as_str().expect("a position").to_owned()
}

/// Under which id something is told, what it is called, whom it is of and what it shows.
async fn next_messages(socket: &mut TestSocket, count: usize) -> Vec<Json> {
    let mut received = Vec::new();
    for _ in 0..count {
        let message = socket.next().await.expect("another message");
        assert_eq!(message["type"], "next", "{message}");
        assert!(!message["position"].as_str().unwrap().is_empty());
        let data = &message["data"];
        received.push(json!([message["id"], message["event"], data["subject"], data["data"]["text"]]));
    }
    received
}

#[tokio::test]
async fn socket_delivers_events_of_each_subscription_under_its_id() {
    for storage in TestStorage::all().await {
        let app = app(&storage).await;
        let background = app.app().background();
        let mut socket = socket(&app).await;
        let filter = json!({"or": [{"shelf": {"eq": "s"}}, {"price": {"gte": 10}}]});
        subscribe(&mut socket, "shelf", json!({"resource": "things", "filter": filter})).await;
        create(&app, "a", "one", "s").await;
        assert_eq!(next_messages(&mut socket, 1).await, [json!(["shelf", "things.created", "a", "one"])]);
        change(&app, "a", json!({"shelf": "t"})).await;
        assert_eq!(
            next_messages(&mut socket, 1).await,
            [json!(["shelf", "removed", "a", null])],
            "{}",
            storage.name
        );
        change(&app, "a", json!({"price": 10})).await;
        assert_eq!(next_messages(&mut socket, 1).await, [json!(["shelf", "added", "a", "one"])]);
        subscribe(&mut socket, "all", json!({"types": ["things.deleted"]})).await;
        subscribe(&mut socket, "one", json!({"resource": "things", "q": null, "fields": ["id"]})).await;
        assert_eq!(app.delete("/things/a").await.status(), 204);
        let mut all = next_messages(&mut socket, 3).await;
        all.sort_by_key(|one| one[0].to_string());
        let deleted = |id: &str, text: Json| json!([id, "things.deleted", "a", text]);
        let expected =
            [deleted("all", "one".into()), deleted("one", Json::Null), deleted("shelf", "one".into())];
        assert_eq!(all, expected, "{}", storage.name);
        background.stop().await;
        assert_eq!(socket.closed().await, Some(1001));
    }
}

#[tokio::test]
async fn completed_subscription_gets_no_events_and_frees_its_id() {
    let storage = TestStorage::memory();
    let app = app(&storage).await;
    let mut socket = socket(&app).await;
    subscribe(&mut socket, "1", json!({"resource": "things"})).await;
    subscribe(&mut socket, "2", json!({"resource": "things"})).await;
    assert_eq!(app.app().open_streams(), 3);
    socket.send(json!({"type": "complete", "id": "1"})).await;
    assert_eq!(socket.next().await.unwrap(), json!({"type": "complete", "id": "1"}));
    create(&app, "a", "one", "s").await;
    app.app().deliver().await.unwrap();
    assert_eq!(next_messages(&mut socket, 1).await, [json!(["2", "things.created", "a", "one"])]);
    subscribe(&mut socket, "1", json!({"resource": "things"})).await;
    assert_eq!(app.app().open_streams(), 3);
    // Once more is no fault: nothing is told under it, which is what was asked for.
    for id in ["1", "1", "never"] {
        socket.send(json!({"type": "complete", "id": id})).await;
        assert_eq!(socket.next().await.unwrap(), json!({"type": "complete", "id": id}));
    }
    socket.send(json!({"type": "ping", "payload": 1})).await;
    assert_eq!(socket.next().await.unwrap(), json!({"type": "pong"}));
}

#[tokio::test]
async fn position_is_valid_across_socket_stream_and_list() {
    for storage in TestStorage::all().await {
        let app = app(&storage).await;
        let mut one = socket(&app).await;
        let request = json!({"resource": "things", "filter": {"shelf": "s"}});
        let begun = subscribe(&mut one, "1", request.clone()).await;
        drop(one);
        for (id, text) in [("a", "one"), ("b", "two")] {
            create(&app, id, text, "s").await;
        }
        app.app().deliver().await.unwrap();
        let path = "/things/stream?shelf=s";
        let mut stream = open_stream(&app, &format!("{path}&last_event_id={begun}")).await;
        let first = stream.next().await.unwrap();
        assert_eq!(first.data["subject"], "a");
        let mut after = request.clone();
        after["after"] = first.id.clone().into();
        let mut back = socket(&app).await;
        subscribe(&mut back, "1", after).await;
        assert_eq!(
            next_messages(&mut back, 1).await,
            [json!(["1", "things.created", "b", "two"])],
            "{}",
            storage.name
        );
        let list = app.get("/things?shelf=s").header("prefer", "stream-position").await;
        let mut after = request.clone();
        after["after"] = list.header("stream-position").unwrap().into();
        subscribe(&mut back, "2", after).await;
        create(&app, "c", "three", "s").await;
        app.app().deliver().await.unwrap();
        let mut both = next_messages(&mut back, 2).await;
        both.sort_by_key(|one| one[0].to_string());
        assert_eq!(both, ["1", "2"].map(|id| json!([id, "things.created", "c", "three"])));
        // Of another filter it is none.
        back.send(json!({"type": "subscribe", "id": "3", "resource": "things", "after": first.id})).await;
        let refused = back.next().await.unwrap();
        assert_eq!(refused["problem"]["errors"][0]["pointer"], "/after", "{refused}");
        assert_eq!(refused["problem"]["code"], "invalid-cursor");
    }
}

#[tokio::test]
async fn invalid_message_gets_an_error_and_keeps_the_socket_open() {
    let storage = TestStorage::memory();
    let app = app(&storage).await;
    let mut socket = socket(&app).await;
    subscribe(&mut socket, "1", json!({"resource": "things"})).await;
    let of = |request: Json| {
        let mut whole = json!({"type": "subscribe", "id": "2"});
        whole.as_object_mut().unwrap().extend(request.as_object().unwrap().clone());
        whole.to_string()
    };
    let cases = [
        ("[]".to_owned(), "", "type", 400),
        ("{".to_owned(), "", "json", 400),
        (r#"{"type": "ping", "type": "pong"}"#.to_owned(), "", "json", 400),
        (json!({"id": "2"}).to_string(), "/type", "required", 400),
        (json!({"type": "subscribed"}).to_string(), "/type", "unknown", 400),
        (json!({"type": "subscribe", "resource": "things"}).to_string(), "/id", "required", 400),
        (json!({"type": "subscribe", "id": "x".repeat(129)}).to_string(), "/id", "length", 400),
        (of(json!({"resource": "thing"})), "/resource", "unknown", 400),
        (of(json!({"resource": "things", "types": ["*"]})), "/types", "unknown", 400),
        (of(json!({"resource": "things", "sort": ["id"]})), "/sort", "type", 400),
        (of(json!({"resource": 1})), "/resource", "type", 400),
        (of(json!({"resource": "things", "filter": {"shelv": "s"}})), "/filter/shelv", "unknown", 400),
        (of(json!({"resource": "things", "fields": "id"})), "/fields", "type", 400),
        (of(json!({"types": ["things.created", "nothing.*"]})), "/types/1", "unknown", 400),
        (of(json!({"types": ["*"], "filter": {}})), "/filter", "unknown", 400),
        (of(json!({"resource": "things", "after": "x"})), "/after", "invalid-cursor", 400),
    ];
    for (message, pointer, code, status) in cases {
        socket.send_text(&message).await;
        let answer = socket.next().await.unwrap();
        assert_eq!(answer["type"], "error", "{message}: {answer}");
        let problem = &answer["problem"];
        assert_eq!(problem["status"], status, "{message}: {answer}");
        let fault = &problem["errors"][0];
        let found = (fault["pointer"].as_str(), fault["code"].as_str());
        assert_eq!(found, (Some(pointer), Some(code)), "{message}: {answer}");
    }
    socket.send(json!({"type": "subscribe", "id": "1", "resource": "things"})).await;
    let taken = socket.next().await.unwrap();
    assert_eq!((&taken["id"], &taken["problem"]["code"]), (&json!("1"), &json!("id-taken")));
    socket.send(json!({"type": "subscribe", "id": "2", "resource": "thing"})).await;
    let unknown = socket.next().await.unwrap();
    let detail = unknown["problem"]["errors"][0]["detail"].as_str().unwrap();
    assert!(unknown["id"] == "2" && detail.contains("things"), "{unknown}");
    assert_eq!(unknown["problem"]["instance"], "/ws");
    // What was followed is followed on.
    create(&app, "a", "one", "s").await;
    app.app().deliver().await.unwrap();
    assert_eq!(next_messages(&mut socket, 1).await, [json!(["1", "things.created", "a", "one"])]);
}

#[tokio::test]
async fn lagging_subscription_is_completed_and_resumes_without_loss() {
    let storage = TestStorage::memory();
    let builder = create_app(AppPreset::Testing).resource(things(&storage)).streams(Streams::new().queue(4));
    let app = TestApp::build(builder).await.unwrap();
    let mut socket = socket(&app).await;
    let mut position = subscribe(&mut socket, "1", json!({"resource": "things"})).await;
    // More than waits on the way and for the client.
    let long = "x".repeat(40_000);
    for id in 0..20 {
        create(&app, &id.to_string(), &long, "s").await;
    }
    app.app().deliver().await.unwrap();
    let mut received = Vec::new();
    loop {
        let message = socket.next().await.unwrap();
        match message["type"].as_str().unwrap() {
            "next" => {
                received.push(message["data"]["subject"].as_str().unwrap().to_owned());
                position = message["position"].as_str().unwrap().to_owned();
            }
            _ => {
                assert_eq!(message, json!({"type": "complete", "id": "1", "code": "lagged"}));
                break;
            }
        }
    }
    assert!(received.len() < 20, "nothing was too much");
    subscribe(&mut socket, "1", json!({"resource": "things", "after": position})).await;
    while received.len() < 20 {
        let message = socket.next().await.unwrap();
        received.push(message["data"]["subject"].as_str().unwrap().to_owned());
    }
    assert_eq!(received, (0..20).map(|id| id.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn rejected_subscription_does_not_affect_others() {
    let storage = TestStorage::memory();
    let careless = check("careless", |_| async move { panic!("careless") });
    let others = define_dynamic_resource("others", model())
        .adapter(storage.table("others"))
        .permissions(Permissions::all(careless))
        .build()
        .unwrap();
    let builder = create_app(AppPreset::Testing).resource(things(&storage)).resource(others);
    let app = TestApp::build(builder).await.unwrap();
    let mut socket = socket(&app).await;
    subscribe(&mut socket, "1", json!({"resource": "things"})).await;
    socket.send(json!({"type": "subscribe", "id": "2", "resource": "others"})).await;
    let refused = socket.next().await.unwrap();
    assert_eq!((&refused["id"], &refused["problem"]["status"]), (&json!("2"), &json!(401)), "{refused}");
    assert!(!refused.to_string().contains("careless"));
    create(&app, "a", "one", "s").await;
    app.app().deliver().await.unwrap();
    assert_eq!(next_messages(&mut socket, 1).await, [json!(["1", "things.created", "a", "one"])]);
    assert_eq!(app.app().open_streams(), 2);
    drop(socket);
    let freed = async {
        while app.app().open_streams() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), freed).await.expect("everything is free");
}
