//! The declaration of a resource: derived, verified, frozen.

mod action;
mod audit_trail;
mod bodies;
mod builder;
mod bulk;
mod change;
mod codec;
mod definition;
mod derive;
mod hook;
mod idempotency;
mod operation;
mod preset;
mod relation;
mod right;
mod soft_delete;
mod states;
mod tree;
pub(crate) mod validate;
mod verify;

pub use action::{Action, ActionHandler, NoInput};
pub use audit_trail::AuditTrail;
pub use builder::{ResourceBuilder, define_dynamic_resource, define_resource};
pub use bulk::Bulk;
pub use change::Change;
pub use definition::{Fill, Id, Resource};
pub use hook::{Hook, Next};
pub use idempotency::Idempotency;
pub use operation::Operation;
pub use preset::Preset;
pub use relation::{Relation, belongs_to, has_many};
pub use soft_delete::SoftDelete;
pub use states::StateMachine;
pub use tree::Tree;
pub use verify::{DefinitionErrors, DefinitionFault};

pub(crate) use action::{Target, faults as input_faults};
pub(crate) use audit_trail::RevertTo;
pub(crate) use bodies::{Bodies, is_internal};
pub(crate) use change::{Enlisted, EnlistedWrite, Surroundings};
pub(crate) use codec::pointer_of;
pub(crate) use definition::{DeclaredAction, Definition};
pub(crate) use hook::Placed as PlacedHook;
pub(crate) use right::{Acted, Right};
pub(crate) use tree::Planted;
pub(crate) use verify::Faults;
