//! Middleware around every request: ids and span, concurrency limit, deadline, and panic handling.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use axum::response::Response;
use futures::FutureExt as _;
use http::header::STRICT_TRANSPORT_SECURITY;
use http::{HeaderName, HeaderValue};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tracing::{Instrument as _, Span};

use crate::error::{Error, ErrorKind};
use crate::http::{Context, REQUEST_ID, set_security_headers};

/// The maximum time between the due time of a response and the deadline.
const DEADLINE_MARGIN: Duration = Duration::from_secs(1);

/// State that the requests of an application share during its lifetime.
#[derive(Debug)]
pub(super) struct Lifecycle {
    slots: Semaphore,
    deadline: Duration,
    /// Whether responses ask browsers to connect over TLS only.
    has_hsts: bool,
    draining: watch::Sender<bool>,
    pub(super) drain_delay: Duration,
    pub(super) shutdown_grace: Duration,
}

impl Lifecycle {
    pub(super) fn new(
        deadline: Duration,
        concurrency: usize,
        has_hsts: bool,
        drain_delay: Duration,
        shutdown_grace: Duration,
    ) -> Self {
        Self {
            slots: Semaphore::new(concurrency.min(Semaphore::MAX_PERMITS)),
            deadline,
            has_hsts,
            draining: watch::Sender::new(false),
            drain_delay,
            shutdown_grace,
        }
    }

    pub(super) fn drain(&self) {
        self.draining.send_replace(true);
    }

    pub(super) fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Whether the application is draining, as a channel to wait on.
    pub(super) fn draining(&self) -> watch::Receiver<bool> {
        self.draining.subscribe()
    }

    /// When the response to a request that begins now is due: shortly before the deadline, so that work that is done by
    /// then is still answered normally.
    pub(super) fn response_due(&self) -> Option<Instant> {
        Instant::now().checked_add(self.deadline - (self.deadline / 10).min(DEADLINE_MARGIN))
    }

    /// Runs a handler within the concurrency limit and the deadline, and catches panics.
    ///
    /// # Errors
    /// Where there are too many requests, the response is late, or the handler panics.
    pub(super) async fn run_guarded<F: Future<Output = Response> + Send>(
        &self,
        span: &Span,
        // Not the future itself: each function that it is passed through would reserve space for a copy of it.
        answer: impl FnOnce() -> F + Send,
    ) -> Result<Response, Error> {
        let _permit = self.slots.try_acquire().map_err(|_| overloaded())?;
        // Pinned here and passed by reference, so that the future is stored once only.
        let guarded = tokio::time::timeout(self.deadline, AssertUnwindSafe(answer()).catch_unwind());
        let guarded = std::pin::pin!(guarded);
        // A span without a subscriber need not be entered.
        let outcome = if span.is_disabled() { guarded.await } else { guarded.instrument(span.clone()).await };
        match outcome {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(panic)) => Err(panicked(panic.as_ref())),
            Err(_) => Err(deadline_exceeded(self.deadline)),
        }
    }

    /// Adds the headers that every response carries, unless it sets them itself.
    pub(super) fn set_common_headers(&self, mut response: Response, context: &Context) -> Response {
        const HSTS: (HeaderName, HeaderValue) =
            (STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
        let headers = response.headers_mut();
        headers.insert(REQUEST_ID, context.request_id().clone());
        set_security_headers(headers);
        if self.has_hsts {
            headers.entry(HSTS.0).or_insert(HSTS.1);
        }
        response
    }
}

pub(super) fn overloaded() -> Error {
    Error::new(ErrorKind::Unavailable, "overloaded", "Server overloaded, retry later.")
}

fn deadline_exceeded(deadline: Duration) -> Error {
    Error::new(
        ErrorKind::DeadlineExceeded,
        "deadline-exceeded",
        format!(
            "The response took longer than {} ms. A change may or may not have been made.",
            deadline.as_millis()
        ),
    )
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> Error {
    Error::internal(panic_message(panic))
}

/// The message of a panic.
pub(super) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|message| (*message).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned())
}
