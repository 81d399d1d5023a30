//! State machines: fields that change only by declared transitions.

use std::marker::PhantomData;
use std::sync::Arc;

use futures::future::BoxFuture;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use super::action::{Action, ActionHandler, NoInput};
use super::{Change, ResourceBuilder};
use crate::access::Permission;
use crate::error::{Error, ErrorKind};

/// A state machine over a text field: bodies cannot set the field, and each transition is an action with a permission
/// and an optional guard. A transition that is not possible from an item's state is refused (409), and the error lists
/// those that are.
///
/// ```
/// use resourceful::prelude::*;
/// use resourceful::{Error, ErrorKind};
/// use resourceful::resource::StateMachine;
///
/// #[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
/// struct Order { id: Uuid, status: Status, total_cents: i64 }
///
/// #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
/// #[serde(rename_all = "snake_case")]
/// enum Status { Draft, Submitted, Paid, Cancelled }
///
/// let orders = define_resource::<Order>("orders")
///     .adapter(Memory::new().table("orders"))
///     .permissions(Permissions::all(signed_in()))
///     .states(
///         StateMachine::of("status", "draft")
///             .transition("submit", ["draft"], "submitted", signed_in())
///             .guard(|order: &Order| match order.total_cents {
///                 0 => Err(Error::new(ErrorKind::Conflict, "empty", "There is nothing in it.")),
///                 _ => Ok(()),
///             })
///             .transition("pay", ["submitted"], "paid", role("cashier"))
///             .transition("cancel", ["draft", "submitted"], "cancelled", signed_in()),
///     )
///     .build()?;
/// # let _ = orders; Ok::<(), DefinitionErrors>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct StateMachine {
    pub(crate) field: String,
    pub(crate) initial: String,
    pub(crate) transitions: Vec<Transition>,
}

/// A transition from any of some states to another.
#[derive(Clone)]
pub(crate) struct Transition {
    pub(crate) name: String,
    pub(crate) from: Vec<String>,
    pub(crate) to: String,
    permission: Permission,
    guard: Option<Arc<dyn TransitionGuard>>,
}

impl std::fmt::Debug for Transition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} from {:?} to {}", self.name, self.from, self.to)
    }
}

trait TransitionGuard: Send + Sync {
    fn check(&self, change: &Change) -> Result<(), Error>;
}

struct TypedGuard<M, F>(F, PhantomData<fn(M)>);

impl<M: DeserializeOwned, F: Fn(&M) -> Result<(), Error> + Send + Sync> TransitionGuard for TypedGuard<M, F> {
    fn check(&self, change: &Change) -> Result<(), Error> {
        (self.0)(&change.model()?)
    }
}

impl StateMachine {
    /// A state machine over a field, with the state of a new item.
    pub fn of(field: impl Into<String>, initial: impl Into<String>) -> Self {
        Self { field: field.into(), initial: initial.into(), transitions: Vec::new() }
    }

    /// Adds a transition: an action of this name that moves an item from any of these states to another.
    pub fn transition<S: Into<String>>(
        mut self,
        name: impl Into<String>,
        from: impl IntoIterator<Item = S>,
        to: impl Into<String>,
        permission: Permission,
    ) -> Self {
        let from = from.into_iter().map(Into::into).collect();
        let (name, to) = (name.into(), to.into());
        self.transitions.push(Transition { name, from, to, permission, guard: None });
        self
    }

    /// Adds a condition on the item to the last transition.
    pub fn guard<M, F>(mut self, guard: F) -> Self
    where
        M: DeserializeOwned + 'static,
        F: Fn(&M) -> Result<(), Error> + Send + Sync + 'static,
    {
        if let Some(last) = self.transitions.last_mut() {
            last.guard = Some(Arc::new(TypedGuard(guard, PhantomData)));
        }
        self
    }

    /// Declares the transitions as actions of a resource.
    pub(super) fn declare(self, mut resource: ResourceBuilder) -> ResourceBuilder {
        for transition in &self.transitions {
            let from = transition.from.join("`, `");
            let about = format!("Takes `{}` from `{from}` to `{}`.", self.field, transition.to);
            let handler = TransitionHandler { machine: self.clone(), transition: transition.clone() };
            let action = Action::handled(transition.permission.clone(), handler).description(about);
            resource = resource.action(transition.name.clone(), action);
        }
        resource
    }
}

/// The action handler of one transition.
struct TransitionHandler {
    machine: StateMachine,
    transition: Transition,
}

impl ActionHandler for TransitionHandler {
    type Input = NoInput;
    type Output = ();

    fn act<'a>(&'a self, change: &'a mut Change, _: NoInput) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(std::future::ready(self.apply(change)))
    }
}

impl TransitionHandler {
    fn apply(&self, change: &mut Change) -> Result<(), Error> {
        let field = &self.machine.field;
        let state = change.item().and_then(|item| item.get(field)).and_then(Json::as_str);
        let state = state.unwrap_or_default().to_owned();
        if !self.transition.from.contains(&state) {
            return Err(self.illegal_transition(&state));
        }
        if let Some(guard) = &self.transition.guard {
            guard.check(change)?;
        }
        if let Some(item) = change.item_mut() {
            item.insert(field.clone(), self.transition.to.as_str().into());
        }
        Ok(())
    }

    fn illegal_transition(&self, state: &str) -> Error {
        let transitions = self.machine.transitions.iter();
        let legal = transitions.filter(|transition| transition.from.iter().any(|from| from == state));
        let legal: Vec<_> = legal.map(|transition| format!("`{}`", transition.name)).collect();
        let rest = match legal.as_slice() {
            [] => "that state has no transitions".to_owned(),
            legal => format!("its transitions are {}", legal.join(", ")),
        };
        let (field, name) = (&self.machine.field, &self.transition.name);
        let detail = format!("`{name}` is no transition from {field} `{state}`: {rest}.");
        Error::new(ErrorKind::Conflict, "illegal-transition", detail)
    }
}
