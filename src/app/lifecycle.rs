//! What surrounds every request: its ids and span, a place among the others, a deadline, and a net for panics.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::response::Response;
use futures::FutureExt as _;
use http::header::STRICT_TRANSPORT_SECURITY;
use http::{HeaderName, HeaderValue, Method};
use tokio::sync::Semaphore;
use tracing::Instrument as _;

use crate::error::{Error, ErrorKind};
use crate::http::{Boundary, Context, REQUEST_ID, inert, respond};

/// What the requests of an application share while it lives.
#[derive(Debug)]
pub(super) struct Lifecycle {
    slots: Semaphore,
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
            slots: Semaphore::new(concurrency.min(Semaphore::MAX_PERMITS)),
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

    /// Waits for an answer, in time and whatever happens.
    pub(super) async fn guard<F: Future<Output = Response> + Send>(
        &self,
        method: &Method,
        path: &str,
        context: &Context,
        // Not the future itself: each hand that it went through would keep a place as large as it.
        answer: impl FnOnce() -> F + Send,
    ) -> Response {
        let fail = |error: Error| respond(&error, &self.problem_base, path, context);
        let Ok(slot) = self.slots.try_acquire() else {
            return self.finish(fail(overloaded()), context);
        };
        let span = tracing::info_span!(
            "request",
            %method,
            path,
            request_id = context.request_id().to_str().unwrap_or_default(),
        );
        // Pinned here and lent on, so that there is no second place for it.
        let guarded = std::pin::pin!(async {
            match tokio::time::timeout(self.deadline, AssertUnwindSafe(answer()).catch_unwind()).await {
                Ok(Ok(response)) => response,
                Ok(Err(panic)) => fail(panicked(panic.as_ref())),
                Err(_) => fail(late(self.deadline)),
            }
        });
        let response = guarded.instrument(span).await;
        drop(slot);
        self.finish(response, context)
    }

    /// The headers that every answer carries, unless it says otherwise itself.
    fn finish(&self, mut response: Response, context: &Context) -> Response {
        const STRICT: (HeaderName, HeaderValue) =
            (STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
        let headers = response.headers_mut();
        headers.insert(REQUEST_ID, context.request_id().clone());
        inert(headers);
        if self.strict_transport {
            headers.entry(STRICT.0).or_insert(STRICT.1);
        }
        response
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
    Error::internal(panic_message(panic))
}

/// What a panic said.
pub(super) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|message| (*message).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned())
}
