//! The requests of one connection.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Method, StatusCode, Version};
use http_body::Body as HttpBody;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::block_in_place;
use tower::Service;

use super::answer::{Answer, Held};
use super::connection::{Connection, Request};
use super::has_other_threads;
use crate::app::front::Front;
use crate::app::health;

/// The least bytes of a request body that takes long to read and check.
const LARGE: u64 = 64 << 10;

/// What answers the requests of one connection.
#[derive(Clone)]
pub(super) struct Entry {
    front: Front,
    connection: Arc<Connection>,
}

impl Entry {
    pub(super) fn new(front: &Front, connection: &Arc<Connection>) -> Self {
        Self { front: front.for_connection(connection.clone()), connection: connection.clone() }
    }
}

impl<B> Service<http::Request<B>> for Entry
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = http::Response<Answer>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Answering {
        let is_http2 = request.version() == Version::HTTP_2;
        let is_connect = request.method() == Method::CONNECT;
        let is_probe = health::PATHS.contains(&request.uri().path());
        let is_long = request.body().size_hint().upper().is_none_or(|bytes| bytes >= LARGE) && !is_probe;
        let guard = self.connection.request(is_http2);
        let mut answer = self.front.call(request.map(Body::new));
        if is_http2 && !is_probe {
            let turns = self.connection.turns.clone();
            answer = Box::pin(async move {
                // They are never closed.
                let turn = turns.acquire_owned().await.ok();
                let mut response = answer.await?;
                response.extensions_mut().insert(Turn(turn.map(Arc::new)));
                Ok(response)
            });
        }
        let has_own_thread = is_long && has_other_threads();
        Answering { answer, is_http2, is_connect, has_own_thread, request: Some(guard) }
    }
}

/// The right of an HTTP/2 request to have a large answer.
#[derive(Clone)]
struct Turn(Option<Arc<OwnedSemaphorePermit>>);

/// An answer that is being made.
pub(super) struct Answering {
    answer: BoxFuture<'static, Result<Response, Infallible>>,
    is_http2: bool,
    is_connect: bool,
    /// Whether it is polled in a thread of its own.
    has_own_thread: bool,
    request: Option<Request>,
}

impl Future for Answering {
    type Output = Result<http::Response<Answer>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let has_own_thread = self.has_own_thread;
        let answer = self.answer.as_mut();
        // What reads and checks a large body keeps its thread for long. A busy worker looks for new connections only
        // between many polls, so others would wait for all of them.
        let polled =
            if has_own_thread { block_in_place(|| answer.poll(context)) } else { answer.poll(context) };
        let Ok(mut response) = ready!(polled);
        let request = self.request.take().expect("an answer is given once");
        if self.is_connect && response.status().is_success()
            || response.status() == StatusCode::SWITCHING_PROTOCOLS
        {
            request.connection.opens_tunnel();
        }
        let held = response.extensions_mut().remove::<Arc<Held>>();
        // What is small or goes on for long leaves its turn to the next one.
        let turn = response.extensions_mut().remove::<Turn>().filter(|_| held.is_some());
        let turn = turn.and_then(|Turn(turn)| turn);
        let is_http2 = self.is_http2;
        Poll::Ready(Ok(response.map(|body| Answer::new(body, held, turn, is_http2, request))))
    }
}
