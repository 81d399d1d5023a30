//! Rights: what callers may do with a resource, each with its own permission.

use super::{Definition, Target};
use crate::access::Actor;
use crate::access::Operation;

/// A right of a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Right {
    /// One of the operations.
    Operation(Operation),
    /// An action that the resource declares.
    Action(ActionRef),
    /// Reading an item's history and its earlier states.
    History,
    /// Reading soft-deleted items.
    Deleted,
}

/// An action, by its position in the definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ActionRef {
    pub(crate) position: usize,
    pub(crate) target: Target,
}

impl From<Operation> for Right {
    fn from(operation: Operation) -> Self {
        Self::Operation(operation)
    }
}

impl Right {
    /// Every right on a resource.
    pub(crate) fn all(definition: &Definition) -> impl Iterator<Item = Self> {
        let actions = definition.actions.iter().enumerate();
        let actions = actions
            .map(|(position, declared)| Self::Action(ActionRef { position, target: declared.action.target }));
        let operations = Operation::ALL.into_iter().map(Self::Operation);
        let rest = [
            definition.audit.as_ref().map(|_| Self::History),
            definition.soft_delete.as_ref().map(|_| Self::Deleted),
        ];
        operations.chain(actions).chain(rest.into_iter().flatten())
    }

    /// The operation whose policies apply to this right as well.
    pub(crate) const fn base_operation(self) -> Operation {
        match self {
            Self::Operation(operation) => operation,
            Self::Action(ActionRef { target: Target::Item, .. }) => Operation::Update,
            Self::Action(ActionRef { target: Target::Collection, .. }) => Operation::Create,
            Self::History => Operation::Read,
            Self::Deleted => Operation::List,
        }
    }

    /// Whether the actor's scopes cover this right, if the actor is a client that acts on behalf of a user within
    /// scopes.
    pub(crate) fn is_covered(self, definition: &Definition, actor: &Actor) -> bool {
        let group = match self.base_operation() {
            Operation::Read | Operation::List => "read",
            _ => "write",
        };
        actor.covers(definition.name(), group, self.name(definition))
    }

    /// The right's name.
    pub(crate) fn name(self, definition: &Definition) -> &str {
        match self {
            Self::Operation(operation) => operation.name(),
            Self::Action(action_ref) => definition.actions[action_ref.position].name.as_str(),
            Self::History => "read the history of",
            Self::Deleted => "see deleted",
        }
    }
}
