//! The life of a socket: who may open one, what ends it, and how.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http::Request;
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use resourceful::access::{MemorySessions, Sessions};
use resourceful::live::Streams;
use resourceful::prelude::*;
use resourceful::testing::{TestApp, TestSocket};
use resourceful::{AppBuilder, Error, define_dynamic_resource};
use serde_json::{Value as Json, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::{WebSocketStream, client_async};
use tower_http::cors::{AllowOrigin, Any, CorsLayer};

use crate::sockets::{socket, subscribe};
use crate::stream_rights::ToggledAuthenticator;
use crate::streams::{app, create, model, things};
use crate::support::TestStorage;

async fn build_app(builder: AppBuilder) -> TestApp {
    TestApp::build(builder).await.unwrap()
}

/// Notes that whoever is signed in may see, each tenant its own, and some of their fields.
fn notes(storage: &TestStorage) -> AppBuilder {
    let notes = define_dynamic_resource("notes", model())
        .adapter(storage.table("notes"))
        .permissions(Permissions::all(signed_in()))
        .visible_to(["price"], role("boss"))
        .build()
        .unwrap();
    let tokens = BearerTokens::new()
        .token("ada", Actor::user("ada").in_tenant("acme", ["x"]))
        .token("boss", Actor::user("boss").in_tenant("acme", ["x"]).with_role("boss"));
    create_app(AppPreset::Testing).authenticator(tokens).resource(notes)
}

async fn status(app: &TestApp, headers: &[(&str, &str)]) -> u16 {
    let request = headers.iter().fold(app.get("/ws"), |request, (name, value)| request.header(name, value));
    request.socket().await.map_or_else(|answer| answer.status(), |_| 101)
}

#[tokio::test]
async fn socket_requires_the_subprotocol() {
    let storage = TestStorage::memory();
    let app = app(&storage).await;
    let plain = app.get("/ws").await;
    assert_eq!((plain.status(), plain.header("upgrade")), (426, Some("websocket")));
    assert_eq!(plain.json()["code"], "upgrade-required");
    let other = app.get("/ws").header("sec-websocket-protocol", "graphql-ws").socket().await.unwrap_err();
    assert_eq!((other.status(), other.json()["code"].as_str().unwrap()), (400, "subprotocol"));
    assert!(other.json()["detail"].as_str().unwrap().contains("resourceful.v1.json"));
    assert_eq!(app.post("/ws").await.status(), 405);
    let both =
        app.get("/ws").header("sec-websocket-protocol", "graphql-ws, resourceful.v1.json").socket().await;
    assert!(both.is_ok());
    assert_eq!(
        build_app(
            create_app(AppPreset::Testing).resource(things(&storage)).streams(Streams::new().sockets(false))
        )
        .await
        .get("/ws")
        .await
        .status(),
        404
    );
}

#[tokio::test]
async fn cross_origin_socket_is_rejected_unless_cors_allows_it() {
    let storage = TestStorage::memory();
    let builder = || create_app(AppPreset::Testing).resource(things(&storage));
    let foreign = ("origin", "https://evil.example");
    let cookie = ("cookie", "__Host-session=x");
    let closed = build_app(builder().cors(None)).await;
    assert_eq!(status(&closed, &[foreign]).await, 403);
    for own in ["http://localhost", "https://LOCALHOST"] {
        assert_eq!(status(&closed, &[("origin", own)]).await, 101);
    }
    for other in ["http://localhost:81", "null", "http://localhost.evil.example", "http://sub.localhost"] {
        assert_eq!(status(&closed, &[("origin", other)]).await, 403, "{other}");
    }
    let named = build_app(builder().cors_origins(["https://shop.example"])).await;
    assert_eq!(status(&named, &[foreign]).await, 403);
    assert_eq!(status(&named, &[("origin", "https://shop.example")]).await, 101);
    // Its answers may be read, and not with what the browser holds.
    assert_eq!(status(&named, &[("origin", "https://shop.example"), cookie]).await, 403);
    let anyone = build_app(builder().cors(Some(CorsLayer::new().allow_origin(Any)))).await;
    assert_eq!(status(&anyone, &[foreign]).await, 101);
    assert_eq!(status(&anyone, &[foreign, cookie]).await, 403);
    let origin = AllowOrigin::list(["https://shop.example".parse().unwrap()]);
    let trusting =
        build_app(builder().cors(Some(CorsLayer::new().allow_origin(origin).allow_credentials(true)))).await;
    assert_eq!(status(&trusting, &[("origin", "https://shop.example"), cookie]).await, 101);
    assert_eq!(status(&trusting, &[foreign, cookie]).await, 403);
}

/// What a subscription to notes is answered with: the type, and the problem's status.
async fn subscribe_to_notes(socket: &mut TestSocket) -> (String, Json) {
    socket.send(json!({"type": "subscribe", "id": "1", "resource": "notes"})).await;
    let answer = socket.next().await.unwrap();
    (answer["type"].as_str().unwrap().to_owned(), answer["problem"]["status"].clone())
}

#[tokio::test]
async fn invalid_credential_opens_no_socket_and_closes_an_open_one() {
    let storage = TestStorage::memory();
    let app = build_app(notes(&storage)).await;
    assert_eq!(status(&app, &[("authorization", "Bearer nobody")]).await, 401);
    let mut one = socket(&app).await;
    assert_eq!(subscribe_to_notes(&mut one).await, ("error".to_owned(), json!(401)));
    one.send(json!({"type": "authenticate", "authorization": "Bearer ada"})).await;
    assert_eq!(one.next().await.unwrap(), json!({"type": "authenticated"}));
    assert_eq!(subscribe_to_notes(&mut one).await, ("ready".to_owned(), Json::Null));
    one.send(json!({"type": "authenticate", "authorization": "Bearer nobody"})).await;
    assert_eq!(one.next().await, None);
    assert_eq!(one.closed().await, Some(4401));
    let gone = async {
        while app.app().open_streams() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("nothing of it is left");
}

#[tokio::test]
async fn authenticate_message_replaces_the_earlier_credential() {
    let storage = TestStorage::memory();
    let notes = define_dynamic_resource("notes", model())
        .adapter(storage.table("notes"))
        .permissions(Permissions::all(signed_in()))
        .preset(multi_tenant("shelf"))
        .build()
        .unwrap();
    let sessions = Sessions::new("kZ8uA2n0w1Yq7Rr3Tt5Vv9Xx4Bb6Dd8F", MemorySessions::new());
    let cookie = sessions.start(Actor::user("ada").in_tenant("acme", ["x"])).await.unwrap();
    let cookie = cookie.to_str().unwrap().split(';').next().unwrap().to_owned();
    let tokens = BearerTokens::new().token("bob", Actor::user("bob").in_tenant("bolt", ["x"]));
    // Whoever is asked first likes the cookie.
    let builder = create_app(AppPreset::Testing).authenticator(sessions).authenticator(tokens);
    let app = build_app(builder.resource(notes)).await;
    let open = async || app.get("/ws").header("cookie", &cookie).socket().await.unwrap();
    let mut one = open().await;
    one.send(json!({"type": "authenticate", "authorization": "Bearer nobody"})).await;
    assert_eq!(one.closed().await, Some(4401));
    let mut one = open().await;
    one.send(json!({"type": "authenticate", "authorization": "Bearer bob"})).await;
    assert_eq!(one.next().await.unwrap(), json!({"type": "authenticated"}));
    subscribe(&mut one, "1", json!({"resource": "notes"})).await;
    let created = app.post("/notes").bearer("bob").json(json!({"id": "a", "text": "bob's"})).await;
    assert_eq!(created.status(), 201, "{created}");
    app.app().deliver().await.unwrap();
    assert_eq!(one.next().await.unwrap()["data"]["data"]["text"], "bob's");
}

#[tokio::test]
async fn client_close_is_acknowledged() {
    let storage = TestStorage::memory();
    let app = app(&storage).await;
    let mut one = socket(&app).await;
    subscribe(&mut one, "1", json!({"resource": "things"})).await;
    assert_eq!(one.close().await, Some(1000));
}

/// A text that a careless reader would read as JSON again, and what is in it again, as deep as it is long.
fn nested_raw_value() -> String {
    let quoted = |text: &str| text.replace('\\', "\\u005c").replace('"', "\\u0022");
    (0..5).fold("1".to_owned(), |inner, _| {
        format!("{{\"$serde_json::private::RawValue\": \"{}\"}}", quoted(&inner))
    })
}

#[tokio::test]
async fn client_without_pongs_is_disconnected() {
    let storage = TestStorage::memory();
    let beats = Streams::new().heartbeat(Duration::from_millis(50));
    let app = build_app(create_app(AppPreset::Testing).resource(things(&storage)).streams(beats)).await;
    let mut silent = socket(&app).await;
    subscribe(&mut silent, "1", json!({"resource": "things"})).await;
    // Whoever reads nothing answers nothing.
    let gone = async {
        while app.app().open_streams() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("its places are free");
    drop(silent);
}

#[tokio::test]
async fn ping_flood_is_answered_without_blocking_others() {
    let storage = TestStorage::memory();
    let app = app(&storage).await;
    let (address, server) = serve(&app).await;
    let mut flooding = open_websocket(address).await;
    for _ in 0..20_000 {
        flooding.feed(Message::Ping(vec![7; 100].into())).await.unwrap();
    }
    flooding.send(Message::text(r#"{"type": "ping"}"#)).await.unwrap();
    let mut pongs = 0;
    let pong = loop {
        match flooding.next().await.unwrap().unwrap() {
            Message::Pong(payload) => {
                assert_eq!(payload.len(), 100);
                pongs += 1;
            }
            other => break other,
        }
    };
    assert_eq!(pong.to_text().unwrap(), r#"{"type":"pong"}"#);
    // The last of several may stand for all of them (RFC 6455, 5.5.3).
    assert!((1..=20_000).contains(&pongs), "{pongs}");
    server.abort();
}

#[tokio::test]
async fn oversized_frame_is_rejected_by_its_header() {
    let storage = TestStorage::memory();
    let app = app(&storage).await;
    let (address, server) = serve(&app).await;
    let mut raw = open_websocket(address).await.into_inner();
    // A text frame of 1 MiB, masked, of which no more than the head is sent.
    raw.write_all(&[0x81, 0xff, 0, 0, 0, 0, 0, 0x10, 0, 0, 1, 2, 3, 4]).await.unwrap();
    let mut frame = [0; 4];
    raw.read_exact(&mut frame).await.unwrap();
    assert_eq!(frame[0], 0x88, "a Close frame");
    assert_eq!(u16::from_be_bytes([frame[2], frame[3]]), 1009);
    server.abort();
}

/// Serves an application, until the task is aborted.
async fn serve(app: &TestApp) -> (SocketAddr, JoinHandle<Result<(), Error>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (address, tokio::spawn(app.app().clone().serve_on(listener)))
}

async fn open_websocket(address: SocketAddr) -> WebSocketStream<TcpStream> {
    let mut request = format!("ws://{address}/ws").into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "resourceful.v1.json".parse().unwrap());
    client_async(request, TcpStream::connect(address).await.unwrap()).await.unwrap().0
}

#[tokio::test]
async fn socket_works_over_http_2() {
    let storage = TestStorage::memory();
    let app = app(&storage).await;
    let (address, server) = serve(&app).await;
    let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    let connection = tokio::spawn(connection);
    // The server's settings have come when an answer has: they say that there may be sockets (RFC 8441).
    let plain = Request::get(format!("http://{address}/things")).body(Empty::<Bytes>::new()).unwrap();
    assert_eq!(sender.send_request(plain).await.unwrap().status(), 200);
    let mut request = Request::connect(format!("http://{address}/ws"))
        .header("sec-websocket-protocol", "resourceful.v1.json")
        .header("sec-websocket-version", "13")
        .body(Empty::<Bytes>::new())
        .unwrap();
    request.extensions_mut().insert(hyper::ext::Protocol::from_static("websocket"));
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["sec-websocket-protocol"], "resourceful.v1.json");
    let upgraded = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
    let mut socket = WebSocketStream::from_raw_socket(upgraded, Role::Client, None).await;
    let subscribe_message = json!({"type": "subscribe", "id": "1", "resource": "things"});
    socket.send(Message::text(subscribe_message.to_string())).await.unwrap();
    assert!(socket.next().await.unwrap().unwrap().to_text().unwrap().contains("ready"));
    create(&app, "a", "one", "s").await;
    app.app().deliver().await.unwrap();
    let event: Json = serde_json::from_str(socket.next().await.unwrap().unwrap().to_text().unwrap()).unwrap();
    assert_eq!((&event["type"], &event["data"]["subject"]), (&json!("next"), &json!("a")));
    drop(socket);
    server.abort();
    connection.abort();
}

#[tokio::test]
async fn nested_raw_values_are_rejected() {
    let storage = TestStorage::memory();
    let app = app(&storage).await;
    let mut one = socket(&app).await;
    let message =
        format!(r#"{{"type": "join", "id": "1", "resource": "things", "state": {}}}"#, nested_raw_value());
    one.send_text(&message).await;
    let refused = one.next().await.unwrap();
    assert_eq!(refused["problem"]["errors"][0]["code"], "json", "{refused}");
    let refused = app.post("/things").body(nested_raw_value()).await;
    assert_eq!((refused.status(), refused.json()["code"].as_str().unwrap()), (400, "invalid-json"));
}

#[tokio::test]
async fn reauthentication_changes_visibility_at_once() {
    let storage = TestStorage::memory();
    // At once, and not when it is looked at anyway.
    let app = build_app(notes(&storage).streams(Streams::new().heartbeat(Duration::from_secs(3_600)))).await;
    let mut one = app.get("/ws").bearer("ada").socket().await.unwrap();
    subscribe(&mut one, "1", json!({"resource": "notes"})).await;
    one.send(json!({"type": "authenticate", "authorization": "Bearer boss"})).await;
    let mut types = Vec::new();
    for _ in 0..2 {
        types.push(one.next().await.unwrap()["type"].as_str().unwrap().to_owned());
    }
    types.sort();
    assert_eq!(types, ["authenticated", "reset"]);
    let note = json!({"id": "a", "text": "t", "shelf": "s", "price": 7});
    assert_eq!(app.post("/notes").bearer("boss").json(note).await.status(), 201);
    app.app().deliver().await.unwrap();
    assert_eq!(one.next().await.unwrap()["data"]["data"]["price"], 7);
}

#[tokio::test]
async fn socket_closes_when_its_credential_expires() {
    let storage = TestStorage::memory();
    let on = Arc::new(AtomicBool::new(true));
    let things = define_dynamic_resource("things", model())
        .adapter(storage.table("things"))
        .permissions(Permissions::all(signed_in()))
        .build()
        .unwrap();
    for subscribes in [true, false] {
        on.store(true, Ordering::SeqCst);
        let beats = Streams::new().heartbeat(Duration::from_millis(200));
        let switched = ToggledAuthenticator(on.clone());
        let builder = create_app(AppPreset::Testing).authenticator(switched).streams(beats);
        let app = build_app(builder.resource(things.clone())).await;
        let mut one = socket(&app).await;
        if subscribes {
            subscribe(&mut one, "1", json!({"resource": "things"})).await;
        }
        on.store(false, Ordering::SeqCst);
        assert_eq!(one.closed().await, Some(4401));
    }
}

#[tokio::test]
async fn idle_socket_without_subscriptions_is_closed() {
    let storage = TestStorage::memory();
    let limits = Streams::new().heartbeat(Duration::from_secs(2)).idle(Duration::from_millis(10));
    let app = build_app(create_app(AppPreset::Testing).resource(things(&storage)).streams(limits)).await;
    let mut following = socket(&app).await;
    subscribe(&mut following, "1", json!({"resource": "things"})).await;
    let mut idle = socket(&app).await;
    assert_eq!(idle.closed().await, Some(1000));
    create(&app, "a", "one", "s").await;
    app.app().deliver().await.unwrap();
    let event = loop {
        let message = following.next().await.unwrap();
        if message["type"] != "position" {
            break message;
        }
    };
    assert_eq!(event["data"]["subject"], "a");
}

#[tokio::test]
async fn binary_and_oversized_messages_close_the_socket() {
    let storage = TestStorage::memory();
    let app = app(&storage).await;
    let mut one = socket(&app).await;
    one.send_bytes(vec![1, 2, 3]).await;
    assert_eq!(one.closed().await, Some(1003));
    let mut one = socket(&app).await;
    one.send_text(&"x".repeat(64 * 1024 + 1)).await;
    assert_eq!(one.closed().await, Some(1009));
    let mut one = socket(&app).await;
    one.send_text(&" ".repeat(64 * 1024)).await;
    assert_eq!(one.next().await.unwrap()["type"], "error");
}

#[tokio::test]
async fn sockets_and_subscriptions_count_towards_stream_limits() {
    let storage = TestStorage::memory();
    let app = build_app(notes(&storage).streams(Streams::new().max_streams(4).max_per_actor(3))).await;
    let refused = async |token: &str| {
        let answer = app.get("/ws").bearer(token).socket().await.map(drop);
        answer.map_err(|answer| (answer.status(), answer.header("retry-after").map(str::to_owned)))
    };
    let mut one = app.get("/ws").bearer("ada").socket().await.unwrap();
    subscribe(&mut one, "1", json!({"resource": "notes"})).await;
    subscribe(&mut one, "2", json!({"resource": "notes"})).await;
    one.send(json!({"type": "subscribe", "id": "3", "resource": "notes"})).await;
    assert_eq!(one.next().await.unwrap()["problem"]["code"], "too-many-streams");
    assert_eq!(refused("ada").await, Err((429, Some("1".to_owned()))));
    let _other = app.get("/ws").bearer("boss").socket().await.unwrap();
    assert_eq!(refused("boss").await, Err((503, Some("1".to_owned()))));
    one.send(json!({"type": "complete", "id": "1"})).await;
    assert_eq!(one.next().await.unwrap()["type"], "complete");
    assert_eq!(refused("boss").await, Ok(()));
    // Whose it is counts from when that is known.
    let app = build_app(notes(&storage).streams(Streams::new().max_per_actor(1))).await;
    let _ada = app.get("/ws").bearer("ada").socket().await.unwrap();
    // Whoever shows another token for themselves takes no place more.
    let mut own = app.get("/ws").bearer("boss").socket().await.unwrap();
    own.send(json!({"type": "authenticate", "authorization": "Bearer boss"})).await;
    assert_eq!(own.next().await.unwrap(), json!({"type": "authenticated"}));
    let mut anonymous = socket(&app).await;
    anonymous.send(json!({"type": "authenticate", "authorization": "Bearer ada"})).await;
    assert_eq!(anonymous.closed().await, Some(4429));
}

#[tokio::test]
async fn subscriptions_per_socket_are_limited() {
    let storage = TestStorage::memory();
    let app = app(&storage).await;
    let mut one = socket(&app).await;
    for id in 0..100 {
        subscribe(&mut one, &id.to_string(), json!({"resource": "things"})).await;
    }
    one.send(json!({"type": "subscribe", "id": "more", "resource": "things"})).await;
    assert_eq!(one.next().await.unwrap()["problem"]["status"], 429);
}

#[tokio::test]
async fn session_cookie_opens_sockets_for_same_origin_pages_only() {
    let storage = TestStorage::memory();
    let notes = define_dynamic_resource("notes", model())
        .adapter(storage.table("notes"))
        .permissions(Permissions::all(signed_in()))
        .build()
        .unwrap();
    let sessions = Sessions::new("kZ8uA2n0w1Yq7Rr3Tt5Vv9Xx4Bb6Dd8F", MemorySessions::new());
    let cookie = sessions.start(Actor::user("ada")).await.unwrap();
    let cookie = cookie.to_str().unwrap().split(';').next().unwrap().to_owned();
    let app = build_app(create_app(AppPreset::Testing).authenticator(sessions).resource(notes)).await;
    let open =
        async |origin: &str| app.get("/ws").header("cookie", &cookie).header("origin", origin).socket().await;
    assert_eq!(open("https://evil.example").await.unwrap_err().status(), 403);
    let mut own = open("http://localhost").await.unwrap();
    subscribe(&mut own, "1", json!({"resource": "notes"})).await;
}

#[tokio::test]
async fn shutdown_closes_sockets_with_code_1001() {
    let storage = TestStorage::memory();
    let builder = create_app(AppPreset::Testing).resource(things(&storage));
    let app = builder.shutdown_grace(Duration::from_secs(600)).build().await.unwrap();
    let test = TestApp::of(app.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(app.serve_until(listener, async move { _ = stopped.await }));
    let mut talking = open_websocket(address).await;
    let subscribe_message = json!({"type": "subscribe", "id": "1", "resource": "things"});
    talking.send(Message::text(subscribe_message.to_string())).await.unwrap();
    assert!(talking.next().await.unwrap().unwrap().to_text().unwrap().contains("ready"));
    // Of one who hears nothing it does not wait for an answer for ever.
    let silent = open_websocket(address).await;
    assert_eq!(test.app().open_streams(), 3);
    stop.send(()).unwrap();
    let code = loop {
        match talking.next().await.unwrap().unwrap() {
            Message::Close(frame) => break u16::from(frame.unwrap().code),
            other => assert!(!other.is_text() || other.to_text().unwrap().contains("closing"), "{other}"),
        }
    };
    assert_eq!(code, 1001);
    while talking.next().await.is_some() {}
    let ended = tokio::time::timeout(Duration::from_secs(20), server).await;
    ended.expect("the server ends").unwrap().unwrap();
    assert_eq!(test.app().open_streams(), 0);
    drop(silent);
}
