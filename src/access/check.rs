//! Custom authorization checks: application code that decides whether an operation is allowed.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::Value as Json;

use super::Actor;
use super::operation::Operation;

/// The input of a check: an actor, a resource and an operation.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CheckRequest {
    /// The caller.
    pub actor: Actor,
    /// The resource's name.
    pub resource: Arc<str>,
    /// The requested operation.
    pub operation: Operation,
}

/// The result of a check.
///
/// ```
/// use resourceful::access::Decision;
///
/// let all = Decision::allow();
/// let some = Decision::allow_where(serde_json::json!({"status": "published"}));
/// let none = Decision::deny("the account is closed");
/// # let _ = (all, some, none);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Decision(pub(super) DecisionKind);

#[derive(Clone, Debug, PartialEq)]
pub(super) enum DecisionKind {
    Allow,
    Where(Json),
    Deny(Cow<'static, str>),
}

impl Decision {
    /// Allows the operation.
    #[must_use]
    pub const fn allow() -> Self {
        Self(DecisionKind::Allow)
    }

    /// Allows the operation for the rows that match this filter: the same tree as in a query's body, over any field of
    /// the stored row. A filter that does not fit the resource denies.
    #[must_use]
    pub const fn allow_where(filter: Json) -> Self {
        Self(DecisionKind::Where(filter))
    }

    /// Denies the operation, with a reason for the log and [`App::explain`](crate::App::explain), never for the caller.
    #[must_use]
    pub fn deny(reason: impl Into<Cow<'static, str>>) -> Self {
        Self(DecisionKind::Deny(reason.into()))
    }
}

/// The error of a check that failed; a failed check denies.
pub type CheckError = Box<dyn std::error::Error + Send + Sync>;

type CheckFn = dyn Fn(CheckRequest) -> BoxFuture<'static, Result<Decision, CheckError>> + Send + Sync;

/// A named check.
#[derive(Clone)]
pub(crate) struct Check {
    pub(super) name: Arc<str>,
    function: Arc<CheckFn>,
}

impl Check {
    pub(super) fn new<F, T>(name: Arc<str>, check: F) -> Self
    where
        F: Fn(CheckRequest) -> T + Send + Sync + 'static,
        T: Future<Output = Result<Decision, CheckError>> + Send + 'static,
    {
        Self { name, function: Arc::new(move |request| Box::pin(check(request))) }
    }

    /// Runs the check. An error and a panic deny.
    pub(crate) async fn run(&self, request: CheckRequest) -> Decision {
        use futures::FutureExt as _;
        let ask = self.function.clone();
        let outcome = std::panic::AssertUnwindSafe(async move { ask(request).await }).catch_unwind().await;
        let reason = match outcome {
            Ok(Ok(decision)) => return decision,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it panicked".to_owned(),
        };
        tracing::error!(check = &*self.name, error = reason, "a check failed, which denies");
        Decision::deny(format!("the check failed: {reason}"))
    }
}

#[cfg(feature = "testing")]
impl Check {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The check's own result, before failures become denials; `None` where it panics.
    pub(crate) async fn try_run(&self, request: CheckRequest) -> Option<Result<Decision, CheckError>> {
        use futures::FutureExt as _;
        let ask = self.function.clone();
        std::panic::AssertUnwindSafe(async move { ask(request).await }).catch_unwind().await.ok()
    }
}

#[cfg(feature = "testing")]
impl Decision {
    /// What the decision allows: everything, the rows that a filter matches, or nothing.
    pub(crate) const fn filter(&self) -> Option<Option<&Json>> {
        match &self.0 {
            DecisionKind::Allow => Some(None),
            DecisionKind::Where(filter) => Some(Some(filter)),
            DecisionKind::Deny(_) => None,
        }
    }
}

impl PartialEq for Check {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.function, &other.function)
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Check").field(&self.name).finish()
    }
}
