//! The service for the requests of one connection.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::pending;
use http::header::{CONNECTION, CONTENT_ENCODING};
use http::{HeaderValue, Method, StatusCode, Version};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::block_in_place;
use tower::Service;

use super::connection::{Connection, Request};
use super::has_other_threads;
use super::response_body::{ResponseBody, ResponseMemory};
use crate::app::health;
use crate::app::middleware::AppService;

/// The minimum bytes of a request body that takes long to read and check.
const MIN_LARGE_BYTES: u64 = 64 << 10;
/// The maximum bytes of a request body that are read after the response, so that its connection can be kept.
const MAX_DRAIN_BYTES: u64 = 8 << 10;

/// The service that handles the requests of one connection.
#[derive(Clone)]
pub(super) struct ConnectionService {
    pub(super) service: AppService,
    connection: Arc<Connection>,
}

impl ConnectionService {
    pub(super) fn new(service: &AppService, connection: &Arc<Connection>) -> Self {
        Self { service: service.for_connection(connection.clone()), connection: connection.clone() }
    }
}

impl<B> Service<http::Request<B>> for ConnectionService
where
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = http::Response<ResponseBody>;
    type Error = Infallible;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> ResponseFuture {
        let is_http2 = request.version() == Version::HTTP_2;
        let is_connect = request.method() == Method::CONNECT;
        let is_probe = health::PATHS.contains(&request.uri().path());
        // An encoded body may be a hundred times larger when it is decoded.
        let is_encoded = request.headers().contains_key(CONTENT_ENCODING);
        let is_large = request.body().size_hint().upper().is_none_or(|bytes| bytes >= MIN_LARGE_BYTES);
        let is_slow = (is_large || is_encoded) && !is_probe;
        let guard = self.connection.begin_request(is_http2);
        let is_watched = !is_http2 && !request.body().is_end_stream();
        let (mut future, unread) = if is_watched {
            let (parts, body) = request.into_parts();
            let (watched, unread) = watch_body(body);
            (self.service.call(http::Request::from_parts(parts, watched)), Some(unread))
        } else {
            (self.service.call(request.map(Body::new)), None)
        };
        if is_http2 && !is_probe {
            let permits = self.connection.response_permits.clone();
            future = Box::pin(async move {
                // The semaphore is never closed.
                let permit = permits.acquire_owned().await.ok();
                let mut response = future.await?;
                response.extensions_mut().insert(ResponsePermit(permit.map(Arc::new)));
                Ok(response)
            });
        }
        if is_slow && has_other_threads() {
            future = Box::pin(poll_blocking(self.connection.registry.readers.clone(), future));
        }
        ResponseFuture { future, is_http2, is_connect, unread, request: Some(guard) }
    }
}

/// Polls a response that occupies its thread for long outside of the worker threads, no more of them at once than there
/// are permits.
///
/// A busy worker checks for new connections only between many polls, so others would wait for all of them. A permit is
/// held for one poll: a response that waits for its client or for a database holds none.
async fn poll_blocking(permits: Arc<Semaphore>, mut future: BoxedResponse) -> Result<Response, Infallible> {
    loop {
        // The semaphore is never closed.
        let permit = permits.acquire().await.ok();
        let polled = poll_fn(|context| Poll::Ready(block_in_place(|| future.as_mut().poll(context)))).await;
        drop(permit);
        match polled {
            Poll::Ready(response) => return response,
            // The response's future wakes this task.
            Poll::Pending => pending!(),
        }
    }
}

/// Whether a part of a request's body remains, after what has arrived of a small one is read.
type Unread = Box<dyn FnMut(&mut Context<'_>) -> bool + Send>;

/// A request body, and a function that reports whether a part of it remains.
fn watch_body<B>(body: B) -> (Body, Unread)
where
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let is_small = body.size_hint().upper().is_some_and(|bytes| bytes <= MAX_DRAIN_BYTES);
    let shared = Arc::new(Mutex::new(BodyState { body, is_over: false }));
    let shared_body = shared.clone();
    let remains = move |context: &mut Context<'_>| {
        let mut state = shared_body.lock().unwrap_or_else(PoisonError::into_inner);
        while is_small && !state.is_over() {
            if !matches!(state.poll(context), Poll::Ready(None | Some(Ok(_)))) {
                return true;
            }
        }
        !state.is_over()
    };
    (Body::new(WatchedBody(shared)), Box::new(remains))
}

/// A frame of a body, or its error.
type FrameResult<B> = Result<Frame<<B as HttpBody>::Data>, <B as HttpBody>::Error>;

/// A body, and whether its end has been seen: a body without a length does not report it by itself.
struct BodyState<B> {
    body: B,
    is_over: bool,
}

impl<B: HttpBody + Unpin> BodyState<B> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<FrameResult<B>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        self.is_over = frame.is_none();
        Poll::Ready(frame)
    }

    fn is_over(&self) -> bool {
        self.is_over || self.body.is_end_stream()
    }
}

/// A request body that is checked again once its request is answered.
struct WatchedBody<B>(Arc<Mutex<BodyState<B>>>);

impl<B> WatchedBody<B> {
    fn lock(&self) -> MutexGuard<'_, BodyState<B>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B: HttpBody + Unpin> HttpBody for WatchedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.lock().poll(context)
    }

    fn is_end_stream(&self) -> bool {
        self.lock().is_over()
    }

    fn size_hint(&self) -> SizeHint {
        self.lock().body.size_hint()
    }
}

/// The permit of an HTTP/2 request for a large response.
#[derive(Clone)]
struct ResponsePermit(Option<Arc<OwnedSemaphorePermit>>);

type BoxedResponse = BoxFuture<'static, Result<Response, Infallible>>;

/// A response in progress.
pub(super) struct ResponseFuture {
    future: BoxedResponse,
    is_http2: bool,
    is_connect: bool,
    /// Reports whether a part of an HTTP/1 request's body remains.
    unread: Option<Unread>,
    request: Option<Request>,
}

impl Future for ResponseFuture {
    type Output = Result<http::Response<ResponseBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Ok(mut response) = ready!(self.future.as_mut().poll(context));
        let request = self.request.take().expect("an answer is given once");
        if self.unread.as_mut().is_some_and(|remains| remains(context)) {
            // The rest of the body cannot be distinguished from another request, so the connection ends with this
            // response.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if self.is_connect && response.status().is_success()
            || response.status() == StatusCode::SWITCHING_PROTOCOLS
        {
            request.connection.record_tunnel();
        }
        let memory = response.extensions_mut().remove::<Arc<ResponseMemory>>();
        // A small response, or one that is generated while it is sent, releases its permit at once.
        let permit = response.extensions_mut().remove::<ResponsePermit>().filter(|_| memory.is_some());
        let permit = permit.and_then(|ResponsePermit(permit)| permit);
        let is_http2 = self.is_http2;
        Poll::Ready(Ok(response.map(|body| ResponseBody::new(body, memory, permit, is_http2, request))))
    }
}
