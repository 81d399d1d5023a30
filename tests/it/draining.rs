//! Connections that end: said beforehand, and without a request lost.

use std::net::SocketAddr;
use std::time::Duration;

use resourceful::app::ConnectionLimits;
use resourceful::{AppBuilder, Error};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::connections::read_response;
use crate::support::{TestStorage, builder};

/// How long a test waits for what is to come, which is longer than anything that it waits for takes.
const TEST_TIMEOUT: Duration = Duration::from_secs(30);

struct Server {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    served: JoinHandle<Result<(), Error>>,
}

async fn start_server(app: AppBuilder) -> Server {
    let app = app.build().await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let served = tokio::spawn(app.serve_until(listener, async move { _ = stopped.await }));
    Server { address, stop, served }
}

async fn connect(server: &Server) -> TcpStream {
    TcpStream::connect(server.address).await.unwrap()
}

/// What is sent, and what comes until the connection ends.
async fn fetch(server: &Server, request: impl AsRef<[u8]>) -> String {
    let mut stream = connect(server).await;
    // One that is closed before all of it was read has an answer all the same.
    _ = stream.write_all(request.as_ref()).await;
    read_to_end(&mut stream).await
}

async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    let ended = tokio::time::timeout(TEST_TIMEOUT, stream.read_to_end(&mut read)).await;
    assert!(ended.is_ok(), "the connection stays: {}", String::from_utf8_lossy(&read));
    String::from_utf8_lossy(&read).into_owned()
}

/// A request on a connection that stays, and the head and body of its answer.
async fn send_request(stream: &mut TcpStream, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    read_response(stream).await
}

fn status(answer: &str) -> &str {
    answer.get(9..12).unwrap_or_default()
}

fn has_connection_close(answer: &str) -> bool {
    answer.split("\r\n\r\n").next().unwrap_or_default().lines().any(|line| line == "connection: close")
}

fn assert_is_problem(answer: &str, code: &str) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    assert!(head.contains("content-type: application/problem+json"), "{answer}");
    assert!(head.contains("x-request-id: "), "{answer}");
    let problem: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(problem["code"], code, "{answer}");
    assert_eq!(problem["status"].to_string(), status(answer), "{answer}");
}

#[tokio::test]
async fn a_request_names_exactly_one_host() {
    let server = start_server(builder(&TestStorage::memory())).await;
    for hosts in ["", "host: a\r\nhost: b\r\n", "host: a\r\nhost: a\r\n"] {
        let request = format!("GET /products HTTP/1.1\r\n{hosts}connection: close\r\n\r\n");
        let refused = fetch(&server, request).await;
        assert_eq!(status(&refused), "400", "{hosts}: {refused}");
        assert_is_problem(&refused, "invalid-header");
    }
    for request in [
        "GET http://a/products HTTP/1.1\r\nhost: a\r\nhost: b\r\nconnection: close\r\n\r\n",
        "GET http://a/products HTTP/1.1\r\nconnection: close\r\n\r\n",
        "GET /products HTTP/1.1\r\nhost: a b\r\nconnection: close\r\n\r\n",
        "GET /products HTTP/1.1\r\nhost: a, b\r\nconnection: close\r\n\r\n",
        "GET /products HTTP/1.0\r\nhost: a\r\nhost: b\r\n\r\n",
    ] {
        assert_eq!(status(&fetch(&server, request).await), "400", "{request}");
    }
    for request in [
        "GET /products HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
        "GET /products HTTP/1.0\r\n\r\n",
        "GET http://a/products HTTP/1.1\r\nhost: b\r\nconnection: close\r\n\r\n",
    ] {
        let answer = fetch(&server, request).await;
        assert_eq!(status(&answer), "200", "{request}: {answer}");
    }
}

#[tokio::test]
async fn malformed_request_head_is_answered_with_a_problem() {
    let server = start_server(builder(&TestStorage::memory())).await;
    let long = "x".repeat(70_000);
    let many: String = (0..120).map(|index| format!("x-{index}: y\r\n")).collect();
    for (request, expected, code) in [
        (format!("GET /products?name={long} HTTP/1.1\r\nhost: a\r\n\r\n"), "414", "uri-too-long"),
        (format!("GET /products HTTP/1.1\r\nhost: a\r\nx: {long}{long}\r\n\r\n"), "431", "headers-too-large"),
        (format!("GET /products HTTP/1.1\r\nhost: a\r\n{many}\r\n"), "431", "headers-too-large"),
        ("GET /products HTTP/9.9\r\nhost: a\r\n\r\n".to_owned(), "400", "invalid-request"),
        ("GET /pro ducts HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), "400", "invalid-request"),
        ("GET /products HTTP/1.1\r\nno colon\r\n\r\n".to_owned(), "400", "invalid-request"),
    ] {
        let refused = fetch(&server, request).await;
        assert_eq!(status(&refused), expected, "{refused}");
        assert_is_problem(&refused, code);
        assert!(has_connection_close(&refused), "{refused}");
    }
    // On a connection that has served requests already.
    let mut stream = connect(&server).await;
    let absent = "GET /products/none HTTP/1.1\r\nhost: a\r\n\r\n";
    assert_eq!(status(&send_request(&mut stream, absent).await), "404");
    stream.write_all(b"GET /products HTTP/1.1\r\nno colon\r\n\r\n").await.unwrap();
    assert_is_problem(&read_to_end(&mut stream).await, "invalid-request");
}

#[tokio::test]
async fn closing_connection_sends_connection_close() {
    let server = start_server(builder(&TestStorage::memory()).body_limit(100_000)).await;
    let head = "POST /products HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n";
    let mut stream = connect(&server).await;
    let large = send_request(&mut stream, &format!("{head}content-length: 200000\r\n\r\n{{")).await;
    assert_eq!((status(&large), has_connection_close(&large)), ("413", true), "{large}");
    read_to_end(&mut stream).await;
    let mut stream = connect(&server).await;
    let chunked = send_request(
        &mut stream,
        &format!(
            "{}transfer-encoding: chunked\r\n\r\n1\r\n{{\r\n",
            head.replace("application/json", "text/csv")
        ),
    )
    .await;
    assert_eq!((status(&chunked), has_connection_close(&chunked)), ("415", true), "{chunked}");
    read_to_end(&mut stream).await;
    // Of a small one, what has come is read after the answer, and the rest of it cannot be.
    for (partial_body, closes) in [("0123456789", false), ("", true)] {
        let mut stream = connect(&server).await;
        let small = format!(
            "{}content-length: 10\r\n\r\n{partial_body}",
            head.replace("application/json", "text/csv")
        );
        let refused = send_request(&mut stream, &small).await;
        assert_eq!((status(&refused), has_connection_close(&refused)), ("415", closes), "{refused}");
    }
    // What is read to its end is no reason to close.
    let mut stream = connect(&server).await;
    let body = format!("{{\"note\": \"{}\"}}", "x".repeat(20_000));
    for _ in 0..2 {
        let refused =
            send_request(&mut stream, &format!("{head}content-length: {}\r\n\r\n{body}", body.len())).await;
        assert_eq!((status(&refused), has_connection_close(&refused)), ("422", false), "{refused}");
        let chunks =
            format!("{head}transfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
        let refused = send_request(&mut stream, &chunks).await;
        assert_eq!((status(&refused), has_connection_close(&refused)), ("422", false), "{refused}");
    }
    let limits = ConnectionLimits::new().body_timeout(Duration::from_millis(50));
    let server = self::start_server(builder(&TestStorage::memory()).connection_limits(limits)).await;
    let stopped = fetch(&server, format!("{head}content-length: 20000\r\n\r\n{{")).await;
    assert_eq!((status(&stopped), has_connection_close(&stopped)), ("408", true), "{stopped}");
    assert_is_problem(&stopped, "request-timeout");
}

#[tokio::test]
async fn stopping_server_answers_open_connections_with_connection_close() {
    let app =
        builder(&TestStorage::memory()).drain_delay(Duration::from_secs(1)).shutdown_grace(TEST_TIMEOUT);
    let server = start_server(app).await;
    let get = "GET /products HTTP/1.1\r\nhost: a\r\n\r\n";
    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut stream = connect(&server).await;
        let answer = send_request(&mut stream, get).await;
        assert_eq!((status(&answer), has_connection_close(&answer)), ("200", false), "{answer}");
        streams.push(stream);
    }
    let mut half = connect(&server).await;
    half.write_all(b"GET /products HTTP/1.1\r\nhost: a\r\nx-").await.unwrap();
    server.stop.send(()).unwrap();
    // It says so on every connection from the moment that it is not ready.
    loop {
        let mut probe = connect_to(server.address).await;
        let ready = send_request(&mut probe, "GET /readyz HTTP/1.1\r\nhost: a\r\n\r\n").await;
        if status(&ready) == "503" {
            assert!(has_connection_close(&ready), "{ready}");
            assert!(ready.to_lowercase().contains("\r\nretry-after: "), "{ready}");
            break;
        }
    }
    let (first, others) = streams.split_at_mut(1);
    let answer = send_request(&mut first[0], get).await;
    assert_eq!((status(&answer), has_connection_close(&answer)), ("200", true), "{answer}");
    assert_eq!(read_to_end(&mut first[0]).await, "");
    // New ones are answered as well, for as long as they come.
    let mut last = 0;
    while let Ok(mut late) = TcpStream::connect(server.address).await {
        if late.write_all(get.as_bytes()).await.is_err() {
            break;
        }
        let answer = read_to_end(&mut late).await;
        if answer.is_empty() {
            // It came after the listener was gone.
            break;
        }
        assert_eq!((status(&answer), has_connection_close(&answer)), ("200", true), "{answer}");
        last += 1;
    }
    assert!(last > 0, "connections are accepted during the drain delay");
    // Connections that send nothing, and half a head, hold nothing up.
    for other in others {
        assert_eq!(read_to_end(other).await, "");
    }
    read_to_end(&mut half).await;
    tokio::time::timeout(TEST_TIMEOUT / 3, server.served)
        .await
        .expect("nothing is waited for")
        .unwrap()
        .unwrap();
}

async fn connect_to(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.unwrap()
}

#[tokio::test]
async fn http2_connection_gets_goaway_when_the_server_drains() {
    let app = builder(&TestStorage::memory()).drain_delay(TEST_TIMEOUT).shutdown_grace(TEST_TIMEOUT);
    let server = start_server(app).await;
    let io = hyper_util::rt::TokioIo::new(connect(&server).await);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut client, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = || http::Request::get("http://a/products").body(axum::body::Body::empty()).unwrap();
    assert_eq!(client.send_request(request()).await.unwrap().status(), 200);
    server.stop.send(()).unwrap();
    // GOAWAY, and nothing was under way: the connection ends in order while the server still accepts others.
    tokio::time::timeout(TEST_TIMEOUT, connection).await.expect("the connection stays").unwrap().unwrap();
    assert!(!server.served.is_finished());
    // One that comes later is told with its first request.
    let io = hyper_util::rt::TokioIo::new(connect_to(server.address).await);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut late, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    let connection = tokio::spawn(connection);
    assert_eq!(late.send_request(request()).await.unwrap().status(), 200);
    tokio::time::timeout(TEST_TIMEOUT, connection).await.expect("the connection stays").unwrap().unwrap();
    assert!(!server.served.is_finished());
    assert_eq!(
        status(
            &send_request(&mut connect_to(server.address).await, "GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n")
                .await
        ),
        "200"
    );
    server.served.abort();
}
