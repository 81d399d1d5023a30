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

use crate::streams::{create, of, opened, things, told};
use crate::support::Place;
use crate::support::kept::EVENTS;

pub(crate) fn builder(place: &Place) -> AppBuilder {
    create_app(AppPreset::Testing).resource(things(place))
}

async fn built(builder: AppBuilder) -> TestApp {
    TestApp::build(builder).await.unwrap()
}

#[tokio::test]
async fn a_subscriber_that_never_ends_holds_up_no_stream() {
    for place in Place::all().await {
        let app = built(builder(&place).on("*", |_, _| std::future::pending())).await;
        let background = app.app().background();
        let mut stream = opened(&app, "/things/stream").await;
        for (id, text) in [("a", "one"), ("b", "two")] {
            create(&app, id, text, "s").await;
            let expected = of(&[("things.created", id, Some(text))]);
            assert_eq!(told(&mut stream, 1).await, expected, "{}", place.name);
        }
        assert_eq!(app.patch("/things/a").json(json!({"text": "three"})).await.status(), 200);
        assert_eq!(told(&mut stream, 1).await, of(&[("things.updated", "a", Some("three"))]));
        drop(background);
    }
}

#[tokio::test]
async fn a_stream_outlives_the_deadline_of_requests_and_takes_no_place_among_them() {
    let place = Place::memory();
    let deadline = Duration::from_millis(300);
    let app = built(builder(&place).deadline(deadline).concurrency(1)).await;
    let mut stream = opened(&app, "/things/stream").await;
    create(&app, "a", "one", "s").await;
    tokio::time::sleep(deadline * 2).await;
    app.app().deliver().await.unwrap();
    assert_eq!(told(&mut stream, 1).await, of(&[("things.created", "a", Some("one"))]));
}

#[tokio::test]
async fn there_are_so_many_streams_and_no_more() {
    let place = Place::memory();
    let notes = || {
        builder(&place).authenticator(
            BearerTokens::new()
                .token("ada", Actor::user("ada").in_tenant("acme", ["x"]))
                .token("eve", Actor::user("eve").in_tenant("acme", ["x"]))
                .token("bob", Actor::user("bob").in_tenant("bolt", ["x"])),
        )
    };
    let limits = Streams::new().max_streams(3).max_per_tenant(2).max_per_actor(1);
    let app = built(notes().streams(limits)).await;
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
    let anybody = app.get("/things/stream").stream().await.map(drop).map_err(|answer| answer.status());
    assert_eq!(anybody, Err(503));
    drop(second);
    assert!(app.get("/things/stream").stream().await.is_ok());
    // What was refused, and what was dropped, is free.
    assert_eq!(app.app().open_streams(), 2);
}

#[tokio::test]
async fn those_whom_nobody_knows_share_their_places() {
    let place = Place::memory();
    let tokens = BearerTokens::new().token("ada", Actor::user("ada"));
    let app = built(builder(&place).authenticator(tokens).streams(Streams::new().max_anonymous(1))).await;
    let first = app.get("/things/stream").stream().await.unwrap();
    let second = app.get("/things/stream").stream().await.map(drop).map_err(|answer| answer.status());
    assert_eq!(second, Err(429));
    assert!(app.get("/things/stream").bearer("ada").stream().await.is_ok());
    drop(first);
    assert!(app.get("/things/stream").stream().await.is_ok());
}

#[tokio::test]
async fn a_stream_that_is_told_nothing_moves_on_all_the_same() {
    let place = Place::memory();
    let app = built(builder(&place).streams(Streams::new().heartbeat(Duration::from_millis(10)))).await;
    let mut stream = opened(&app, "/things/stream?shelf=s").await;
    create(&app, "a", "one", "elsewhere").await;
    app.app().deliver().await.unwrap();
    stream.moved().await;
    let moved = stream.last_id().to_owned();
    drop(stream);
    create(&app, "b", "two", "s").await;
    app.app().deliver().await.unwrap();
    let mut back = opened(&app, &format!("/things/stream?shelf=s&last_event_id={moved}")).await;
    assert_eq!(told(&mut back, 1).await, of(&[("things.created", "b", Some("two"))]));
}

#[tokio::test]
async fn a_heartbeat_does_not_show_whether_anything_happened() {
    let place = Place::memory();
    let app = built(builder(&place).streams(Streams::new().heartbeat(Duration::from_millis(1)))).await;
    let mut stream = opened(&app, "/things/stream?shelf=s").await;
    // With each one the place is written anew, although it is the same.
    for _ in 0..3 {
        stream.moved().await;
    }
}

#[tokio::test]
async fn streams_end_with_what_brings_them() {
    let place = Place::memory();
    let app = built(builder(&place)).await;
    let background = app.app().background();
    let mut stream = opened(&app, "/things/stream").await;
    drop(background);
    let end = stream.next().await.unwrap();
    assert_eq!((end.name.as_str(), &end.data["code"]), ("end", &json!("closing")));
    assert!(stream.next().await.is_none());
    assert_eq!(app.get("/things/stream").stream().await.unwrap_err().status(), 503);
}

const PUT_BACK: &str = "UPDATE resourceful_leases SET version = 0, expires_at = '2020-01-01T00:00:00+00:00'";

#[tokio::test]
async fn a_database_that_was_put_back_begins_anew() {
    for place in Place::all().await {
        if place.name == "memory" {
            continue;
        }
        let app = built(builder(&place).streams(Streams::new().heartbeat(Duration::from_millis(5)))).await;
        let mut stream = opened(&app, "/things/stream").await;
        for id in ["a", "b"] {
            create(&app, id, "one", "s").await;
            app.app().deliver().await.unwrap();
        }
        assert_eq!(told(&mut stream, 2).await.len(), 2);
        // As it was before any of it was published.
        for (number, sql) in ["DELETE FROM resourceful_events", PUT_BACK].into_iter().enumerate() {
            let name = format!("{}{number}", Uuid::now_v7().simple());
            place.storage().migrate(&[Migration::new(name, 1, "put back", sql)], true).await.unwrap();
        }
        let delivering = async || loop {
            app.app().deliver().await.unwrap();
            tokio::task::yield_now().await;
        };
        let reset = tokio::select! {
            event = stream.next() => event.unwrap(),
            () = delivering() => unreachable!(),
        };
        assert_eq!(reset.name, "reset", "{}", place.name);
        create(&app, "c", "two", "s").await;
        let next = tokio::select! {
            next = told(&mut stream, 1) => next,
            () = delivering() => unreachable!(),
        };
        assert_eq!(next, of(&[("things.created", "c", Some("two"))]), "{}", place.name);
    }
}

#[tokio::test]
async fn a_position_whose_events_were_cleared_is_a_reset() {
    for place in Place::all().await {
        let app = built(builder(&place)).await;
        let begun = chrono::Utc::now();
        let stream = opened(&app, "/things/stream").await;
        let id = stream.last_id().to_owned();
        drop(stream);
        create(&app, "a", "one", "s").await;
        app.app().deliver().await.unwrap();
        let day = Duration::from_secs(24 * 3600);
        assert_eq!(EVENTS.put(&place, begun - day..begun + day, begun - 8 * day).await, 1);
        let path = format!("/things/stream?last_event_id={id}");
        let mut kept = opened(&app, &path).await;
        assert_eq!(told(&mut kept, 1).await, of(&[("things.created", "a", Some("one"))]), "{}", place.name);
        app.app().sweep().await.unwrap();
        assert!(app.events().await.is_empty());
        let mut pruned = opened(&app, &path).await;
        let reset = pruned.next().await.unwrap();
        assert_eq!(reset.name, "reset", "{}", place.name);
        // And goes on from there.
        create(&app, "b", "two", "s").await;
        app.app().deliver().await.unwrap();
        assert_eq!(told(&mut pruned, 1).await, of(&[("things.created", "b", Some("two"))]));
        let mut back = opened(&app, &format!("/things/stream?last_event_id={}", reset.id)).await;
        assert_eq!(told(&mut back, 1).await, of(&[("things.created", "b", Some("two"))]));
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
    async fn until(&mut self, what: &str) -> String {
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
struct Served {
    test: TestApp,
    client: Client,
    stop: oneshot::Sender<()>,
    server: tokio::task::JoinHandle<Result<(), resourceful::Error>>,
}

impl Served {
    async fn start(builder: AppBuilder) -> Self {
        let app = builder.build().await.unwrap();
        let test = TestApp::of(app.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(app.serve_until(listener, async move { _ = stopped.await }));
        let mut client = Client::get(address, "").await;
        client.until("event: ready").await;
        Self { test, client, stop, server }
    }
}

#[tokio::test]
async fn a_shutdown_ends_streams_at_once_and_does_not_wait_for_them() {
    let place = Place::memory();
    let served = Served::start(builder(&place).shutdown_grace(Duration::from_secs(600))).await;
    let Served { test, mut client, stop, server } = served;
    assert_eq!(test.app().open_streams(), 1);
    stop.send(()).unwrap();
    client.until("event: end\ndata: {\"code\":\"closing\"}").await;
    let ended = tokio::time::timeout(Duration::from_secs(20), server).await;
    ended.expect("the server ends").unwrap().unwrap();
    assert_eq!(test.app().open_streams(), 0);
    assert_eq!(test.get("/things/stream").await.status(), 503);
}

#[tokio::test]
async fn a_connection_that_is_cut_frees_its_stream() {
    let place = Place::memory();
    let beats = Streams::new().heartbeat(Duration::from_millis(10));
    let Served { test, client, stop, server } = Served::start(builder(&place).streams(beats)).await;
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
async fn compression_does_not_hold_events_back() {
    let place = Place::memory();
    let app = builder(&place).compression(true).build().await.unwrap();
    let test = TestApp::of(app.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = Arc::new(Notify::new());
    let stopped = stop.clone();
    let server = tokio::spawn(app.serve_until(listener, async move { stopped.notified().await }));
    let mut client = Client::get(address, "accept-encoding: gzip, br\r\n").await;
    let head = client.until("event: ready").await;
    assert!(!head.contains("content-encoding") && head.contains("text/event-stream"), "{head}");
    create(&test, "a", "one", "s").await;
    client.until("event: things.created").await;
    stop.notify_one();
    server.await.unwrap().unwrap();
}

/// As the bytes are, which clients read by a grammar of their own (WHATWG HTML, 9.2.5).
#[tokio::test]
async fn a_stream_begins_with_when_to_come_back_and_its_heartbeat_is_a_comment() {
    let place = Place::memory();
    let app = built(builder(&place).streams(Streams::new().heartbeat(Duration::from_millis(1)))).await;
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
