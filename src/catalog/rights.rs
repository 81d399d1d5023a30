//! A resource's permissions, policies and field rules, as compiled when the application is linked.

use std::sync::Arc;

use crate::access::Operation;
use crate::access::Rule;
use crate::resource::Right;

/// The compiled permissions of one resource.
#[derive(Debug)]
pub(crate) struct Rights {
    /// In the order of [`Operation::ALL`]; each rule includes every policy of the resource for its operation.
    pub(crate) operations: Vec<Rule>,
    /// In the order of the definition's actions.
    pub(crate) actions: Vec<Rule>,
    pub(crate) history: Rule,
    pub(crate) deleted: Rule,
    pub(crate) fields: Vec<FieldRights>,
}

/// The compiled rules of one field. What no rule restricts is allowed.
#[derive(Clone, Debug)]
pub(crate) struct FieldRights {
    pub(crate) field: usize,
    pub(crate) read: Option<Rule>,
    pub(crate) write: Option<Rule>,
    /// The callers for whom the field shows this JSON instead of its value.
    pub(crate) redact: Option<(Rule, Arc<str>)>,
}

impl Rights {
    pub(crate) fn of(&self, right: Right) -> &Rule {
        match right {
            Right::Operation(operation) => {
                let position = Operation::ALL.iter().position(|known| *known == operation);
                &self.operations[position.expect("ALL holds every operation")]
            }
            Right::Action(acted) => &self.actions[acted.position],
            Right::History => &self.history,
            Right::Deleted => &self.deleted,
        }
    }
}
