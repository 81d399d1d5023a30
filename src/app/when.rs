//! A layer that some requests pass and others pass by.

use std::convert::Infallible;
use std::task::{self, Poll};

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use futures::FutureExt as _;
use futures::future::{BoxFuture, Either, Map};
use tower::{Layer, Service};

/// The layer, and which requests pass it: the others do not pay for it.
#[derive(Clone, Debug)]
pub(super) struct When<L>(pub(super) L, pub(super) fn(&Request) -> bool);

impl<L: Layer<S>, S: Clone> Layer<S> for When<L> {
    type Service = Fork<L::Service, S>;

    fn layer(&self, inner: S) -> Self::Service {
        Fork { layered: self.0.layer(inner.clone()), plain: inner, test: self.1 }
    }
}

/// A service with and without a layer.
#[derive(Clone, Debug)]
pub(super) struct Fork<L, S> {
    layered: L,
    plain: S,
    test: fn(&Request) -> bool,
}

type Answer = Result<Response, Infallible>;

impl<L, S> Service<Request> for Fork<L, S>
where
    L: Service<Request, Error = Infallible>,
    L::Response: IntoResponse,
    L::Future: Send + 'static,
    S: Service<Request, Response = Response, Error = Infallible>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Either<BoxFuture<'static, Answer>, Map<S::Future, fn(Answer) -> Answer>>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Infallible>> {
        match (self.layered.poll_ready(cx), self.plain.poll_ready(cx)) {
            (Poll::Ready(_), Poll::Ready(_)) => Poll::Ready(Ok(())),
            _ => Poll::Pending,
        }
    }

    fn call(&mut self, request: Request) -> Self::Future {
        if (self.test)(&request) {
            let answer = self.layered.call(request);
            Either::Left(answer.map(|answer| answer.map(IntoResponse::into_response)).boxed())
        } else {
            Either::Right(self.plain.call(request).map((|answer| answer) as fn(Answer) -> Answer))
        }
    }
}
