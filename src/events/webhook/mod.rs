//! Webhooks: events, signed and sent over HTTP to endpoints that an application's users manage.

mod delivery;
mod dispatch;
mod endpoint;
mod queue;
mod sign;
mod throttle;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use resourceful_contract::{Storage, Table};

use crate::access::{Actor, CheckError, Permission};
use crate::resource::{Definition, DefinitionErrors, Resource, ResourceBuilder, Target};
use crate::tables;

pub(crate) use dispatch::Dispatcher;
pub(crate) use queue::WebhookSubscriber;

/// The name of the resource of endpoints.
const ENDPOINTS: &str = "webhook_endpoints";
/// The name of the resource of deliveries.
const DELIVERIES: &str = "webhook_deliveries";

type OwnerLookup = dyn Fn(Actor) -> BoxFuture<'static, Result<Option<Actor>, CheckError>> + Send + Sync;
type Extension = dyn Fn(ResourceBuilder) -> ResourceBuilder + Send + Sync;

/// Webhooks of an application ([Standard Webhooks](https://www.standardwebhooks.com)): its users register URLs for types of
/// events, and receive what they may see.
///
/// Webhooks add two resources. `webhook_endpoints` holds the targets: a URL and types of events; with the actions
/// `reveal-secret`, `rotate-secret` and `take-over`. `webhook_deliveries` is the log: messages, the outcome of each
/// attempt, and the action `replay`. Callers with a tenant see the endpoints and deliveries of their tenant; callers
/// without one, their own.
///
/// - A message is the event as `CloudEvents` JSON (`application/cloudevents+json`), with `webhook-id` (the event's id),
///   `webhook-timestamp` and `webhook-signature`, one signature for each valid secret.
/// - It shows what the endpoint's owner may see at that moment, as GET would: row policy, field rules, tenant. The owner is
///   the caller who set the URL, or took the endpoint over (`take-over`).
/// - Any result but a 2xx response is retried, ten attempts in all over three days; 410 disables the endpoint. Redirects
///   are not followed. Messages of one endpoint may overtake each other: `sequence` gives the order of an item's events.
/// - Messages are sent only to addresses of the public Internet, over TLS, and a host name is resolved once, when the
///   connection is made.
///
/// ```
/// use resourceful::prelude::*;
/// use resourceful::events::Webhooks;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # #[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
/// # struct Order { id: Uuid, total_cents: i64 }
/// let memory = Memory::new();
/// let orders = define_resource::<Order>("orders")
///     .adapter(memory.table("orders"))
///     .permissions(Permissions::all(signed_in()))
///     .build()?;
/// let app = create_app(AppPreset::Testing)
///     .resource(orders)
///     // Who may manage endpoints, and what rights an endpoint's owner has by now: `None` where they are gone.
///     .webhooks(Webhooks::stored_in(&memory.storage(), tenant_role("admin"), async |owner| Ok(Some(owner))))
///     .build()
///     .await?;
/// # let _ = app; Ok(()) }
/// ```
#[must_use]
pub struct Webhooks {
    storage: Arc<dyn Storage>,
    managed_by: Permission,
    owners: Arc<OwnerLookup>,
    endpoints: Vec<Arc<Extension>>,
    max_endpoints: u32,
    private_targets: bool,
    deadline: Duration,
    payload_limit: usize,
    backoff: Vec<Duration>,
    retention: Duration,
    overlap: Duration,
    known_events: endpoint::KnownEvents,
}

impl Webhooks {
    /// The default pauses between attempts: ten attempts in a little more than three days.
    pub const PAUSES: [Duration; 9] = [
        Duration::from_secs(5),
        Duration::from_secs(5 * 60),
        Duration::from_secs(30 * 60),
        Duration::from_secs(2 * 3600),
        Duration::from_secs(5 * 3600),
        Duration::from_secs(10 * 3600),
        Duration::from_secs(14 * 3600),
        Duration::from_secs(20 * 3600),
        Duration::from_secs(24 * 3600),
    ];

    /// Webhooks whose endpoints and deliveries are kept in a storage, managed by the callers that a permission admits.
    ///
    /// `owners` returns, for an endpoint's owner, the actor with current rights, or `None` where the owner no longer
    /// exists, which disables the endpoint. It is called before each attempt with the actor as recorded when they became
    /// the owner, without elevated rights; where rights cannot change, return that. Where it fails, the delivery is tried
    /// again later.
    pub fn stored_in<F, T>(storage: &Arc<dyn Storage>, managed_by: Permission, owners: F) -> Self
    where
        F: Fn(Actor) -> T + Send + Sync + 'static,
        T: Future<Output = Result<Option<Actor>, CheckError>> + Send + 'static,
    {
        Self {
            storage: storage.clone(),
            managed_by,
            owners: Arc::new(move |owner| Box::pin(owners(owner))),
            endpoints: Vec::new(),
            max_endpoints: 100,
            private_targets: false,
            deadline: Duration::from_secs(15),
            payload_limit: 256 << 10,
            backoff: Self::PAUSES.to_vec(),
            retention: Duration::from_secs(30 * 24 * 3600),
            overlap: Duration::from_secs(24 * 3600),
            known_events: endpoint::KnownEvents::default(),
        }
    }

    /// Extends the declaration of endpoints, for example with a preset.
    pub fn endpoints(
        mut self,
        extended: impl Fn(ResourceBuilder) -> ResourceBuilder + Send + Sync + 'static,
    ) -> Self {
        self.endpoints.push(Arc::new(extended));
        self
    }

    /// The most endpoints of a tenant, or of an actor without a tenant; 100 by default. Each of them is checked for every
    /// event of theirs.
    pub const fn max_endpoints_per_tenant(mut self, max_endpoints: u32) -> Self {
        self.max_endpoints = max_endpoints;
        self
    }

    /// Allows endpoints on this machine and in its own network, and without TLS: for development and tests. Elsewhere it
    /// would let any caller who may set an endpoint's URL reach what only the application can (server-side request
    /// forgery).
    pub const fn private_targets(mut self, allowed: bool) -> Self {
        self.private_targets = allowed;
        self
    }

    /// Time limit for an endpoint's response; 15 s by default.
    pub const fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// The largest size of a message in bytes; 256 KiB by default. A larger event is sent without its `data`, for the
    /// receiver to read the item itself.
    pub const fn payload_limit(mut self, bytes: usize) -> Self {
        self.payload_limit = bytes;
        self
    }

    /// The pauses between attempts; there is one attempt more than pauses. Each pause is up to a tenth longer. By default
    /// [`PAUSES`](Self::PAUSES).
    pub fn backoff(mut self, backoff: impl IntoIterator<Item = Duration>) -> Self {
        self.backoff = backoff.into_iter().collect();
        self
    }

    /// How long deliveries that ended are kept in the log; 30 days by default.
    pub const fn retention(mut self, time: Duration) -> Self {
        self.retention = time;
        self
    }

    /// How long messages are also signed with a secret that was rotated out; 24 h by default.
    pub const fn secret_overlap(mut self, time: Duration) -> Self {
        self.overlap = time;
        self
    }

    pub(crate) const fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// The two resources of webhooks.
    ///
    /// # Errors
    /// Faults in the extensions of their declarations.
    pub(crate) fn resources(&self) -> Result<[Resource; 2], DefinitionErrors> {
        let table = |name: &str| {
            let table = Table::new(self.storage.clone(), format!("resourceful_{name}"));
            // Where the storage has migrations, they create the table.
            if tables::migrations(self.storage.dialect()).is_some() {
                table
            } else {
                table.create_table_if_missing()
            }
        };
        let mut endpoints = endpoint::resource(self, table(ENDPOINTS));
        for extended in &self.endpoints {
            endpoints = extended(endpoints);
        }
        Ok([endpoints.build()?, delivery::resource(self, table(DELIVERIES)).build()?])
    }

    /// Sets the known events that endpoints are validated against.
    pub(crate) fn set_known_events(&self, resources: &[Resource]) {
        let publishing = resources.iter().filter(|resource| resource.0.events);
        // It is set once, when the application is built.
        let _ = self
            .known_events
            .set(publishing.map(|one| (one.name().to_owned(), event_names(&one.0))).collect());
    }
}

/// The names of a resource's events, without the resource's name.
fn event_names(definition: &Definition) -> BTreeSet<String> {
    let purged = definition.deleted_at.map(|_| "purged");
    let own = ["created", "updated", "deleted"].into_iter().chain(purged).map(str::to_owned);
    // An action that restores an item is an update, and an action on a collection causes the events of its enlisted
    // changes.
    let item_actions =
        definition.actions.iter().filter(|one| one.action.target == Target::Item && !one.action.is_revert);
    let of_actions = item_actions.map(|one| one.action.event.clone().unwrap_or_else(|| one.name.clone()));
    own.chain(of_actions).collect()
}

/// A duration for arithmetic with times, capped at 100 years.
fn chrono_duration(time: Duration) -> chrono::Duration {
    const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    chrono::Duration::from_std(time.min(LONGEST)).unwrap_or_default()
}

impl fmt::Debug for Webhooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhooks").field("storage", &self.storage.name()).finish_non_exhaustive()
    }
}
