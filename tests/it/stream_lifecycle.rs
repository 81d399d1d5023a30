//! The life of a stream: what bounds it, what it does not hold up, and how it ends.

use std::sync::Arc;
use std::time::Duration;

use resourceful::AppBuilder;
use resourceful::adapter::Migration;
use resourceful::live::Streams;
use resourceful::prelude::*;
use resourceful::testing::TestApp;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};

use crate::streams::{create, expected_events, next_events, open_stream, things};
use crate::support::TestStorage;
use crate::support::aged_rows::EVENTS;

pub(crate) fn builder(storage: &TestStorage) -> AppBuilder {
    create_app(AppPreset::Testing).resource(things(storage))
}

async fn build_app(builder: AppBuilder) -> TestApp {
    TestApp::build(builder).await.unwrap()
}

#[tokio::test]
async fn hanging_subscriber_does_not_block_streams() {
    for storage in TestStorage::all().await {
        let app = build_app(builder(&storage).on("*", |_, _| std::future::pending())).await;
        let background = app.app().background();
        let mut stream = open_stream(&app, "/things/stream").await;
        for (id, text) in [("a", "one"), ("b", "two")] {
            create(&app, id, text, "s").await;
            let expected = expected_events(&[("things.created", id, Some(text))]);
            assert_eq!(next_events(&mut stream, 1).await, expected, "{}", storage.name);
        }
        assert_eq!(app.patch("/things/a").json(json!({"text": "three"})).await.status(), 200);
        assert_eq!(
            next_events(&mut stream, 1).await,
            expected_events(&[("things.updated", "a", Some("three"))])
        );
        drop(background);
    }
}

#[tokio::test]
async fn stream_is_exempt_from_deadline_and_concurrency_limit() {
    let storage = TestStorage::memory();
    let deadline = Duration::from_millis(300);
    let app = build_app(builder(&storage).deadline(deadline).concurrency(1)).await;
    let mut stream = open_stream(&app, "/things/stream").await;
    create(&app, "a", "one", "s").await;
    tokio::time::sleep(deadline * 2).await;
    app.app().deliver().await.unwrap();
    assert_eq!(next_events(&mut stream, 1).await, expected_events(&[("things.created", "a", Some("one"))]));
}

#[tokio::test]
async fn stream_limits_hold_per_actor_tenant_and_node() {
    let storage = TestStorage::memory();
    let notes = || {
        builder(&storage).authenticator(
            BearerTokens::new()
                .token("ada", Actor::user("ada").in_tenant("acme", ["x"]))
                .token("eve", Actor::user("eve").in_tenant("acme", ["x"]))
                .token("bob", Actor::user("bob").in_tenant("bolt", ["x"])),
        )
    };
    let limits = Streams::new().max_streams(3).max_per_tenant(2).max_per_actor(1);
    let app = build_app(notes().streams(limits)).await;
    let open = async |token: &str| {
        let stream = app.get("/things/stream").bearer(token).stream().await;
        stream.map_err(|answer| {
            assert_eq!(answer.header("retry-after"), Some("1"));
            (answer.status(), answer.json()["code"].as_str().unwrap_or_default().to_owned())
        })
    };
    let too_many = || Err((429, "too-many-streams".to_owned()));
    let first = open("ada").await.unwrap();
    assert_eq!(open("ada").await.map(drop), too_many());
    let second = open("eve").await.unwrap();
    drop(first);
    let _third = open("ada").await.unwrap();
    let _fourth = open("bob").await.unwrap();
    assert_eq!(app.app().open_streams(), 3);
    let anonymous = app.get("/things/stream").stream().await.map(drop).map_err(|answer| answer.status());
    assert_eq!(anonymous, Err(503));
    drop(second);
    assert!(app.get("/things/stream").stream().await.is_ok());
    // What was refused, and what was dropped, is free.
    assert_eq!(app.app().open_streams(), 2);
}

#[tokio::test]
async fn anonymous_callers_share_one_stream_limit() {
    let storage = TestStorage::memory();
    let tokens = BearerTokens::new().token("ada", Actor::user("ada"));
    let app =
        build_app(builder(&storage).authenticator(tokens).streams(Streams::new().max_anonymous(1))).await;
    let first = app.get("/things/stream").stream().await.unwrap();
    let second = app.get("/things/stream").stream().await.map(drop).map_err(|answer| answer.status());
    assert_eq!(second, Err(429));
    assert!(app.get("/things/stream").bearer("ada").stream().await.is_ok());
    drop(first);
    assert!(app.get("/things/stream").stream().await.is_ok());
}

#[tokio::test]
async fn position_advances_without_matching_events() {
    let storage = TestStorage::memory();
    let app = build_app(builder(&storage).streams(Streams::new().heartbeat(Duration::from_millis(10)))).await;
    let mut stream = open_stream(&app, "/things/stream?shelf=s").await;
    create(&app, "a", "one", "elsewhere").await;
    app.app().deliver().await.unwrap();
    stream.moved().await;
    let moved = stream.last_id().to_owned();
    drop(stream);
    create(&app, "b", "two", "s").await;
    app.app().deliver().await.unwrap();
    let mut back = open_stream(&app, &format!("/things/stream?shelf=s&last_event_id={moved}")).await;
    assert_eq!(next_events(&mut back, 1).await, expected_events(&[("things.created", "b", Some("two"))]));
}

#[tokio::test]
async fn heartbeat_does_not_reveal_unrelated_activity() {
    let storage = TestStorage::memory();
    let app = build_app(builder(&storage).streams(Streams::new().heartbeat(Duration::from_millis(1)))).await;
    let mut stream = open_stream(&app, "/things/stream?shelf=s").await;
    // With each one the place is written anew, although it is the same.
    for _ in 0..3 {
        stream.moved().await;
    }
}

#[tokio::test]
async fn streams_end_with_the_background_tasks() {
    let storage = TestStorage::memory();
    let app = build_app(builder(&storage)).await;
    let background = app.app().background();
    let mut stream = open_stream(&app, "/things/stream").await;
    drop(background);
    let end = stream.next().await.unwrap();
    assert_eq!((end.name.as_str(), &end.data["code"]), ("end", &json!("closing")));
    assert!(stream.next().await.is_none());
    assert_eq!(app.get("/things/stream").stream().await.unwrap_err().status(), 503);
}

const RESET_LEASES: &str =
    "UPDATE resourceful_leases SET version = 0, expires_at = '2020-01-01T00:00:00+00:00'";

#[tokio::test]
async fn restored_database_resets_streams() {
    for storage in TestStorage::all().await {
        if storage.name == "memory" {
            continue;
        }
        let app =
            build_app(builder(&storage).streams(Streams::new().heartbeat(Duration::from_millis(5)))).await;
        let mut stream = open_stream(&app, "/things/stream").await;
        for id in ["a", "b"] {
            create(&app, id, "one", "s").await;
            app.app().deliver().await.unwrap();
        }
        assert_eq!(next_events(&mut stream, 2).await.len(), 2);
        // As it was before any of it was published.
        for (number, sql) in ["DELETE FROM resourceful_events", RESET_LEASES].into_iter().enumerate() {
            let name = format!("{}{number}", Uuid::now_v7().simple());
            storage.storage().migrate(&[Migration::new(name, 1, "put back", sql)], true).await.unwrap();
        }
        let delivering = async || loop {
            app.app().deliver().await.unwrap();
            tokio::task::yield_now().await;
        };
        let reset = tokio::select! {
            event = stream.next() => event.unwrap(),
            () = delivering() => unreachable!(),
        };
        assert_eq!(reset.name, "reset", "{}", storage.name);
        create(&app, "c", "two", "s").await;
        let next = tokio::select! {
            next = next_events(&mut stream, 1) => next,
            () = delivering() => unreachable!(),
        };
        assert_eq!(next, expected_events(&[("things.created", "c", Some("two"))]), "{}", storage.name);
    }
}

#[tokio::test]
async fn position_of_pruned_events_gets_a_reset() {
    for storage in TestStorage::all().await {
        let app = build_app(builder(&storage)).await;
        let begun = chrono::Utc::now();
        let stream = open_stream(&app, "/things/stream").await;
        let id = stream.last_id().to_owned();
        drop(stream);
        create(&app, "a", "one", "s").await;
        app.app().deliver().await.unwrap();
        let day = Duration::from_secs(24 * 3600);
        assert_eq!(EVENTS.put(&storage, begun - day..begun + day, begun - 8 * day).await, 1);
        let path = format!("/things/stream?last_event_id={id}");
        let mut resumed = open_stream(&app, &path).await;
        assert_eq!(
            next_events(&mut resumed, 1).await,
            expected_events(&[("things.created", "a", Some("one"))]),
            "{}",
            storage.name
        );
        app.app().sweep().await.unwrap();
        assert!(app.events().await.is_empty());
        let mut pruned = open_stream(&app, &path).await;
        let reset = pruned.next().await.unwrap();
        assert_eq!(reset.name, "reset", "{}", storage.name);
        // And goes on from there.
        create(&app, "b", "two", "s").await;
        app.app().deliver().await.unwrap();
        assert_eq!(
            next_events(&mut pruned, 1).await,
            expected_events(&[("things.created", "b", Some("two"))])
        );
        let mut back = open_stream(&app, &format!("/things/stream?last_event_id={}", reset.id)).await;
        assert_eq!(next_events(&mut back, 1).await, expected_events(&[("things.created", "b", Some("two"))]));
    }
}

/// A client on a connection of its own.
struct Client(TcpStream);

impl Client {
    async fn get(address: std::net::SocketAddr, headers: &str) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET /things/stream HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        Self(stream)
    }

    /// Reads until something was said; answers everything up to there.
    async fn read_until(&mut self, what: &str) -> String {
        let mut read = String::new();
        let mut buffer = [0; 4096];
        while !read.contains(what) {
            let count = tokio::time::timeout(Duration::from_secs(20), self.0.read(&mut buffer)).await;
            let count = count.unwrap_or_else(|_| panic!("{what} was never said: {read}")).unwrap();
            assert!(count > 0, "the connection ended: {read}");
            read.push_str(std::str::from_utf8(&buffer[..count]).expect("text"));
        }
        read
    }
}

/// An application on a port, and a client whose stream is open.
struct TestServer {
    test: TestApp,
    client: Client,
    stop: oneshot::Sender<()>,
    server: tokio::task::JoinHandle<Result<(), resourceful::Error>>,
}

impl TestServer {
    async fn start(builder: AppBuilder) -> Self {
        let app = builder.build().await.unwrap();
        let test = TestApp::of(app.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(app.serve_until(listener, async move { _ = stopped.await }));
        let mut client = Client::get(address, "").await;
        client.read_until("event: ready").await;
        Self { test, client, stop, server }
    }
}

#[tokio::test]
async fn shutdown_ends_streams_immediately() {
    let storage = TestStorage::memory();
    let served = TestServer::start(builder(&storage).shutdown_grace(Duration::from_secs(600))).await;
    let TestServer { test, mut client, stop, server } = served;
    assert_eq!(test.app().open_streams(), 1);
    stop.send(()).unwrap();
    client.read_until("event: end\ndata: {\"code\":\"closing\"}").await;
    let ended = tokio::time::timeout(Duration::from_secs(20), server).await;
    ended.expect("the server ends").unwrap().unwrap();
    assert_eq!(test.app().open_streams(), 0);
    assert_eq!(test.get("/things/stream").await.status(), 503);
}

#[tokio::test]
async fn closed_connection_frees_its_stream() {
    let storage = TestStorage::memory();
    let beats = Streams::new().heartbeat(Duration::from_millis(10));
    let TestServer { test, client, stop, server } = TestServer::start(builder(&storage).streams(beats)).await;
    drop(client);
    let freed = async {
        while test.app().open_streams() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), freed).await.expect("it is free");
    stop.send(()).unwrap();
    server.await.unwrap().unwrap();
}

#[tokio::test]
async fn compression_does_not_delay_events() {
    let storage = TestStorage::memory();
    let app = builder(&storage).compression(true).build().await.unwrap();
    let test = TestApp::of(app.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = Arc::new(Notify::new());
    let stopped = stop.clone();
    let server = tokio::spawn(app.serve_until(listener, async move { stopped.notified().await }));
    let mut client = Client::get(address, "accept-encoding: gzip, br\r\n").await;
    let head = client.read_until("event: ready").await;
    assert!(!head.contains("content-encoding") && head.contains("text/event-stream"), "{head}");
    create(&test, "a", "one", "s").await;
    client.read_until("event: things.created").await;
    stop.notify_one();
    server.await.unwrap().unwrap();
}

/// As the bytes are, which clients read by a grammar of their own (WHATWG HTML, 9.2.5).
#[tokio::test]
async fn stream_begins_with_retry_and_heartbeats_are_comments() {
    let storage = TestStorage::memory();
    let app = build_app(builder(&storage).streams(Streams::new().heartbeat(Duration::from_millis(1)))).await;
    let mut pauses = Vec::new();
    for _ in 0..8 {
        let request = http::Request::get("/things/stream").body(axum::body::Body::empty()).unwrap();
        let answer = tower::ServiceExt::oneshot(app.app().router(), request).await.unwrap();
        let mut body = answer.into_body();
        let frame = async |body: &mut axum::body::Body| {
            let frame = http_body_util::BodyExt::frame(body).await.unwrap().unwrap();
            String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap()
        };
        let ready = frame(&mut body).await;
        let lines: Vec<_> = ready.split('\n').collect();
        assert!(lines[1].strip_prefix("id: ").is_some_and(|id| !id.is_empty()), "{ready:?}");
        assert_eq!(lines[2..], ["event: ready", "data: {}", "", ""], "{ready:?}");
        let pause: u32 = lines[0].strip_prefix("retry: ").unwrap().parse().unwrap();
        assert!((2_000..4_000).contains(&pause), "{ready:?}");
        pauses.push(pause);
        let beat = frame(&mut body).await;
        let lines: Vec<_> = beat.split('\n').collect();
        assert_eq!((lines[0], &lines[2..]), (":", &["", ""][..]), "a comment and an id: {beat:?}");
        assert!(lines[1].starts_with("id: "), "{beat:?}");
    }
    pauses.sort_unstable();
    pauses.dedup();
    assert!(pauses.len() > 1, "not all come back at once: {pauses:?}");
}
