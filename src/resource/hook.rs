//! What an application does around its changes.

use std::any::TypeId;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use futures::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Change, Operation};
use crate::access::CheckError;
use crate::error::Error;

/// What an application does around changes, on one resource ([`ResourceBuilder::hook`](crate::ResourceBuilder::hook))
/// or on all of them ([`AppBuilder::hook`](crate::AppBuilder::hook)). Those of the application come first, and all of
/// them in the order in which they were given.
///
/// ```
/// use resourceful::prelude::*;
/// use resourceful::{Change, Error, ErrorKind, Hook};
///
/// struct OfficeHours;
///
/// impl Hook for OfficeHours {
///     fn before<'a>(&'a self, change: &'a mut Change) -> futures::future::BoxFuture<'a, Result<(), Error>> {
///         Box::pin(async move {
///             let is_open = true; // ask whatever is to be asked
///             if is_open || change.actor().has_role("admin") {
///                 return Ok(());
///             }
///             Err(Error::new(ErrorKind::Conflict, "closed", "Come back in the morning."))
///         })
///     }
/// }
///
/// let app = create_app(AppPreset::Testing).hook(OfficeHours);
/// # let _ = app;
/// ```
pub trait Hook: Send + Sync + 'static {
    /// Before a change is made, and after it was permitted: it may refuse it, with a problem of its own, set fields of
    /// the item, read other items ([`Change::read`]), and enlist changes of them into the same commit ([`Change::create`]
    /// and its like). What comes out is checked as the body was: permissions on the row as it will be, the model's rules,
    /// the database's. It runs again where another change came between.
    ///
    /// # Errors
    /// Whatever the caller is to be answered; nothing is changed then.
    fn before<'a>(&'a self, change: &'a mut Change) -> BoxFuture<'a, Result<(), Error>> {
        let _ = change;
        Box::pin(std::future::ready(Ok(())))
    }

    /// Around a whole operation, its other hooks included: it lets it happen by running `next`, or refuses it by an error
    /// instead. The items are not read yet. A PUT is surrounded as a replacement, and where it creates as a create too.
    ///
    /// ```
    /// use resourceful::{Change, Error, Hook, Next};
    ///
    /// struct Timed;
    ///
    /// impl Hook for Timed {
    ///     fn around<'a>(
    ///         &'a self,
    ///         change: &'a Change,
    ///         next: Next<'a>,
    ///     ) -> futures::future::BoxFuture<'a, Result<(), Error>> {
    ///         Box::pin(async move {
    ///             let began = std::time::Instant::now();
    ///             let outcome = next.run().await;
    ///             println!("{} {}: {:?}", change.operation().name(), change.resource(), began.elapsed());
    ///             outcome
    ///         })
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// Whatever the caller is to be answered, where nothing happened. What was committed stays so, and an error after it
    /// is for the log.
    fn around<'a>(&'a self, change: &'a Change, next: Next<'a>) -> BoxFuture<'a, Result<(), Error>> {
        let _ = change;
        next.0
    }

    /// After a change was committed. The answer waits for it until shortly before the request's deadline; the hook itself
    /// runs to its end, whether or not the client still waits. It runs at most once: not where the process ends in
    /// between.
    ///
    /// # Errors
    /// For the log: what was committed stays so, and the caller is answered as if nothing had failed.
    fn after<'a>(&'a self, change: &'a Change) -> BoxFuture<'a, Result<(), CheckError>> {
        let _ = change;
        Box::pin(std::future::ready(Ok(())))
    }
}

/// The rest of an operation, for a hook [around](Hook::around) it.
#[must_use = "an operation that nobody runs does not happen"]
pub struct Next<'a>(pub(crate) BoxFuture<'a, Result<(), Error>>);

impl Next<'_> {
    /// Lets the operation happen.
    ///
    /// # Errors
    /// What the caller is to be answered; pass it on.
    pub async fn run(self) -> Result<(), Error> {
        self.0.await
    }
}

impl fmt::Debug for Next<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Next")
    }
}

/// A hook, and the operations that it is for.
#[derive(Clone)]
pub(crate) struct Placed {
    pub(crate) hook: Arc<dyn Hook>,
    pub(crate) operations: Vec<Operation>,
    /// The type that it reads the item as, where it has one.
    pub(crate) model: Option<(TypeId, &'static str)>,
    /// Whether it comes after all those that are not.
    pub(crate) last: bool,
}

impl Placed {
    pub(crate) fn everywhere(hook: impl Hook) -> Self {
        Self { hook: Arc::new(hook), operations: Operation::ALL.to_vec(), model: None, last: false }
    }

    pub(crate) fn typed<M: 'static>(
        operations: impl IntoIterator<Item = Operation>,
        hook: impl Hook,
    ) -> Self {
        let model = Some((TypeId::of::<M>(), std::any::type_name::<M>()));
        Self { hook: Arc::new(hook), operations: operations.into_iter().collect(), model, last: false }
    }

    /// Whether it is for an operation. What is said of updates holds for replacements, or a PUT would pass by it.
    pub(crate) fn is_for(&self, operation: Operation) -> bool {
        self.operations.contains(&operation)
            || operation == Operation::Replace && self.operations.contains(&Operation::Update)
    }
}

impl fmt::Debug for Placed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hook").field("operations", &self.operations).finish_non_exhaustive()
    }
}

/// A function that runs before changes.
pub(crate) struct Before<M, F>(pub(crate) F, pub(crate) PhantomData<fn(M)>);

impl<M, F> Hook for Before<M, F>
where
    M: Serialize + DeserializeOwned + 'static,
    F: Fn(&mut M, &mut Change) -> Result<(), Error> + Send + Sync + 'static,
{
    fn before<'a>(&'a self, change: &'a mut Change) -> BoxFuture<'a, Result<(), Error>> {
        let ran = change.with_model(|model, change| (self.0)(model, change));
        Box::pin(std::future::ready(ran))
    }
}

/// A function that runs after changes.
pub(crate) struct After<M, F>(pub(crate) F, pub(crate) PhantomData<fn(M)>);

impl<M, F, T> Hook for After<M, F>
where
    M: DeserializeOwned + 'static,
    F: Fn(M, Change) -> T + Send + Sync + 'static,
    T: Future<Output = Result<(), CheckError>> + Send + 'static,
{
    fn after<'a>(&'a self, change: &'a Change) -> BoxFuture<'a, Result<(), CheckError>> {
        let called = change.model::<M>().map(|model| (self.0)(model, change.clone()));
        Box::pin(async move { called?.await })
    }
}
