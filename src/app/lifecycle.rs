//! What surrounds every request: its ids and span, a place among the others, a deadline, and a net for panics.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{self, Poll};
use std::time::Duration;

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::header::{
    CONTENT_SECURITY_POLICY, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderName, HeaderValue, Uri};
use tokio::sync::Semaphore;
use tower::{Layer, Service};
use tracing::Instrument as _;

use crate::error::{Error, ErrorKind};
use crate::http::{Boundary, Context, REQUEST_ID, respond};

/// What the requests of an application share while it lives.
#[derive(Debug)]
pub(super) struct Lifecycle {
    slots: Arc<Semaphore>,
    deadline: Duration,
    /// Whether answers ask browsers to come back over TLS only.
    strict_transport: bool,
    problem_base: String,
    draining: AtomicBool,
    pub(super) drain_delay: Duration,
    pub(super) shutdown_grace: Duration,
}

impl Lifecycle {
    pub(super) fn new(
        boundary: &Boundary,
        deadline: Duration,
        concurrency: usize,
        strict_transport: bool,
        drain_delay: Duration,
        shutdown_grace: Duration,
    ) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(concurrency.min(Semaphore::MAX_PERMITS))),
            deadline,
            strict_transport,
            problem_base: boundary.problem_base.clone(),
            draining: AtomicBool::new(false),
            drain_delay,
            shutdown_grace,
        }
    }

    pub(super) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    fn fail(&self, error: &Error, uri: &Uri, context: &Context) -> Response {
        respond(error, &self.problem_base, uri.path(), context)
    }

    /// The headers that every answer carries, unless it says otherwise itself.
    fn finish(&self, mut response: Response, context: &Context) -> Response {
        const NOSNIFF: (HeaderName, HeaderValue) =
            (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        const NO_REFERRER: (HeaderName, HeaderValue) =
            (REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        // An answer is text for programs; shown as a page it may load and frame nothing.
        const INERT: (HeaderName, HeaderValue) =
            (CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
        const STRICT: (HeaderName, HeaderValue) =
            (STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
        let headers = response.headers_mut();
        headers.insert(REQUEST_ID, context.request_id().clone());
        for (name, value) in [NOSNIFF, NO_REFERRER, INERT] {
            headers.entry(name).or_insert(value);
        }
        if self.strict_transport {
            headers.entry(STRICT.0).or_insert(STRICT.1);
        }
        response
    }
}

/// Puts a [`Lifecycle`] around a service.
#[derive(Clone, Debug)]
pub(super) struct LifecycleLayer(pub(super) Arc<Lifecycle>);

impl<S> Layer<S> for LifecycleLayer {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { inner, lifecycle: self.0.clone() }
    }
}

/// A service with a lifecycle around it.
#[derive(Clone, Debug)]
pub(super) struct Guarded<S> {
    inner: S,
    lifecycle: Arc<Lifecycle>,
}

impl<S> Service<Request> for Guarded<S>
where
    S: Service<Request, Error = Infallible>,
    S::Response: IntoResponse,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let context = Context::of(request.headers());
        let uri = request.uri().clone();
        let lifecycle = self.lifecycle.clone();
        let Ok(slot) = lifecycle.slots.clone().try_acquire_owned() else {
            let response = lifecycle.finish(lifecycle.fail(&overloaded(), &uri, &context), &context);
            return Box::pin(std::future::ready(Ok(response)));
        };
        let span = tracing::info_span!(
            "request",
            method = %request.method(),
            path = uri.path(),
            request_id = context.request_id().to_str().unwrap_or_default(),
        );
        request.extensions_mut().insert(context.clone());
        let answer = AssertUnwindSafe(self.inner.call(request)).catch_unwind();
        let guarded = async move {
            let response = match tokio::time::timeout(lifecycle.deadline, answer).await {
                Ok(Ok(Ok(response))) => response.into_response(),
                Ok(Ok(Err(never))) => match never {},
                Ok(Err(panic)) => lifecycle.fail(&panicked(panic.as_ref()), &uri, &context),
                Err(_) => lifecycle.fail(&late(lifecycle.deadline), &uri, &context),
            };
            drop(slot);
            Ok(lifecycle.finish(response, &context))
        };
        Box::pin(guarded.instrument(span))
    }
}

fn overloaded() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "overloaded",
        "The server has as many requests as it takes. Try again.",
    )
}

fn late(deadline: Duration) -> Error {
    Error::new(
        ErrorKind::DeadlineExceeded,
        "deadline-exceeded",
        format!(
            "The answer took longer than {} ms. A change may have happened or not.",
            deadline.as_millis()
        ),
    )
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> Error {
    let message = panic
        .downcast_ref::<&str>()
        .map(|message| (*message).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned());
    Error::internal(message)
}
