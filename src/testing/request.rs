//! Requests in tests.

use std::future::IntoFuture;

use axum::body::Body;
use axum::response::Response;
use futures::future::BoxFuture;
use http::header::{AUTHORIZATION, CONTENT_TYPE, IF_MATCH};
use http::{HeaderName, HeaderValue, Method, Request};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use super::{TestMode, TestResponse, TestSocket, TestStream, bulk_rewrite};
use crate::app::App;
use crate::http::SUBPROTOCOL;

/// A request builder; awaiting it sends the request.
#[derive(Debug)]
#[must_use = "a request is sent when it is awaited"]
pub struct TestRequest {
    app: App,
    mode: TestMode,
    request: Request<Body>,
}

impl TestRequest {
    pub(super) fn new(app: App, mode: TestMode, method: Method, path: &str) -> Self {
        let request =
            Request::builder().method(method).uri(path).body(Body::empty()).expect("a test's path is a URI");
        Self { app, mode, request }
    }

    /// Adds a header.
    ///
    /// # Panics
    /// If the name or the value is not valid in a header.
    pub fn header(mut self, name: &str, value: impl AsRef<str>) -> Self {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a header's name is a token");
        let value = HeaderValue::from_str(value.as_ref()).expect("a header's value is visible ASCII");
        self.request.headers_mut().append(name, value);
        self
    }

    /// Adds a bearer token (RFC 6750).
    pub fn bearer(self, token: &str) -> Self {
        self.header(AUTHORIZATION.as_str(), format!("Bearer {token}"))
    }

    /// Sets a JSON body, with the media type that fits the method unless one is set.
    #[expect(clippy::needless_pass_by_value, reason = "tests write json!(…) in place")]
    pub fn json(self, body: serde_json::Value) -> Self {
        self.body(body.to_string())
    }

    /// Sets the body's bytes, as JSON unless another media type is set.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        let media_type = if self.request.method() == Method::PATCH {
            "application/merge-patch+json"
        } else {
            "application/json"
        };
        let headers = self.request.headers_mut();
        headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static(media_type));
        *self.request.body_mut() = Body::from(body.into());
        self
    }

    /// Sends a request whose response is a stream, and reads events as they arrive.
    ///
    /// # Errors
    /// The response, if it is a different one.
    ///
    /// # Panics
    /// If the response is a success and no stream.
    pub async fn stream(self) -> Result<TestStream, TestResponse> {
        let response = response(&self.app, self.request).await;
        if response.status() != http::StatusCode::OK {
            return Err(collect_response(response).await);
        }
        assert_eq!(response.headers()[CONTENT_TYPE], "text/event-stream");
        Ok(TestStream::of(response))
    }

    /// Opens a WebSocket, over a connection in memory: `app.get("/ws").socket()`.
    ///
    /// # Errors
    /// The response, if it is a different one.
    pub async fn socket(mut self) -> Result<TestSocket, TestResponse> {
        self.request
            .headers_mut()
            .entry("sec-websocket-protocol")
            .or_insert(HeaderValue::from_static(SUBPROTOCOL));
        match TestSocket::open(self.app, self.request).await {
            Ok(socket) => Ok(socket),
            Err(response) => Err(collect_response(response).await),
        }
    }

    async fn send(self) -> TestResponse {
        let Self { app, mode, request } = self;
        if mode == TestMode::Direct {
            return exchange(&app, request).await;
        }
        let (mut parts, body) = request.into_parts();
        let bytes = body.collect().await.expect("a body in memory is whole").to_bytes();
        if mode == TestMode::Cache {
            let again = Request::from_parts(parts.clone(), Body::from(bytes.clone()));
            if parts.method == Method::GET || parts.method.as_str() == "QUERY" {
                exchange(&app, again).await;
            }
            return exchange(&app, Request::from_parts(parts, Body::from(bytes))).await;
        }
        let Some((uri, bulk_body)) =
            bulk_rewrite::to_bulk_request(&app, &parts.method, &parts.uri, &parts.headers, &bytes)
        else {
            return exchange(&app, Request::from_parts(parts, Body::from(bytes))).await;
        };
        parts.uri = uri;
        parts.headers.remove(IF_MATCH);
        parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let request = Request::from_parts(parts, Body::from(bulk_body.to_string()));
        bulk_rewrite::from_bulk_response(exchange(&app, request).await)
    }
}

async fn response(app: &App, request: Request<Body>) -> Response {
    match app.router().oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

async fn exchange(app: &App, request: Request<Body>) -> TestResponse {
    collect_response(response(app, request).await).await
}

async fn collect_response(response: Response) -> TestResponse {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.expect("an answer in memory arrives whole").to_bytes();
    TestResponse::new(parts.status, parts.headers, body)
}

impl IntoFuture for TestRequest {
    type Output = TestResponse;
    type IntoFuture = BoxFuture<'static, TestResponse>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}
