//! Work of the application that runs at an interval.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use super::Change;
use crate::error::Error;

/// Work that runs at an interval, once for all nodes of the application: the handler reads rows and enlists changes, which are
/// committed atomically together with the record that the work was done. So it neither runs twice nor is it lost when a node
/// ends.
///
/// The background work of [`App::serve`](crate::App::serve) looks each minute for work that is due, and
/// [`App::sweep`](crate::App::sweep) at once. Work that fails is logged, and runs again a minute later.
///
/// ```
/// use futures::future::BoxFuture;
/// use resourceful::prelude::*;
/// use resourceful::resource::{Change, ScheduledHandler, ScheduledWork};
/// use resourceful::Error;
///
/// #[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
/// struct Offer { id: Uuid, text: String, ends_at: DateTime<Utc> }
///
/// /// Removes offers that have ended, a hundred at a time.
/// struct RemoveEnded;
///
/// impl ScheduledHandler for RemoveEnded {
///     fn run<'a>(&'a self, change: &'a mut Change) -> BoxFuture<'a, Result<(), Error>> {
///         Box::pin(async move {
///             let ended = serde_json::json!({"ends_at": {"lt": Utc::now()}});
///             for offer in change.list("offers", ended, 100).await? {
///                 change.delete("offers", offer["id"].as_str().unwrap_or_default());
///             }
///             Ok(())
///         })
///     }
/// }
///
/// let offers = define_resource::<Offer>("offers")
///     .adapter(Memory::new().table("offers"))
///     .permissions(Permissions::read(anyone()).write(role("editor")))
///     .filterable(["ends_at"])
///     .scheduled(ScheduledWork::every(Duration::from_secs(3600), "remove_ended", RemoveEnded))
///     .build()?;
/// # let _ = offers; Ok::<(), DefinitionErrors>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct ScheduledWork {
    pub(crate) name: String,
    pub(crate) interval: Duration,
    pub(crate) handler: Arc<dyn ScheduledHandler>,
}

/// The handler of [`ScheduledWork`].
pub trait ScheduledHandler: Send + Sync + 'static {
    /// Does the work: reads rows as the application, and enlists changes ([`Change::create`] and similar methods). The change
    /// itself has no item and no actor.
    ///
    /// # Errors
    /// Where the work cannot be done now; nothing is committed.
    fn run<'a>(&'a self, change: &'a mut Change) -> BoxFuture<'a, Result<(), Error>>;
}

impl ScheduledWork {
    /// Work with a name of its own within the resource. The interval is at least a minute.
    pub fn every(interval: Duration, name: impl Into<String>, handler: impl ScheduledHandler) -> Self {
        Self {
            name: name.into(),
            interval: interval.max(Duration::from_secs(60)),
            handler: Arc::new(handler),
        }
    }
}

impl fmt::Debug for ScheduledWork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScheduledWork")
            .field("name", &self.name)
            .field("interval", &self.interval)
            .finish_non_exhaustive()
    }
}
