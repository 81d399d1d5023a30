//! Who else is there: rooms of items and of resources, over a socket.

use std::sync::{Arc, Mutex};

use resourceful::access::{Grant, Grants};
use resourceful::adapter::{Bus, MemoryBus};
use resourceful::live::Streams;
use resourceful::prelude::*;
use resourceful::testing::{TestApp, TestSocket};
use resourceful::{AppBuilder, define_dynamic_resource};
use serde_json::{Value as Json, json};
use tokio::sync::watch;

use crate::streams::model;
use crate::support::TestStorage;
use crate::support::unreliable_bus::UnreliableBus;

fn tokens() -> BearerTokens {
    BearerTokens::new()
        .token("ada", Actor::user("ada").in_tenant("acme", ["x"]))
        .token("alan", Actor::user("alan").in_tenant("acme", ["x"]))
        .token("bob", Actor::user("bob").in_tenant("bolt", ["x"]))
}

/// Things that everyone who is signed in may read, of whichever tenant.
fn builder(storage: &TestStorage) -> AppBuilder {
    let things = define_dynamic_resource("things", model())
        .adapter(storage.table("things"))
        .permissions(Permissions::all(signed_in()))
        .presence(true)
        .build()
        .unwrap();
    let quiet = define_dynamic_resource("quiet", model())
        .adapter(storage.table("quiet"))
        .permissions(Permissions::all(signed_in()))
        .build()
        .unwrap();
    create_app(AppPreset::Testing).authenticator(tokens()).resource(things).resource(quiet)
}

async fn app(storage: &TestStorage) -> TestApp {
    let app = TestApp::build(builder(storage)).await.unwrap();
    for id in ["a", "b"] {
        let thing = json!({"id": id, "text": "t", "shelf": "s"});
        assert_eq!(app.post("/things").bearer("ada").json(thing).await.status(), 201);
    }
    app
}

async fn socket(app: &TestApp, token: &str) -> TestSocket {
    app.get("/ws").bearer(token).socket().await.unwrap_or_else(|answer| panic!("{token}: {answer}"))
}

async fn join(socket: &mut TestSocket, mut request: Json) -> Vec<Json> {
    request["type"] = "join".into();
    request["id"] = "r".into();
    socket.send(request).await;
    members(socket).await
}

/// Who is there, by who they are and what they say of themselves.
async fn members(socket: &mut TestSocket) -> Vec<Json> {
    let answer = socket.next().await.unwrap();
    assert_eq!((&answer["type"], &answer["id"]), (&json!("members"), &json!("r")), "{answer}");
    let members = answer["members"].as_array().unwrap();
    assert!(members.iter().any(|member| member["id"] == answer["member"]), "{answer}");
    members.iter().map(|member| json!([member["actor"], member["state"]])).collect()
}

/// Who came, and under which name; or which name went.
async fn next_presence_event(socket: &mut TestSocket) -> (String, Json, Json) {
    let received = socket.next().await.unwrap();
    let kind = received["type"].as_str().unwrap().to_owned();
    match kind.as_str() {
        "joined" => (kind, received["member"]["id"].clone(), received["member"]["actor"].clone()),
        _ => (kind, received["member"].clone(), Json::Null),
    }
}

#[tokio::test]
async fn members_see_others_join_and_leave() {
    let storage = TestStorage::memory();
    let app = app(&storage).await;
    let mut ada = socket(&app, "ada").await;
    let room = json!({"resource": "things", "item": "a"});
    assert_eq!(join(&mut ada, room.clone()).await, [json!(["ada", null])]);
    let mut alan = socket(&app, "alan").await;
    let mut with_state = room.clone();
    with_state["state"] = json!({"name": "Alan"});
    let both = [json!(["ada", null]), json!(["alan", {"name": "Alan"}])];
    assert_eq!(join(&mut alan, with_state).await, both);
    let (kind, first, who) = next_presence_event(&mut ada).await;
    assert_eq!((kind.as_str(), &who), ("joined", &json!("alan")));
    ada.send(json!({"type": "members", "id": "r"})).await;
    assert_eq!(members(&mut ada).await, both);
    // By leaving, and by being cut.
    alan.send(json!({"type": "complete", "id": "r"})).await;
    assert_eq!(alan.next().await.unwrap(), json!({"type": "complete", "id": "r"}));
    assert_eq!(next_presence_event(&mut ada).await, ("left".to_owned(), first.clone(), Json::Null));
    join(&mut alan, room).await;
    let (_, second, _) = next_presence_event(&mut ada).await;
    assert_ne!(first, second);
    drop(alan);
    assert_eq!(next_presence_event(&mut ada).await, ("left".to_owned(), second, Json::Null));
}

#[tokio::test]
async fn room_is_scoped_to_one_tenant_and_one_item() {
    let storage = TestStorage::memory();
    let app = app(&storage).await;
    let mut ada = socket(&app, "ada").await;
    join(&mut ada, json!({"resource": "things", "item": "a"})).await;
    for (token, room) in [
        ("bob", json!({"resource": "things", "item": "a"})),
        ("alan", json!({"resource": "things", "item": "b"})),
        ("alan", json!({"resource": "things"})),
    ] {
        let mut other = socket(&app, token).await;
        assert_eq!(join(&mut other, room).await.len(), 1, "{token}");
    }
    // Nothing of all that was told: what comes next is what was asked for last.
    ada.send(json!({"type": "members", "id": "r"})).await;
    assert_eq!(members(&mut ada).await, [json!(["ada", null])]);
}

#[tokio::test]
async fn joining_requires_read_permission_and_a_valid_request() {
    let storage = TestStorage::memory();
    let app = app(&storage).await;
    let mut ada = socket(&app, "ada").await;
    let join = |request: Json| {
        let mut whole = json!({"type": "join", "id": "r"});
        whole.as_object_mut().unwrap().extend(request.as_object().unwrap().clone());
        whole
    };
    let long = "x".repeat(1_100);
    for (request, status, pointer) in [
        (json!({"resource": "things", "item": "none"}), 404, None),
        (json!({"resource": "quiet"}), 400, Some("/resource")),
        (json!({"resource": "thing"}), 400, Some("/resource")),
        (json!({"resource": "things", "state": long}), 400, Some("/state")),
        (json!({"resource": "things", "room": "x"}), 400, Some("/room")),
        (json!({"resource": "things", "state": [[[[[[[[[1]]]]]]]]]}), 400, Some("/state")),
    ] {
        ada.send(join(request.clone())).await;
        let refused = ada.next().await.unwrap();
        assert_eq!(refused["problem"]["status"], status, "{request}: {refused}");
        assert_eq!(refused["problem"]["errors"][0]["pointer"].as_str(), pointer, "{request}: {refused}");
    }
    ada.send(json!({"type": "members", "id": "r"})).await;
    assert_eq!(ada.next().await.unwrap()["problem"]["errors"][0]["pointer"], "/id");
    let mut anonymous = app.get("/ws").socket().await.unwrap();
    anonymous.send(join(json!({"resource": "things"}))).await;
    assert_eq!(anonymous.next().await.unwrap()["problem"]["status"], 401);
}

#[tokio::test]
async fn one_actor_cannot_fill_a_room() {
    let storage = TestStorage::memory();
    let app = app(&storage).await;
    let mut ada = socket(&app, "ada").await;
    let before = app.app().open_streams();
    for id in 0..10 {
        ada.send(json!({"type": "join", "id": id.to_string(), "resource": "things", "item": "a"})).await;
        while ada.next().await.unwrap()["type"] != "members" {}
    }
    assert_eq!(app.app().open_streams(), before + 10);
    ada.send(json!({"type": "join", "id": "more", "resource": "things", "item": "a"})).await;
    let refused = ada.next().await.unwrap();
    assert_eq!((&refused["id"], &refused["problem"]["code"]), (&json!("more"), &json!("room-full")));
    let mut alan = socket(&app, "alan").await;
    assert_eq!(join(&mut alan, json!({"resource": "things", "item": "a"})).await.len(), 11);
}

#[tokio::test]
async fn member_leaves_the_room_when_read_permission_is_revoked() {
    let storage = TestStorage::memory();
    let denied = Arc::new(Mutex::new(None));
    let denied_handle = denied.clone();
    let grants = Grants::new(move |actor: Actor| {
        let is_denied = denied_handle.lock().unwrap().as_deref() == actor.id();
        let all = vec![Grant::to("things", Operation::ALL)];
        std::future::ready(Ok(if is_denied { Vec::new() } else { all }))
    });
    let things = define_dynamic_resource("things", model())
        .adapter(storage.table("things"))
        .permissions(Permissions::all(grants.permission()))
        .presence(true)
        .build()
        .unwrap();
    let builder = create_app(AppPreset::Testing).authenticator(tokens()).grants(&grants).resource(things);
    let app = TestApp::build(builder).await.unwrap();
    let mut ada = socket(&app, "ada").await;
    join(&mut ada, json!({"resource": "things"})).await;
    let mut alan = socket(&app, "alan").await;
    join(&mut alan, json!({"resource": "things"})).await;
    let (_, member, _) = next_presence_event(&mut ada).await;
    *denied.lock().unwrap() = Some("alan".to_owned());
    grants.invalidate().await.unwrap();
    assert_eq!(alan.next().await.unwrap(), json!({"type": "complete", "id": "r", "code": "forbidden"}));
    assert_eq!(next_presence_event(&mut ada).await, ("left".to_owned(), member, Json::Null));
    // Whoever is somebody else from now on is another member, if they say so.
    ada.send(json!({"type": "authenticate", "authorization": "Bearer bob"})).await;
    let mut received = [ada.next().await.unwrap(), ada.next().await.unwrap()];
    received.sort_by_key(|message| message["type"].to_string());
    assert_eq!(received[0], json!({"type": "authenticated"}));
    assert_eq!(received[1], json!({"type": "complete", "id": "r", "code": "forbidden"}));
}

#[tokio::test]
async fn members_on_other_nodes_are_present() {
    let storage = TestStorage::memory();
    let bus = MemoryBus::new();
    let node = async |bus: Arc<dyn Bus>| {
        let beats = Streams::new().heartbeat(Duration::from_secs(2));
        TestApp::build(builder(&storage).streams(beats).bus(bus)).await.unwrap()
    };
    let (switch, is_there) = watch::channel(true);
    let one = node(Arc::new(bus.clone())).await;
    let room = json!({"resource": "things"});
    let mut ada = socket(&one, "ada").await;
    join(&mut ada, room.clone()).await;
    let other = node(Arc::new(UnreliableBus(bus, is_there))).await;
    let mut alan = socket(&other, "alan").await;
    join(&mut alan, room.clone()).await;
    let (kind, member, who) = next_presence_event(&mut ada).await;
    assert_eq!((kind.as_str(), &who), ("joined", &json!("alan")));
    // The node that came later asked who is there, however long that takes.
    let mut known = 1;
    while known < 2 {
        alan.send(json!({"type": "members", "id": "r"})).await;
        loop {
            let received = alan.next().await.unwrap();
            if received["type"] == "members" {
                known = received["members"].as_array().unwrap().len();
                break;
            }
        }
    }
    // Whoever reads nothing answers no ping.
    let reading = tokio::spawn(async move { while alan.next().await.is_some() {} });
    // A node that is not heard of is gone, and back when it is.
    switch.send(false).unwrap();
    assert_eq!(next_presence_event(&mut ada).await, ("left".to_owned(), member.clone(), Json::Null));
    switch.send(true).unwrap();
    let (kind, again, who) = next_presence_event(&mut ada).await;
    assert_eq!((kind.as_str(), &again, &who), ("joined", &member, &json!("alan")));
    reading.abort();
    assert_eq!(next_presence_event(&mut ada).await, ("left".to_owned(), member, Json::Null));
}
