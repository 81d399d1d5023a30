//! Event subscribers in code.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;

use crate::access::CheckError;
use crate::engine::Engine;
use crate::error::Error;
use crate::outbox::Event;
use crate::outbox::matches;
use crate::resource::Change;

/// Time limit for a subscriber to handle one event.
pub(crate) const HANDLER_TIMEOUT: Duration = Duration::from_secs(30);

/// A subscriber of events: called after a change was committed, outside of the request that made it.
///
/// Delivery is at least once and, for one item, in the order of its changes. Where a subscriber fails, or the process ends
/// before it was done, the event is delivered again later, so handling must be idempotent. [`Delivery::once`] helps with
/// that.
///
/// Most applications call [`AppBuilder::on`](crate::AppBuilder::on) with a function instead.
pub trait Subscriber: Send + Sync + 'static {
    /// Handles an event.
    ///
    /// # Errors
    /// Where the event could not be handled for now: it is delivered again with growing delays, ten attempts in all; then
    /// it is a dead letter ([`App::dead_letters`](crate::App::dead_letters)) with this reason.
    fn handle<'a>(
        &'a self,
        event: &'a Event,
        delivery: &'a Delivery,
    ) -> BoxFuture<'a, Result<(), CheckError>>;
}

/// A registered subscriber, with the events that it receives.
#[derive(Clone)]
pub(crate) struct RegisteredSubscriber {
    /// Pattern of event types: an exact type, `orders.*`, or `*`.
    pub(crate) pattern: String,
    /// Unique name, the same on every node and after a restart.
    pub(crate) name: Arc<str>,
    pub(crate) subscriber: Arc<dyn Subscriber>,
    /// Whether the relaying node always calls it itself: its work cannot be shared with other nodes.
    pub(crate) is_relay_local: bool,
}

impl RegisteredSubscriber {
    pub(crate) fn matches(&self, event_type: &str) -> bool {
        matches(&self.pattern, event_type)
    }
}

impl fmt::Debug for RegisteredSubscriber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Calls a subscriber with an event; a panic or a timeout is a failure as well.
///
/// # Errors
/// Why the event was not handled.
pub(crate) async fn handle(
    engine: &Arc<Engine>,
    registered: &RegisteredSubscriber,
    event: &Event,
    attempt: u32,
) -> Result<(), String> {
    let delivery = Delivery {
        engine: engine.clone(),
        subscriber: registered.name.clone(),
        event: event.clone(),
        attempt,
    };
    // A subscriber may panic before it returns its future.
    let handled = async { registered.subscriber.handle(event, &delivery).await };
    let handled = AssertUnwindSafe(handled).catch_unwind();
    match tokio::time::timeout(HANDLER_TIMEOUT, handled).await {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(error))) => Err(error.to_string()),
        Ok(Err(_)) => Err("it panicked".to_owned()),
        Err(_) => Err(format!("it took longer than {} s", HANDLER_TIMEOUT.as_secs())),
    }
}

/// One attempt to deliver an event to a subscriber.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub(crate) engine: Arc<Engine>,
    pub(crate) subscriber: Arc<str>,
    pub(crate) event: Event,
    pub(crate) attempt: u32,
}

impl Delivery {
    /// The number of this attempt, from 1.
    #[must_use]
    pub const fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The subscriber's name.
    #[must_use]
    pub fn subscriber(&self) -> &str {
        &self.subscriber
    }

    /// Makes changes because of the event, once however often it is delivered: they are committed together with the event's
    /// id, and where that id exists already nothing happens. All of them are of resources in the event's own database.
    ///
    /// Returns whether they were made now.
    ///
    /// # Errors
    /// Where the changes cannot be made.
    ///
    /// ```
    /// use resourceful::prelude::*;
    ///
    /// # let _ =
    /// create_app(AppPreset::Testing).on("orders.created", async |event, delivery| {
    ///     let order = event.subject.clone();
    ///     delivery
    ///         .once(|change| change.create("invoices", serde_json::json!({"order_id": order})))
    ///         .await?;
    ///     Ok(())
    /// })
    /// # ;
    /// ```
    pub async fn once(&self, changes: impl FnOnce(&mut Change) + Send) -> Result<bool, Error> {
        self.engine.commit_once(&self.subscriber, &self.event, changes).await
    }
}

/// A function as a subscriber.
pub(crate) struct FnSubscriber<F>(pub(crate) F);

impl<F, T> Subscriber for FnSubscriber<F>
where
    F: Fn(Event, Delivery) -> T + Send + Sync + 'static,
    T: Future<Output = Result<(), CheckError>> + Send + 'static,
{
    fn handle<'a>(
        &'a self,
        event: &'a Event,
        delivery: &'a Delivery,
    ) -> BoxFuture<'a, Result<(), CheckError>> {
        Box::pin((self.0)(event.clone(), delivery.clone()))
    }
}
