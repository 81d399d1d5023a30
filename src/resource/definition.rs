//! A declaration, verified and frozen: plain values that everything else reads.

use std::fmt;
use std::sync::Arc;

use resourceful_contract::{Schema, Table};

use super::codec::Codec;
use super::{
    Action, AuditTrail, Bodies, Bulk, Cache, Idempotency, Operation, PlacedHook, Relation, Right, SoftDelete,
    Target, TreeParent,
};
use crate::access::{Permission, Permissions, all_of, nobody};

/// A resource, ready to be part of an application. Cloning it is cheap.
#[derive(Clone)]
pub struct Resource(pub(crate) Arc<Definition>);

impl Resource {
    /// The resource's name, which is also its path.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.schema.name
    }

    /// The stored shape of its items.
    #[must_use]
    pub fn schema(&self) -> &Arc<Schema> {
        &self.0.schema
    }
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Resource").field(&self.name()).finish()
    }
}

/// Who mints the id of a new item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Id {
    /// The server, a UUID of version 7 (RFC 9562).
    UuidV7,
    /// The database, an ascending 64-bit integer.
    Integer,
    /// The server, a UUID of version 7 as 32 hexadecimal digits of text.
    Text,
    /// The client, in the body of a POST or the path of a PUT; of any type.
    Client,
}

/// A permission that some operations need beside their own.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    pub(crate) operations: Vec<Operation>,
    pub(crate) permission: Permission,
}

/// What is declared of one field.
#[derive(Clone, Debug)]
pub(crate) struct FieldRule {
    pub(crate) field: usize,
    pub(crate) visible_to: Option<Permission>,
    pub(crate) writable_by: Option<Permission>,
    pub(crate) redacted_for: Option<(Permission, serde_json::Value)>,
}

/// What of the creator a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fill {
    /// The creator's id.
    Actor,
    /// The tenant that the creator is in.
    Tenant,
}

/// An action under its name.
#[derive(Debug)]
pub(crate) struct DeclaredAction {
    pub(crate) name: String,
    pub(crate) action: Action,
    /// Of its input.
    pub(crate) takes: jsonschema::Validator,
}

impl DeclaredAction {
    /// What its event is called after the resource's name.
    pub(crate) fn event(&self) -> &str {
        self.action.event.as_deref().unwrap_or(&self.name)
    }
}

/// The frozen declaration.
#[derive(Debug)]
pub(crate) struct Definition {
    pub(crate) schema: Arc<Schema>,
    pub(crate) table: Table,
    pub(crate) permissions: Permissions,
    pub(crate) policies: Vec<Policy>,
    pub(crate) field_rules: Vec<FieldRule>,
    /// Fields that are set from who creates the item.
    pub(crate) fills: Vec<(usize, Fill)>,
    /// The field within whose values alone unique fields are unique.
    pub(crate) unique_within: Option<usize>,
    /// What runs around changes, in this order.
    pub(crate) hooks: Vec<PlacedHook>,
    /// What can be done beside the operations.
    pub(crate) actions: Vec<DeclaredAction>,
    /// Whether each change leaves an event in the outbox.
    pub(crate) events: bool,
    /// Whether clients may follow them.
    pub(crate) streams: bool,
    pub(crate) presence: bool,
    /// What the audit trail keeps of the changes.
    pub(crate) audit: Option<AuditTrail>,
    /// Whether changes are remembered by the key that they are asked for under.
    pub(crate) idempotency: Option<Idempotency>,
    /// The field that says since when an item is deleted, where deleted items are kept.
    pub(crate) deleted_at: Option<usize>,
    pub(crate) soft_delete: Option<SoftDelete>,
    pub(crate) bulk: Option<Bulk>,
    pub(crate) tree: Option<TreeParent>,
    pub(crate) codec: Codec,
    pub(crate) bodies: Bodies,
    pub(crate) id: Id,
    /// For each field, the most bytes that an index has room for.
    pub(crate) max_bytes: Vec<Option<usize>>,
    /// For each field, whether it may be filtered by.
    pub(crate) filterable: Vec<bool>,
    /// For each field, whether it may be sorted by.
    pub(crate) sortable: Vec<bool>,
    pub(crate) searchable: Vec<usize>,
    /// The fields that answers show unless asked for fewer.
    pub(crate) visible: Vec<usize>,
    /// The fields of the model, whether shown or not.
    pub(crate) stored: Vec<usize>,
    pub(crate) created_at: Option<usize>,
    pub(crate) updated_at: Option<usize>,
    pub(crate) relations: Vec<Relation>,
    pub(crate) default_limit: u32,
    pub(crate) max_limit: u32,
    pub(crate) offset_paging: bool,
    pub(crate) require_if_match: bool,
    /// How long its answers are remembered.
    pub(crate) cache: Option<Cache>,
    pub(crate) cache_control: http::HeaderValue,
    pub(crate) description: Option<String>,
    /// The model's name, for the OpenAPI document.
    pub(crate) title: String,
    /// What one item is called, for the OpenAPI document.
    pub(crate) singular: String,
    /// Keywords that the OpenAPI document adds to the schema of a field in bodies.
    pub(crate) documented: Vec<(&'static str, serde_json::Value)>,
}

impl Definition {
    pub(crate) fn name(&self) -> &str {
        &self.schema.name
    }

    /// The permission of an operation.
    pub(crate) fn permission(&self, operation: Operation) -> &Permission {
        self.permissions
            .of(operation)
            .expect("a definition is only frozen when every operation has a permission")
    }

    /// The permission of anything that may be done.
    pub(crate) fn right(&self, right: Right) -> Permission {
        match right {
            Right::Of(operation) => self.permission(operation).clone(),
            Right::Action(acted) => self.actions[acted.position].action.permission.clone(),
            Right::History => self.audit.as_ref().map_or_else(nobody, |trail| trail.readable_by.clone()),
            Right::Deleted => match &self.soft_delete {
                Some(SoftDelete { read_deleted: Some(permission), .. }) => permission.clone(),
                Some(_) => self.permission(Operation::Delete).clone(),
                None => nobody(),
            },
        }
    }

    /// The permission of anything that may be done and every policy on it, as one.
    pub(crate) fn needed(&self, right: impl Into<Right>) -> Permission {
        let right = right.into();
        let policies = self.policies.iter().filter(|policy| policy.operations.contains(&right.base()));
        let mut all = vec![self.right(right)];
        all.extend(policies.map(|policy| policy.permission.clone()));
        match <[Permission; 1]>::try_from(all) {
            Ok([only]) => only,
            Err(all) => all_of(all),
        }
    }

    /// What callers of an operation must pass: what they may not see they may neither list nor change.
    pub(crate) fn passed(&self, right: impl Into<Right>) -> Permission {
        let right = right.into();
        let (own, read) = (self.needed(right), self.needed(Operation::Read));
        if right.base() == Operation::Create || own == read { own } else { all_of([own, read]) }
    }

    /// Whether an item of this id could not be reached, because the collection has a path of its own there.
    pub(crate) fn reserves(&self, id: &str) -> bool {
        let on_collection = |declared: &&DeclaredAction| declared.action.target == Target::Collection;
        id == "query"
            || id == "bulk" && self.bulk.is_some()
            || id == "stream" && self.streams()
            || self.actions.iter().filter(on_collection).any(|declared| declared.name == id)
    }

    /// Whether clients can follow its changes, or see who looks at it.
    pub(crate) const fn lives(&self) -> bool {
        self.streams() || self.presence
    }

    /// Whether clients can follow its changes as they happen.
    pub(crate) const fn streams(&self) -> bool {
        self.events && self.streams
    }

    /// What the types of its events end with.
    pub(crate) fn happenings(&self) -> impl Iterator<Item = &str> {
        let kept = ["restored", "purged"].into_iter().filter(|_| self.deleted_at.is_some());
        let actions = self.actions.iter().map(DeclaredAction::event);
        ["created", "updated", "deleted"].into_iter().chain(kept).chain(actions)
    }

    /// Whether there are events of its own whose type ends so.
    pub(crate) fn happens(&self, what: &str) -> bool {
        self.happenings().any(|happened| happened == what)
    }

    /// Whether its changes leave rows in the library's own tables: those of locks, where nothing else.
    pub(crate) const fn keeps_records(&self) -> bool {
        self.events || self.audit.is_some() || self.idempotency.is_some() || self.runs_code()
    }

    /// Whether the application's own code runs in its changes.
    pub(crate) const fn runs_code(&self) -> bool {
        !self.hooks.is_empty() || !self.actions.is_empty()
    }

    /// Whether clients give ids to new items, and PUT may create.
    pub(crate) fn client_ids(&self) -> bool {
        self.id == Id::Client
    }
}
