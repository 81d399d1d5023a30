//! Who is told of changes, in code.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::Event;
use super::event::matches;
use crate::access::CheckError;
use crate::engine::Engine;
use crate::error::Error;
use crate::resource::Change;

/// The longest that a subscriber may take for one event.
pub(crate) const LONGEST: Duration = Duration::from_secs(30);

/// Someone who is told of changes, after they were committed and outside of the request that made them.
///
/// Each event comes at least once, and for one item in the order of its changes: where a subscriber fails, or the process
/// ends before it was done, it is told again later, and so it must not mind to be told twice. [`Delivery::once`] helps
/// with that.
///
/// Most write [`AppBuilder::on`](crate::AppBuilder::on) with a function instead.
pub trait Subscriber: Send + Sync + 'static {
    /// Handles an event.
    ///
    /// # Errors
    /// Where it could not, for now: it is told again, later and later, ten times in all; then the event is a dead letter
    /// ([`App::dead_letters`](crate::App::dead_letters)) with this reason.
    fn handle<'a>(
        &'a self,
        event: &'a Event,
        delivery: &'a Delivery,
    ) -> BoxFuture<'a, Result<(), CheckError>>;
}

/// A subscriber, and what it is told of.
#[derive(Clone)]
pub(crate) struct Subscription {
    /// The exact type of events, `orders.*`, or `*`.
    pub(crate) pattern: String,
    /// Told apart by this from the others, on every node and after a restart.
    pub(crate) name: Arc<str>,
    pub(crate) subscriber: Arc<dyn Subscriber>,
    /// Whether the node that relays does it by itself: it is nothing that others could help with.
    pub(crate) stays: bool,
}

impl Subscription {
    pub(crate) fn wants(&self, event_type: &str) -> bool {
        matches(&self.pattern, event_type)
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Has a subscriber handle an event, whatever it does.
///
/// # Errors
/// Why it did not.
pub(crate) async fn handle(
    engine: &Arc<Engine>,
    subscription: &Subscription,
    event: &Event,
    attempt: u32,
) -> Result<(), String> {
    let delivery = Delivery {
        engine: engine.clone(),
        subscriber: subscription.name.clone(),
        event: event.clone(),
        attempt,
    };
    // A subscriber may panic before it has a future.
    let handled = async { subscription.subscriber.handle(event, &delivery).await };
    let handled = AssertUnwindSafe(handled).catch_unwind();
    match tokio::time::timeout(LONGEST, handled).await {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(error))) => Err(error.to_string()),
        Ok(Err(_)) => Err("it panicked".to_owned()),
        Err(_) => Err(format!("it took longer than {} s", LONGEST.as_secs())),
    }
}

/// One try to tell a subscriber of an event.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub(crate) engine: Arc<Engine>,
    pub(crate) subscriber: Arc<str>,
    pub(crate) event: Event,
    pub(crate) attempt: u32,
}

impl Delivery {
    /// Which try this is, from 1.
    #[must_use]
    pub const fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The subscriber's name.
    #[must_use]
    pub fn subscriber(&self) -> &str {
        &self.subscriber
    }

    /// Makes changes because of the event, once however often it comes: they commit together with the event's id, and
    /// where that is there already nothing happens. All of them are of resources in the event's own database.
    ///
    /// Answers whether they were made now.
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
        self.engine.once(self, changes).await
    }
}

/// A function that is told of changes.
pub(crate) struct On<F>(pub(crate) F);

impl<F, T> Subscriber for On<F>
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
