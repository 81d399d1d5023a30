//! Connections of a server: how many there may be, how long they may be silent, and what they may hold.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use resourceful::app::ConnectionLimits;
use resourceful::live::Streams;
use resourceful::prelude::*;
use resourceful::testing::TestApp;
use resourceful::{AppBuilder, Error};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

use crate::support::{TestStorage, builder};

/// How long a test waits for what is to come, which is longer than anything that it waits for takes.
const TEST_TIMEOUT: Duration = Duration::from_secs(30);
/// A limit that a test waits for.
const SHORT_TIMEOUT: Duration = Duration::from_millis(150);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

struct Server {
    address: SocketAddr,
    _stop: oneshot::Sender<()>,
    _served: JoinHandle<Result<(), Error>>,
}

impl Server {
    async fn start(app: AppBuilder) -> Self {
        let app = app.build().await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(app.serve_until(listener, async move { _ = stopped.await }));
        Self { address, _stop: stop, _served: served }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// A request of its own connection, and its answer.
    async fn fetch(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        // One that is closed before it was read is answered by nothing.
        _ = stream
            .write_all(format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
            .await;
        String::from_utf8_lossy(&read_to_end(&mut stream).await).into_owned()
    }
}

fn long_timeouts() -> ConnectionLimits {
    ConnectionLimits::new()
        .header_timeout(TEST_TIMEOUT * 2)
        .idle_timeout(TEST_TIMEOUT * 2)
        .write_timeout(TEST_TIMEOUT * 2)
}

async fn with_timeout<T>(what: &str, future: impl Future<Output = T>) -> T {
    let outcome = tokio::time::timeout(TEST_TIMEOUT, future).await;
    outcome.unwrap_or_else(|_| panic!("{what}: nothing happens"))
}

/// What comes until the connection ends.
async fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut read = Vec::new();
    // A connection that is cut may be reset.
    _ = with_timeout("the connection stays", stream.read_to_end(&mut read)).await;
    read
}

/// An answer that is read up to the end of its body, on a connection that stays.
pub(crate) async fn read_response(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&read).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return text;
            }
        }
        let mut more = [0; 4096];
        let count = with_timeout("an answer", stream.read(&mut more)).await.unwrap();
        assert_ne!(count, 0, "the connection ended: {text}");
        read.extend_from_slice(&more[..count]);
    }
}

#[tokio::test]
async fn connection_without_a_request_head_in_time_is_closed() {
    let limits = long_timeouts().header_timeout(SHORT_TIMEOUT);
    let server = Server::start(builder(&TestStorage::memory()).connection_limits(limits)).await;
    for partial_head in [&b""[..], b"G", b"GET /products HTTP/1.1\r\nhost: x\r\n", &PREFACE[..10], PREFACE] {
        let mut stream = server.connect().await;
        stream.write_all(partial_head).await.unwrap();
        read_to_end(&mut stream).await;
    }
    // However often a byte of it comes.
    let mut stream = server.connect().await;
    let dribbled = async {
        stream.write_all(b"GET /products HTTP/1.1\r\nx-long: ").await?;
        loop {
            stream.write_all(b"x").await?;
            tokio::time::sleep(SHORT_TIMEOUT / 10).await;
        }
    };
    let ended: std::io::Result<()> = with_timeout("a dribbled head", dribbled).await;
    assert!(ended.is_err());
    // The same holds for the second request of a connection.
    let mut stream = server.connect().await;
    stream.write_all(b"GET /products HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert!(read_response(&mut stream).await.starts_with("HTTP/1.1 200"));
    stream.write_all(b"GET /pro").await.unwrap();
    read_to_end(&mut stream).await;
}

#[tokio::test]
async fn idle_connection_is_closed() {
    let limits = long_timeouts().idle_timeout(SHORT_TIMEOUT);
    let server = Server::start(builder(&TestStorage::memory()).connection_limits(limits)).await;
    let mut stream = server.connect().await;
    for _ in 0..3 {
        stream.write_all(b"GET /products HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        assert!(read_response(&mut stream).await.starts_with("HTTP/1.1 200"));
    }
    assert!(read_to_end(&mut stream).await.is_empty());
    let (mut client, connection) = http2(&server, 1 << 16).await;
    let request = http::Request::get("http://x/products").body(Body::empty()).unwrap();
    let response = with_timeout("an answer", client.send_request(request)).await.unwrap();
    assert_eq!(response.status(), 200);
    drop(response);
    _ = with_timeout("a resting connection of HTTP/2", connection).await;
}

async fn http2(
    server: &Server,
    window: u32,
) -> (hyper::client::conn::http2::SendRequest<Body>, JoinHandle<hyper::Result<()>>) {
    let io = hyper_util::rt::TokioIo::new(server.connect().await);
    let executor = hyper_util::rt::TokioExecutor::new();
    let mut builder = hyper::client::conn::http2::Builder::new(executor);
    let (client, connection) = builder.initial_stream_window_size(window).handshake(io).await.unwrap();
    (client, tokio::spawn(connection))
}

/// Says so when it is gone.
struct DropNotifier(Arc<Notify>);

impl Drop for DropNotifier {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// `GET /endless`, whose body never ends; and what says that it is not sent any more.
fn endless() -> (Router, Arc<Notify>) {
    let gone = Arc::new(Notify::new());
    let noticed = gone.clone();
    let router = Router::new().route(
        "/endless",
        get(move || {
            let gone = DropNotifier(noticed.clone());
            let frames = futures::stream::repeat_with(move || {
                let _gone = &gone;
                Ok::<_, std::convert::Infallible>(Bytes::from_static(&[b'x'; 32 << 10]))
            });
            std::future::ready(Body::from_stream(frames))
        }),
    );
    (router, gone)
}

#[tokio::test]
async fn client_that_does_not_read_is_disconnected() {
    let (own, gone) = endless();
    let limits = long_timeouts().write_timeout(SHORT_TIMEOUT);
    let server = Server::start(builder(&TestStorage::memory()).merge(own).connection_limits(limits)).await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET /endless HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    with_timeout("a body that is not read", gone.notified()).await;
    // Over HTTP/2 a client can stop one answer, and still read what comes over the connection.
    let (mut client, connection) = http2(&server, 1 << 16).await;
    let request = http::Request::get("http://x/endless").body(Body::empty()).unwrap();
    let unread = with_timeout("an answer", client.send_request(request)).await.unwrap();
    with_timeout("a body that is not read over HTTP/2", gone.notified()).await;
    _ = with_timeout("its connection", connection).await;
    drop(unread);
    // Who reads, however long, is not.
    let mut stream = server.connect().await;
    stream.write_all(b"GET /endless HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let began = tokio::time::Instant::now();
    let mut read = [0; 4096];
    while began.elapsed() < SHORT_TIMEOUT * 4 {
        assert_ne!(stream.read(&mut read).await.unwrap(), 0);
    }
}

fn rooms() -> Resource {
    define_dynamic_resource("rooms", crate::policies::model(&["name"]))
        .adapter(Memory::new().table("rooms"))
        .id_field("name")
        .permissions(Permissions::all(anyone()))
        .streams(true)
        .build()
        .unwrap()
}

#[tokio::test]
async fn streams_and_sockets_are_exempt_from_connection_timeouts() {
    let limits = ConnectionLimits::new()
        .header_timeout(SHORT_TIMEOUT)
        .idle_timeout(SHORT_TIMEOUT)
        .write_timeout(SHORT_TIMEOUT);
    let streams = Streams::new().heartbeat(SHORT_TIMEOUT * 2).idle(TEST_TIMEOUT);
    let app = create_app(AppPreset::Testing).resource(rooms()).streams(streams).connection_limits(limits);
    let server = Server::start(app).await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET /rooms/stream HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut read = String::new();
    // A heartbeat begins with a comment.
    while read.matches("\n:\n").count() < 4 {
        let mut more = [0; 1024];
        let count = with_timeout("a heartbeat", stream.read(&mut more)).await.unwrap();
        assert_ne!(count, 0, "the stream ended: {read}");
        read.push_str(&String::from_utf8_lossy(&more[..count]));
    }
    let mut socket = server.connect().await;
    let upgrade = "GET /ws HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                   sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                   sec-websocket-protocol: resourceful.v1.json\r\n\r\n";
    socket.write_all(upgrade.as_bytes()).await.unwrap();
    let mut head = vec![0; 16];
    with_timeout("a socket", socket.read_exact(&mut head)).await.unwrap();
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    // It stays as long as its own limit says, which the other connections of this test are long past.
    let mut more = [0; 1024];
    let stays = async { while !matches!(socket.read(&mut more).await, Ok(0) | Err(_)) {} };
    assert!(tokio::time::timeout(SHORT_TIMEOUT * 6, stays).await.is_err(), "the socket was closed");
}

#[tokio::test]
async fn oldest_idle_connections_are_closed_for_new_ones() {
    let limits = long_timeouts().max_connections(4);
    let server = Server::start(builder(&TestStorage::memory()).connection_limits(limits)).await;
    let mut resting = server.connect().await;
    resting.write_all(b"GET /products HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    read_response(&mut resting).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(server.connect().await);
    }
    for path in ["/healthz", "/readyz", "/products"] {
        let answered = server.fetch(&format!("GET {path}")).await;
        assert!(answered.starts_with("HTTP/1.1 200"), "{path}: {answered}");
    }
    for stream in &mut silent[..16] {
        read_to_end(stream).await;
    }
    // What has sent requests stays longer than what has sent none.
    resting.write_all(b"GET /products HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert!(read_response(&mut resting).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn only_health_checks_are_served_when_all_connections_are_busy() {
    let (entered, leave) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (inside, go) = (entered.clone(), leave.clone());
    let slow = move || {
        let (inside, go) = (inside.clone(), go.clone());
        async move {
            inside.notify_one();
            go.notified().await;
            "done"
        }
    };
    let own = Router::new().route("/slow", get(slow));
    let limits = long_timeouts().max_connections(2);
    let server = Server::start(builder(&TestStorage::memory()).merge(own).connection_limits(limits)).await;
    let mut busy = Vec::new();
    for _ in 0..2 {
        let mut stream = server.connect().await;
        stream.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        with_timeout("a busy connection", entered.notified()).await;
        busy.push(stream);
    }
    for _ in 0..10 {
        let refused = server.fetch("GET /products").await;
        assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
        assert!(refused.contains("retry-after: 1") && refused.contains("connection: close"), "{refused}");
        assert!(refused.contains(r#""code":"overloaded""#), "{refused}");
        for path in ["/healthz", "/readyz"] {
            let answered = server.fetch(&format!("GET {path}")).await;
            assert!(answered.starts_with("HTTP/1.1 200"), "{path}: {answered}");
        }
    }
    for stream in &mut busy {
        leave.notify_one();
        assert!(read_response(stream).await.ends_with("done"));
    }
    assert!(server.fetch("GET /products").await.starts_with("HTTP/1.1 200"));
}

/// A body of a known size that is made while it is sent.
struct SizedBody {
    body: Body,
    bytes: u64,
}

impl IntoResponse for SizedBody {
    fn into_response(self) -> Response {
        Response::new(Body::new(self))
    }
}

impl http_body::Body for SizedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes)
    }
}

#[tokio::test]
async fn unread_response_bytes_are_limited_in_total() {
    const LARGE: usize = 16 << 20;
    let large = || std::future::ready(vec![b'x'; LARGE]);
    // A file that is read while it is sent has a size, and is not in memory.
    let file = || {
        let piece = |_| Ok::<_, std::convert::Infallible>(Bytes::from_static(&[b'x'; 4 << 10]));
        let pieces = futures::stream::iter((0..LARGE >> 10).map(piece));
        std::future::ready(SizedBody { body: Body::from_stream(pieces), bytes: LARGE as u64 * 4 })
    };
    let own = Router::new().route("/large", get(large).post(large)).route("/file", get(file));
    let limits = long_timeouts().max_answer_bytes(LARGE + LARGE / 2);
    let server = Server::start(builder(&TestStorage::memory()).merge(own).connection_limits(limits)).await;
    let mut unread = server.connect().await;
    unread.write_all(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut head = [0; 12];
    with_timeout("a large answer", unread.read_exact(&mut head)).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    let refused = server.fetch("GET /large").await;
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("retry-after: 1"), "{refused:.300}");
    // What is small is answered, and so is what was done.
    assert!(server.fetch("GET /products").await.starts_with("HTTP/1.1 200"));
    let done = server.fetch("POST /large").await;
    assert!(done.starts_with("HTTP/1.1 200") && done.len() > LARGE, "{done:.300}");
    let file = server.fetch("GET /file").await;
    assert!(file.starts_with("HTTP/1.1 200") && file.contains("content-length: 67108864"), "{file:.300}");
    assert!(file.len() > LARGE * 4, "{}", file.len());
    // One that takes nothing for longer than a moment leaves its room to others.
    let taken = async { while !server.fetch("GET /large").await.starts_with("HTTP/1.1 200") {} };
    with_timeout("room for another", taken).await;
    let mut read = Vec::new();
    _ = unread.read_to_end(&mut read).await;
    assert!(read.len() < LARGE, "it was not cut");
}

#[tokio::test]
async fn http2_concurrent_streams_are_limited() {
    let limits = ConnectionLimits::new().max_concurrent_streams(7);
    let server = Server::start(builder(&TestStorage::memory()).connection_limits(limits)).await;
    let mut stream = server.connect().await;
    stream.write_all(PREFACE).await.unwrap();
    let mut frame = [0; 9];
    with_timeout("settings", stream.read_exact(&mut frame)).await.unwrap();
    assert_eq!(frame[3], 4, "the first frame is SETTINGS (RFC 9113, 3.4)");
    let mut settings = vec![0; usize::from(frame[2])];
    with_timeout("settings", stream.read_exact(&mut settings)).await.unwrap();
    // SETTINGS_MAX_CONCURRENT_STREAMS (RFC 9113, 6.5.2).
    assert!(settings.chunks(6).any(|setting| setting == [0, 3, 0, 0, 0, 7]), "{settings:?}");
}

/// A body of which the first piece was taken once `taken` says so, and that ends when it may.
fn paused_body(piece: usize, taken: Arc<Notify>, go: Arc<Notify>) -> Body {
    let frames = futures::stream::unfold(0, move |step| {
        let (taken, go) = (taken.clone(), go.clone());
        async move {
            match step {
                0 => Some((Ok::<_, std::convert::Infallible>(Bytes::from(vec![b' '; piece])), 1)),
                _ => {
                    taken.notify_one();
                    go.notified().await;
                    None
                }
            }
        }
    });
    Body::from_stream(frames)
}

#[tokio::test]
async fn request_body_bytes_are_limited_in_total() {
    let limits = ConnectionLimits::new().max_body_bytes(256 << 10);
    let app = builder(&TestStorage::memory()).connection_limits(limits).build().await.unwrap();
    let send = |body: Body| {
        let request = http::Request::post("/categories").header("content-type", "application/json");
        let sent = tower::ServiceExt::oneshot(app.router(), request.body(body).unwrap());
        tokio::spawn(async move {
            let response = sent.await.unwrap();
            let status = response.status().as_u16();
            (status, response.into_body().collect().await.unwrap().to_bytes())
        })
    };
    let (taken, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let first = send(paused_body(200 << 10, taken.clone(), go.clone()));
    with_timeout("the first body", taken.notified()).await;
    let padded = |code: &str| {
        let mut body = json!({"code": code, "title": "t"}).to_string().into_bytes();
        body.resize(100 << 10, b' ');
        body
    };
    let (status, problem) = send(padded("a").into()).await.unwrap();
    let problem: serde_json::Value = serde_json::from_slice(&problem).unwrap();
    assert_eq!((status, problem["code"].clone()), (503, json!("overloaded")), "{problem}");
    let small = json!({"code": "b", "title": "t"}).to_string();
    assert_eq!(send(small.into()).await.unwrap().0, 201);
    go.notify_one();
    // It was blank.
    assert_eq!(first.await.unwrap().0, 400);
    assert_eq!(send(padded("a").into()).await.unwrap().0, 201);
    // Many large ones are read, in turns.
    let all: Vec<_> = (0..8).map(|number| (number, send(padded(&format!("c{number}")).into()))).collect();
    for (number, one) in all {
        assert!(matches!(one.await.unwrap().0, 201 | 503), "{number}");
    }
    assert_eq!(send(padded("d").into()).await.unwrap().0, 201);
}

#[tokio::test]
async fn json_values_of_a_body_are_limited() {
    let app = TestApp::build(builder(&TestStorage::memory())).await.unwrap();
    let text = |inner: &str| format!(r#"{{"filter": {{"or": [{inner}]}}}}"#);
    for many in ["{},", "[],", "0,", "null,"] {
        let refused = app.post("/products/query").body(text(&many.repeat(200_000)).replace(",]", "]")).await;
        assert_eq!(
            (refused.status(), refused.json()["code"].clone()),
            (413, json!("payload-too-large")),
            "{many}"
        );
        assert!(refused.text().contains("131072 values"), "{refused}");
    }
    // Text is no values.
    let code = r#",[{\""#.repeat(100_000);
    let long = app.post("/products/query").body(format!(r#"{{"filter": {{"name": "{code}"}}}}"#)).await;
    assert_eq!(long.status(), 200, "{long}");
}
