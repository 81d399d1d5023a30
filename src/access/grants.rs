//! Grants: permissions that change while the application runs. They are read from where they are stored, cached, and
//! invalidated on every node.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use futures::future::BoxFuture;
use moka::future::Cache;
use resourceful_contract::{Bus, BusEvent, Listener, StorageError};
use serde_json::{Value as Json, json};
use tokio::task::{AbortHandle, JoinHandle};

use super::check::CheckError;
use super::operation::Operation;
use super::{Actor, CheckRequest, Decision, Permission, check};
use crate::error::Error;

/// The maximum number of actors whose grants are cached.
const MAX_CACHED_ACTORS: u64 = 10_000;
/// The bus channel for invalidations between nodes.
const CHANNEL: &str = "grants";
/// How long a node that lost the bus waits before it listens again.
const RECONNECT_DELAY: Duration = Duration::from_millis(250);

/// A grant: operations on a resource, on all of its rows or on some.
///
/// ```
/// use resourceful::Operation;
/// use resourceful::access::Grant;
///
/// let all = Grant::to("orders", [Operation::List, Operation::Read]);
/// let some = Grant::to("orders", [Operation::Update]).rows(serde_json::json!({"status": "open"}));
/// # let _ = (all, some);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Grant {
    resource: String,
    operations: Vec<Operation>,
    rows: Option<Json>,
}

impl Grant {
    /// These operations on every row of a resource.
    #[must_use]
    pub fn to(resource: impl Into<String>, operations: impl IntoIterator<Item = Operation>) -> Self {
        Self { resource: resource.into(), operations: operations.into_iter().collect(), rows: None }
    }

    /// The same on the rows that match this filter alone: the same tree as in a query's body, over any field of the
    /// stored row. A filter that does not fit the resource denies.
    #[must_use]
    pub fn rows(mut self, filter: Json) -> Self {
        self.rows = Some(filter);
        self
    }
}

type LoadFn = dyn Fn(Actor) -> BoxFuture<'static, Result<Vec<Grant>, CheckError>> + Send + Sync;

/// Permissions that are stored where they can be changed while the application runs, such as a table of roles. Cloning is
/// cheap, and clones share the cache.
///
/// An actor's grants are cached for a minute by default. After a change call [`invalidate`](Self::invalidate): the next
/// request of any actor reads the grants again, on this node at once and on the others as soon as they receive the
/// message on the bus ([`AppBuilder::bus`](crate::AppBuilder::bus)). A node that lost the bus caches nothing until it is
/// back. Where grants cannot be read, access is denied, and the failure is not cached.
///
/// ```
/// use resourceful::prelude::*;
/// use resourceful::access::{Grant, Grants};
///
/// # #[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
/// # struct Order { id: Uuid, status: String }
/// let grants = Grants::new(async |actor| {
///     // … read the actor's rows of a table.
///     Ok(match actor.id() {
///         Some("ada") => vec![Grant::to("orders", Operation::ALL)],
///         _ => Vec::new(),
///     })
/// });
/// let orders = define_resource::<Order>("orders")
///     .adapter(Memory::new().table("orders"))
///     .permissions(Permissions::all(grants.permission()))
///     .build()?;
/// let app = create_app(AppPreset::Testing).grants(&grants).resource(orders);
/// # let _ = app; Ok::<(), DefinitionErrors>(())
/// ```
#[derive(Clone)]
pub struct Grants(Arc<GrantsState>);

struct GrantsState {
    load: Arc<LoadFn>,
    /// Keyed by the generation in which they were read: grants that were read before an invalidation are not found after
    /// it, even where the read ends later.
    cache: Cache<(u64, Actor), Arc<[Grant]>>,
    generation: AtomicU64,
    /// Whether there is a bus and it is unreachable: other nodes may have changed what this node has cached.
    is_disconnected: AtomicBool,
    bus: OnceLock<Arc<dyn Bus>>,
    /// Watchers that are notified when permissions may have changed.
    watchers: Mutex<Vec<Weak<dyn GrantsWatcher>>>,
}

/// A watcher that is notified when all cached grants are invalidated.
pub(crate) trait GrantsWatcher: std::fmt::Debug + Send + Sync {
    fn rights_changed(&self);
}

impl Grants {
    /// Grants that this function reads for an actor, an anonymous one as well.
    #[must_use]
    pub fn new<F, T>(load: F) -> Self
    where
        F: Fn(Actor) -> T + Send + Sync + 'static,
        T: Future<Output = Result<Vec<Grant>, CheckError>> + Send + 'static,
    {
        Self::with_ttl(Arc::new(move |actor| Box::pin(load(actor))), Duration::from_secs(60))
    }

    /// How long an actor's grants are cached; a minute by default.
    #[must_use]
    pub fn fresh(self, fresh: Duration) -> Self {
        Self::with_ttl(self.0.load.clone(), fresh)
    }

    fn with_ttl(load: Arc<LoadFn>, fresh: Duration) -> Self {
        Self(Arc::new(GrantsState {
            load,
            cache: Cache::builder().max_capacity(MAX_CACHED_ACTORS).time_to_live(fresh).build(),
            generation: AtomicU64::new(0),
            is_disconnected: AtomicBool::new(false),
            bus: OnceLock::new(),
            watchers: Mutex::default(),
        }))
    }

    /// The permission that the grants give for the requested resource and operation: one permission serves all of them.
    #[must_use]
    pub fn permission(&self) -> Permission {
        let grants = self.clone();
        check("grants", move |request| {
            let grants = grants.clone();
            async move { Ok(decision(&grants.of(&request.actor).await?, &request)) }
        })
    }

    /// Invalidates all cached grants, on this node at once and on the others through the bus.
    ///
    /// # Errors
    /// Where the bus does not accept the message: the other nodes then use their cached grants until these expire.
    pub async fn invalidate(&self) -> Result<(), Error> {
        self.0.invalidate_cached();
        match self.0.bus.get() {
            Some(bus) => Ok(bus.publish(CHANNEL, Vec::new()).await?),
            None => Ok(()),
        }
    }

    async fn of(&self, actor: &Actor) -> Result<Arc<[Grant]>, CheckError> {
        let loaded = async { (self.0.load)(actor.clone()).await.map(Arc::from) };
        if self.0.is_disconnected.load(Ordering::Acquire) {
            return loaded.await;
        }
        let key = (self.0.generation.load(Ordering::Acquire), actor.clone());
        self.0.cache.try_get_with(key, loaded).await.map_err(|error| error.to_string().into())
    }

    /// Registers a watcher that is notified of every invalidation, for as long as it exists.
    pub(crate) fn add_watcher(&self, watchers: Weak<dyn GrantsWatcher>) {
        self.0.watchers.lock().unwrap_or_else(PoisonError::into_inner).push(watchers);
    }

    /// Listens for invalidations by other nodes, for as long as the returned handle is held.
    ///
    /// # Errors
    /// Where the bus cannot be listened to.
    pub(crate) async fn subscribe(&self, bus: &Arc<dyn Bus>) -> Result<AbortOnDrop, StorageError> {
        let listener = bus.listen(CHANNEL).await?;
        // Grants that are added to two applications publish on the bus of the first.
        let _ = self.0.bus.set(bus.clone());
        self.0.invalidate_cached();
        Ok(AbortOnDrop::new(&tokio::spawn(listen(self.0.clone(), listener))))
    }
}

impl GrantsState {
    fn invalidate_cached(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.cache.invalidate_all();
        let mut watchers = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        watchers.retain(|one| one.upgrade().map(|one| one.rights_changed()).is_some());
    }
}

/// A task that is aborted when this handle is dropped.
#[derive(Debug)]
pub(crate) struct AbortOnDrop(AbortHandle);

impl AbortOnDrop {
    pub(crate) fn new<T>(task: &JoinHandle<T>) -> Self {
        Self(task.abort_handle())
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn listen(state: Arc<GrantsState>, mut listener: Box<dyn Listener>) {
    loop {
        match listener.recv().await {
            Ok(BusEvent::Message(_) | BusEvent::Missed | BusEvent::Back) => {
                state.invalidate_cached();
                state.is_disconnected.store(false, Ordering::Release);
            }
            Err(error) => {
                if !state.is_disconnected.swap(true, Ordering::AcqRel) {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "the bus is unavailable: grants are not cached until it is back"
                    );
                }
                tokio::time::sleep(RECONNECT_DELAY).await;
            }
        }
    }
}

/// The decision that grants give on one request.
fn decision(grants: &[Grant], request: &CheckRequest) -> Decision {
    let fits =
        |grant: &&Grant| grant.resource == *request.resource && grant.operations.contains(&request.operation);
    let mut filters = Vec::new();
    for grant in grants.iter().filter(fits) {
        match &grant.rows {
            None => return Decision::allow(),
            Some(filter) => filters.push(filter),
        }
    }
    if filters.is_empty() {
        Decision::deny("nothing is granted")
    } else {
        Decision::allow_where(json!({"or": filters}))
    }
}

impl fmt::Debug for Grants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grants").field("remembered", &self.0.cache.entry_count()).finish_non_exhaustive()
    }
}
