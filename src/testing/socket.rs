//! A WebSocket client for tests.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use futures::{SinkExt as _, StreamExt as _};
use http::HeaderValue;
use http::header::HOST;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use serde_json::Value as Json;
use tokio::io::DuplexStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::app::App;

/// How long a test waits for a message.
const RECEIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// The buffer between the two ends of the connection, in bytes.
const BUFFER_BYTES: usize = 64 * 1024;

/// A WebSocket to an application, over a connection in memory. Dropping it closes the connection.
#[derive(Debug)]
pub struct TestSocket {
    stream: WebSocketStream<DuplexStream>,
    close_code: Option<u16>,
}

impl TestSocket {
    #[expect(clippy::panic, reason = "a test ends where there is nothing to test")]
    pub(super) async fn open(app: App, mut request: Request) -> Result<Self, Response> {
        let (client, server) = tokio::io::duplex(BUFFER_BYTES);
        let service = TowerToHyperService::new(app.router());
        tokio::spawn(async move {
            let builder = auto::Builder::new(TokioExecutor::new());
            let served = builder.serve_connection_with_upgrades(TokioIo::new(server), service);
            // A client that disconnects is no failure.
            let _ = served.await;
        });
        let headers = request.headers_mut();
        headers.entry(HOST).or_insert(HeaderValue::from_static("localhost"));
        for (name, value) in
            [("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13")]
        {
            headers.entry(name).or_insert(HeaderValue::from_static(value));
        }
        let key = HeaderValue::from_str(&generate_key()).expect("a key is base64");
        headers.entry("sec-websocket-key").or_insert(key);
        let uri = format!("ws://localhost{}", request.uri());
        *request.uri_mut() = uri.parse().expect("a path makes a URI");
        match client_async(request.map(|_| ()), client).await {
            Ok((stream, _)) => Ok(Self { stream, close_code: None }),
            Err(Error::Http(response)) => Err(response.map(|body| Body::from(body.unwrap_or_default()))),
            Err(error) => panic!("the connection is neither a socket nor answered: {error}"),
        }
    }

    /// Sends a JSON message as text.
    ///
    /// # Panics
    /// If the connection is closed.
    pub async fn send(&mut self, message: Json) {
        self.send_frame(Message::text(message.to_string())).await;
    }

    /// Sends text as it is.
    ///
    /// # Panics
    /// If the connection is closed.
    pub async fn send_text(&mut self, text: &str) {
        self.send_frame(Message::text(text)).await;
    }

    /// Sends a binary frame.
    ///
    /// # Panics
    /// If the connection is closed.
    pub async fn send_bytes(&mut self, bytes: Vec<u8>) {
        self.send_frame(Message::binary(bytes)).await;
    }

    async fn send_frame(&mut self, frame: Message) {
        self.stream.send(frame).await.expect("the socket is open");
    }

    /// The next message; `None` at the end. Pings are answered automatically.
    ///
    /// # Panics
    /// If none arrives in time, or the message is not JSON.
    pub async fn next(&mut self) -> Option<Json> {
        tokio::time::timeout(RECEIVE_TIMEOUT, self.read_next()).await.expect("a message comes in time")
    }

    async fn read_next(&mut self) -> Option<Json> {
        loop {
            match self.stream.next().await?.ok()? {
                Message::Text(text) => {
                    return Some(serde_json::from_str(&text).expect("a message is JSON"));
                }
                Message::Close(frame) => self.close_code = frame.map(|frame| frame.code.into()),
                _ => {}
            }
        }
    }

    /// Closes the socket; returns the close code of the server.
    ///
    /// # Panics
    /// If the server does not close in time.
    pub async fn close(mut self) -> Option<u16> {
        let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        // If the server has closed it already, its close code is read below.
        let _ = self.stream.close(Some(frame)).await;
        self.closed().await
    }

    /// The close code of the server, after any messages that it sent before; `None` if it sent none.
    ///
    /// # Panics
    /// If the server does not close in time.
    pub async fn closed(&mut self) -> Option<u16> {
        while self.next().await.is_some() {}
        self.close_code
    }
}
