//! Definitions: verified, immutable resource declarations.

use std::fmt;
use std::sync::Arc;

use resourceful_contract::{Schema, Table};

use super::model_codec::Codec;
use super::{
    Action, AuditTrail, BodySchemas, Bulk, Cache, Idempotency, ListParameter, PlacedHook, Relation, Right,
    ScheduledWork, SoftDelete, Target, TreeParent,
};
use crate::access::Operation;
use crate::access::{Permission, Permissions, all_of, nobody};

/// A verified resource, to be added to an application. Cloning it is cheap.
#[derive(Clone)]
pub struct Resource(pub(crate) Arc<Definition>);

impl Resource {
    /// The resource's name, which is also its path.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.schema.name
    }

    /// The storage schema of its items.
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

/// Which side generates the id of a new item.
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

/// A permission that some operations require in addition to their own.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    pub(crate) operations: Vec<Operation>,
    pub(crate) permission: Permission,
}

/// The access rules of one field.
#[derive(Clone, Debug)]
pub(crate) struct FieldRule {
    pub(crate) field: usize,
    pub(crate) visible_to: Option<Permission>,
    pub(crate) writable_by: Option<Permission>,
    pub(crate) redacted_for: Option<(Permission, serde_json::Value)>,
}

/// The attribute of the creating actor that a field is set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fill {
    /// The creator's id.
    Actor,
    /// The creator's tenant.
    Tenant,
}

/// An action with its name.
#[derive(Debug)]
pub(crate) struct DeclaredAction {
    pub(crate) name: String,
    pub(crate) action: Action,
    /// The validator of its input.
    pub(crate) input_validator: jsonschema::Validator,
}

impl DeclaredAction {
    /// The suffix of its event type, after the resource's name.
    pub(crate) fn event(&self) -> &str {
        self.action.event.as_deref().unwrap_or(&self.name)
    }
}

/// A verified, immutable resource declaration.
#[derive(Debug)]
pub(crate) struct Definition {
    pub(crate) schema: Arc<Schema>,
    pub(crate) table: Table,
    pub(crate) permissions: Permissions,
    pub(crate) policies: Vec<Policy>,
    pub(crate) field_rules: Vec<FieldRule>,
    /// Fields that are set from the creating actor.
    pub(crate) fills: Vec<(usize, Fill)>,
    /// The field that scopes unique fields: values are unique only among items that have the same value here.
    pub(crate) unique_within: Option<usize>,
    /// Hooks, in the order in which they run.
    pub(crate) hooks: Vec<PlacedHook>,
    /// The actions of the resource.
    pub(crate) actions: Vec<DeclaredAction>,
    /// Whether each change writes an event to the outbox.
    pub(crate) events: bool,
    /// Whether clients may subscribe to the events.
    pub(crate) streams: bool,
    pub(crate) presence: bool,
    /// The settings of the audit trail.
    pub(crate) audit: Option<AuditTrail>,
    /// The settings of idempotency keys.
    pub(crate) idempotency: Option<Idempotency>,
    /// The field that holds the time of deletion, with soft delete.
    pub(crate) deleted_at: Option<usize>,
    pub(crate) list_parameters: Vec<ListParameter>,
    pub(crate) scheduled: Vec<ScheduledWork>,
    pub(crate) soft_delete: Option<SoftDelete>,
    pub(crate) bulk: Option<Bulk>,
    pub(crate) tree: Option<TreeParent>,
    pub(crate) codec: Codec,
    pub(crate) bodies: BodySchemas,
    pub(crate) id: Id,
    /// For each field, the maximum size in bytes that an index accepts.
    pub(crate) max_bytes: Vec<Option<usize>>,
    /// For each field, whether lists can be filtered by it.
    pub(crate) filterable: Vec<bool>,
    /// For each field, whether lists can be sorted by it.
    pub(crate) sortable: Vec<bool>,
    pub(crate) searchable: Vec<usize>,
    /// The fields that responses contain unless a request selects fewer.
    pub(crate) visible: Vec<usize>,
    /// The fields of the model, visible or not.
    pub(crate) model_fields: Vec<usize>,
    pub(crate) created_at: Option<usize>,
    pub(crate) updated_at: Option<usize>,
    pub(crate) relations: Vec<Relation>,
    pub(crate) default_limit: u32,
    pub(crate) max_limit: u32,
    pub(crate) offset_paging: bool,
    pub(crate) require_if_match: bool,
    /// The cache settings of its responses.
    pub(crate) cache: Option<Cache>,
    pub(crate) cache_control: http::HeaderValue,
    pub(crate) description: Option<String>,
    /// The model's name, for the OpenAPI document.
    pub(crate) title: String,
    /// The singular noun for an item, for the OpenAPI document.
    pub(crate) singular: String,
    /// Keywords that the OpenAPI document adds to the schema of a field in bodies.
    pub(crate) extra_keywords: Vec<(&'static str, serde_json::Value)>,
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

    /// The permission of a right.
    pub(crate) fn right_permission(&self, right: Right) -> Permission {
        match right {
            Right::Operation(operation) => self.permission(operation).clone(),
            Right::Action(action_ref) => self.actions[action_ref.position].action.permission.clone(),
            Right::History => self.audit.as_ref().map_or_else(nobody, super::audit_trail::AuditTrail::reader),
            Right::Deleted => match &self.soft_delete {
                Some(SoftDelete { read_deleted: Some(permission), .. }) => permission.clone(),
                Some(_) => self.permission(Operation::Delete).clone(),
                None => nobody(),
            },
        }
    }

    /// The permission of a right, combined with every policy that applies to it.
    pub(crate) fn effective_permission(&self, right: impl Into<Right>) -> Permission {
        let right = right.into();
        let policies =
            self.policies.iter().filter(|policy| policy.operations.contains(&right.base_operation()));
        let mut all = vec![self.right_permission(right)];
        all.extend(policies.map(|policy| policy.permission.clone()));
        match <[Permission; 1]>::try_from(all) {
            Ok([only]) => only,
            Err(all) => all_of(all),
        }
    }

    /// The permission that callers of an operation must pass: that of the operation and, except for creates, that to
    /// read, because items that a caller cannot see can be neither listed nor changed.
    pub(crate) fn required_permission(&self, right: impl Into<Right>) -> Permission {
        let right = right.into();
        let (permission, read) =
            (self.effective_permission(right), self.effective_permission(Operation::Read));
        if right.base_operation() == Operation::Create || permission == read {
            permission
        } else {
            all_of([permission, read])
        }
    }

    /// Whether an item with this id would be unreachable, because the collection has a path of its own there.
    pub(crate) fn is_reserved(&self, id: &str) -> bool {
        let on_collection = |declared: &&DeclaredAction| declared.action.target == Target::Collection;
        id == "query"
            || id == "bulk" && self.bulk.is_some()
            || id == "stream" && self.has_streams()
            || self.actions.iter().filter(on_collection).any(|declared| declared.name == id)
    }

    /// Whether clients can subscribe to its changes, or join its presence rooms.
    pub(crate) const fn is_live(&self) -> bool {
        self.has_streams() || self.presence
    }

    /// Whether clients can subscribe to its changes as they happen.
    pub(crate) const fn has_streams(&self) -> bool {
        self.events && self.streams
    }

    /// The suffixes of its event types.
    pub(crate) fn event_suffixes(&self) -> impl Iterator<Item = &str> {
        let deletion_events = ["restored", "purged"].into_iter().filter(|_| self.deleted_at.is_some());
        let actions = self.actions.iter().map(DeclaredAction::event);
        ["created", "updated", "deleted"].into_iter().chain(deletion_events).chain(actions)
    }

    /// Whether one of its own event types has this suffix.
    pub(crate) fn has_event(&self, event: &str) -> bool {
        self.event_suffixes().any(|suffix| suffix == event)
    }

    /// Whether its changes write rows to the library's own tables, if only to that of locks.
    pub(crate) const fn needs_library_tables(&self) -> bool {
        self.events || self.audit.is_some() || self.idempotency.is_some() || self.has_app_code()
    }

    /// Whether application code runs in its changes: hooks, actions or scheduled work.
    pub(crate) const fn has_app_code(&self) -> bool {
        !self.hooks.is_empty() || !self.actions.is_empty() || !self.scheduled.is_empty()
    }

    /// Whether clients assign the ids of new items, and PUT may create.
    pub(crate) fn has_client_ids(&self) -> bool {
        self.id == Id::Client
    }
}
