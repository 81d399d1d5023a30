//! Hooks: application code that runs before, after or around changes.

use std::any::TypeId;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use futures::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Change;
use crate::access::CheckError;
use crate::access::Operation;
use crate::error::Error;

/// Application code that runs before, after or around changes, on one resource
/// ([`ResourceBuilder::hook`](crate::ResourceBuilder::hook)) or on all of them
/// ([`AppBuilder::hook`](crate::AppBuilder::hook)). The application's hooks run first, and all hooks in the order of
/// their declaration.
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
    /// Runs before a change is made, after its permission was checked: the hook may refuse the change with a problem of
    /// its own, set fields of the item, read other items ([`Change::read`]), and enlist changes of them into the same
    /// commit ([`Change::create`] and similar methods). The result is checked as the body was: permissions on the row
    /// as it will be, the model's rules, the database's constraints. The hook runs again after a conflict with a
    /// concurrent change.
    ///
    /// # Errors
    /// The error to respond with; nothing is changed then.
    fn before<'a>(&'a self, change: &'a mut Change) -> BoxFuture<'a, Result<(), Error>> {
        let _ = change;
        Box::pin(std::future::ready(Ok(())))
    }

    /// Runs around a whole operation, its other hooks included: the hook continues the operation by running `next`, or
    /// refuses it with an error. The items are not read yet. A PUT is passed as a replacement, and if it creates an
    /// item, as a create too.
    ///
    /// ```
    /// use resourceful::{Change, Error, Hook};
    /// use resourceful::resource::Next;
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
    /// The error to respond with, if nothing was committed. A commit is not undone: an error after it is only logged.
    fn around<'a>(&'a self, change: &'a Change, next: Next<'a>) -> BoxFuture<'a, Result<(), Error>> {
        let _ = change;
        next.0
    }

    /// Runs after a change was committed. The response waits for it until shortly before the request's deadline; the
    /// hook itself runs to completion, whether or not the client is still connected. It runs at most once: not at all
    /// if the process ends in between.
    ///
    /// # Errors
    /// Errors are only logged: the commit stands, and the response is that of a success.
    fn after<'a>(&'a self, change: &'a Change) -> BoxFuture<'a, Result<(), CheckError>> {
        let _ = change;
        Box::pin(std::future::ready(Ok(())))
    }
}

/// The continuation of an operation, for a hook [around](Hook::around) it.
#[must_use = "an operation does nothing until it is run"]
pub struct Next<'a>(pub(crate) BoxFuture<'a, Result<(), Error>>);

impl Next<'_> {
    /// Continues the operation.
    ///
    /// # Errors
    /// The error to respond with; pass it on.
    pub async fn run(self) -> Result<(), Error> {
        self.0.await
    }
}

impl fmt::Debug for Next<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Next")
    }
}

/// A declared hook with the operations that it applies to.
#[derive(Clone)]
pub(crate) struct RegisteredHook {
    pub(crate) hook: Arc<dyn Hook>,
    pub(crate) operations: Vec<Operation>,
    /// The model type that it reads the item as, if any.
    pub(crate) model: Option<(TypeId, &'static str)>,
    /// Whether it runs after all hooks without this flag.
    pub(crate) is_last: bool,
}

impl RegisteredHook {
    pub(crate) fn for_all(hook: impl Hook) -> Self {
        Self { hook: Arc::new(hook), operations: Operation::ALL.to_vec(), model: None, is_last: false }
    }

    pub(crate) fn typed<M: 'static>(
        operations: impl IntoIterator<Item = Operation>,
        hook: impl Hook,
    ) -> Self {
        let model = Some((TypeId::of::<M>(), std::any::type_name::<M>()));
        Self { hook: Arc::new(hook), operations: operations.into_iter().collect(), model, is_last: false }
    }

    /// Whether it applies to an operation. Hooks of updates apply to replacements too; otherwise a PUT would bypass
    /// them.
    pub(crate) fn applies_to(&self, operation: Operation) -> bool {
        self.operations.contains(&operation)
            || operation == Operation::Replace && self.operations.contains(&Operation::Update)
    }
}

impl fmt::Debug for RegisteredHook {
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
        let outcome = change.with_model(|model, change| (self.0)(model, change));
        Box::pin(std::future::ready(outcome))
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
        let future = change.model::<M>().map(|model| (self.0)(model, change.clone()));
        Box::pin(async move { future?.await })
    }
}
