//! The application: resources behind one router, and its lifecycle from start to shutdown.

mod background;
mod banner;
mod buffered_body;
mod build;
mod build_error;
mod builder;
mod health;
mod lifecycle;
mod middleware;
mod migrate;
mod mount;
mod preset;
mod serve;
mod server;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use uuid::Uuid;

use crate::access::Actor;
use crate::access::Operation;
use crate::cache::{CacheCounts, Tag};
use crate::error::Error;
use crate::events::Relay;
use crate::http::AppState;
use crate::outbox::{Event, PublishNotifier, Tail};

pub use crate::audit::AuditVerdict;
pub use crate::engine::{ExplainedStep, Explanation, Loader, Outcome, RuleOutcome};
pub use background::Background;
pub use build_error::BuildError;
pub use builder::{AppBuilder, create_app};
pub use preset::AppPreset;
pub use server::ConnectionLimits;

use lifecycle::Lifecycle;
use middleware::AppService;

/// A verified application: nest its [`router`](Self::router) anywhere, or [`serve`](Self::serve) it.
///
/// Two applications in one process share nothing but what is passed to both. Cloning is cheap.
#[derive(Clone)]
pub struct App {
    service: AppService,
    state: Arc<AppState>,
    lifecycle: Arc<Lifecycle>,
    limits: Arc<ConnectionLimits>,
    relay: Arc<Relay>,
    /// Followers of published events.
    tails: Vec<Arc<Tail>>,
    notifier: Option<Arc<PublishNotifier>>,
    development: Development,
    #[cfg(feature = "webhooks")]
    dispatcher: Option<Arc<crate::events::Dispatcher>>,
}

/// What is shown to developers.
#[derive(Clone, Copy, Debug)]
struct Development {
    /// Whether `serve` prints the address and a request to try.
    has_banner: bool,
    has_docs: bool,
}

/// An event whose delivery failed for good, after ten attempts.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The event.
    pub event: Event,
    /// The number of attempts.
    pub attempts: u32,
    /// Which subscribers failed last, and why.
    pub reason: String,
    /// When delivery was given up.
    pub dead_at: DateTime<Utc>,
}

impl App {
    /// The application as an axum router.
    ///
    /// Responses contain URLs under the path that the client used, so nesting under a path works.
    pub fn router(&self) -> Router {
        Router::new().fallback_service(self.service.clone())
    }

    #[cfg(feature = "testing")]
    pub(crate) fn state(&self) -> &AppState {
        &self.state
    }

    /// Starts to load existing rows, bypassing permissions and in one transaction: for seeds, imports and tests.
    #[must_use]
    pub fn load(&self) -> Loader<'_> {
        Loader::new(&self.state.engine)
    }

    /// Explains why an actor may or may not do an operation on a resource: every rule that was evaluated, and for one row
    /// the rules that hid it. For operators and tests; the result contains what callers must not learn.
    ///
    /// # Errors
    /// Where there is no such resource, or its storage fails.
    ///
    /// ```
    /// use resourceful::prelude::*;
    /// use resourceful::app::Outcome;
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # #[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
    /// # struct Note { id: Uuid, user_id: String }
    /// let notes = define_resource::<Note>("notes")
    ///     .adapter(Memory::new().table("notes"))
    ///     .permissions(Permissions::all(signed_in()))
    ///     .preset(owned_by("user_id"))
    ///     .build()?;
    /// let app = create_app(AppPreset::Testing).resource(notes).build().await?;
    ///
    /// let why = app.explain(&Actor::anonymous(), "notes", Operation::Read, None).await?;
    /// assert_eq!(why.outcome, Outcome::Unauthenticated);
    /// assert_eq!(why.operation[0].rule, "signed_in()");
    /// # Ok(()) }
    /// ```
    pub async fn explain(
        &self,
        actor: &Actor,
        resource: &str,
        operation: Operation,
        id: Option<&str>,
    ) -> Result<Explanation, Error> {
        let actor = actor.clone().with_included(&self.state.roles);
        self.state.engine.explain(&actor, resource, operation, id).await
    }

    /// Dead letters: events whose delivery was given up, the oldest first, at most this many of each database.
    ///
    /// # Errors
    /// Where a storage fails.
    pub async fn dead_letters(&self, limit: u32) -> Result<Vec<DeadLetter>, Error> {
        let rows = self.state.engine.outbox.dead_letters(limit).await?;
        let letter = |row: crate::tables::events::EventRow| DeadLetter {
            event: self.state.engine.outbox.to_event(&row),
            attempts: u32::try_from(row.attempts).unwrap_or(u32::MAX),
            reason: row.reason.unwrap_or_default(),
            dead_at: row.dead_at.unwrap_or_default(),
        };
        Ok(rows.into_iter().map(letter).collect())
    }

    /// Schedules dead letters for another delivery, by their ids. Returns how many there were.
    ///
    /// # Errors
    /// Where a storage fails.
    pub async fn replay_dead_letters(&self, ids: &[Uuid]) -> Result<u64, Error> {
        self.state.engine.outbox.revive(ids).await
    }

    /// Verifies the audit trail of each database: that no entry was removed or altered since it was written. Reads all of
    /// it.
    ///
    /// # Errors
    /// Where a storage fails.
    pub async fn verify_audit(&self) -> Result<Vec<AuditVerdict>, Error> {
        self.state.engine.audit.verify().await
    }

    /// Invalidates every cached response of the resources that have this tag ([`Cache::tag`](crate::cache::Cache::tag)), on this
    /// node at once and on the others as soon as they receive the message on the bus: for changes made outside of the
    /// application.
    pub fn invalidate(&self, tag: &str) {
        if let Some(cache) = &self.state.cache {
            cache.tag_versions().invalidate(&[Tag::declared(tag)], &[]);
        }
    }

    /// Counts of requests whose responses may be cached, by outcome.
    #[must_use]
    pub fn cache_counts(&self) -> CacheCounts {
        self.state.cache.as_ref().map(|cache| cache.counts()).unwrap_or_default()
    }

    /// The number of streams of changes that are open on this node.
    #[must_use]
    pub fn open_streams(&self) -> usize {
        self.state.live.as_ref().map_or(0, |live| live.hub.count())
    }

    /// How often a hook failed after a change that was committed, and so stays, on this node since it started. Each
    /// failure is logged with its reason.
    #[must_use]
    pub fn hook_failures(&self) -> u64 {
        self.state.engine.hook_failures.load(Ordering::Relaxed)
    }

    /// How many leases this node took over from a holder that was gone although the lease had not expired, because that
    /// node's clock is wrong. Each is logged with its holder.
    #[must_use]
    pub fn outlived_leases(&self) -> u64 {
        self.state.engine.outbox.skewed_leases.taken_over()
    }

    /// The number of rows that a resource has.
    ///
    /// # Errors
    /// Where there is no such resource, or its storage fails.
    pub async fn count(&self, resource: &str) -> Result<u64, Error> {
        self.count_boxed(resource).await
    }

    #[inline(never)]
    fn count_boxed<'a>(&'a self, resource: &'a str) -> BoxFuture<'a, Result<u64, Error>> {
        Box::pin(self.state.engine.count(resource))
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.state.engine.catalog.entries().iter().map(|entry| entry.definition.name());
        f.debug_struct("App").field("resources", &names.collect::<Vec<_>>()).finish_non_exhaustive()
    }
}
