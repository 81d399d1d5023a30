//! The builder of resource declarations.

use std::marker::PhantomData;
use std::sync::Arc;

use resourceful_contract::Table;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use validator::Validate;

use super::codec::Codec;
use super::definition::{Fill, Policy};
use super::hook::{After, Before};
use super::{
    Action, AuditTrail, Bulk, Cache, Change, DefinitionErrors, Hook, Id, Idempotency, ListParameter,
    PlacedHook, Preset, Relation, Resource, ScheduledWork, SoftDelete, StateMachine, Target, Tree,
    belongs_to, derive, has_many,
};
use crate::access::Operation;
use crate::access::{CheckError, Permission, Permissions};
use crate::error::Error;

/// Declares a resource whose items are values of `M`, under this name and path.
///
/// The model defines the shape of a stored item; its serde, schemars and validator attributes apply on every path.
/// Everything else has a default, except two mandatory settings: the adapter that stores the items and the permissions.
///
/// ```
/// use resourceful::prelude::*;
///
/// #[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
/// struct Note {
///     id: Uuid,
///     #[validate(length(min = 1, max = 200))]
///     text: String,
/// }
///
/// let notes = define_resource::<Note>("notes")
///     .adapter(Memory::new().table("notes"))
///     .permissions(Permissions::read(anyone()).write(signed_in()))
///     .build()?;
/// assert_eq!(notes.name(), "notes");
/// # Ok::<(), DefinitionErrors>(())
/// ```
pub fn define_resource<M>(name: impl Into<String>) -> ResourceBuilder
where
    M: Serialize + DeserializeOwned + JsonSchema + Validate + 'static,
{
    let schema = schemars::SchemaGenerator::default().into_root_schema_for::<M>();
    ResourceBuilder::new(name.into(), schema.to_value(), Codec::of::<M>())
}

/// Declares a resource whose items are described by a JSON Schema (2020-12) object instead of a Rust type: same engine,
/// same routes.
///
/// ```
/// use resourceful::prelude::*;
///
/// let notes = define_dynamic_resource("notes", serde_json::json!({
///     "type": "object",
///     "properties": {
///         "id": {"type": "string", "format": "uuid"},
///         "text": {"type": "string", "minLength": 1, "maxLength": 200},
///     },
///     "required": ["id", "text"],
/// }))
/// .adapter(Memory::new().table("notes"))
/// .permissions(Permissions::all(anyone()))
/// .build()?;
/// # let _ = notes;
/// # Ok::<(), DefinitionErrors>(())
/// ```
pub fn define_dynamic_resource(name: impl Into<String>, json_schema: Json) -> ResourceBuilder {
    ResourceBuilder::new(name.into(), json_schema, Codec::dynamic())
}

/// Builder of a resource declaration. [`build`](Self::build) verifies it and reports every fault at once.
#[derive(Debug)]
#[must_use]
pub struct ResourceBuilder {
    pub(super) name: String,
    pub(super) json_schema: Json,
    pub(super) codec: Codec,
    pub(super) table: Option<Table>,
    pub(super) permissions: Option<Permissions>,
    pub(super) policies: Vec<Policy>,
    pub(super) hooks: Vec<PlacedHook>,
    pub(super) actions: Vec<(String, Action)>,
    pub(super) state_machines: Vec<StateMachine>,
    /// Claimed paths and fields, each with its claimant: two claims of the same one are a fault.
    pub(super) claims: Vec<(String, String)>,
    pub(super) presets: Vec<Arc<dyn Preset>>,
    pub(super) list_parameters: Vec<ListParameter>,
    pub(super) scheduled: Vec<ScheduledWork>,
    /// The preset that is being applied.
    current_preset: Option<&'static str>,
    pub(super) events: bool,
    pub(super) streams: bool,
    pub(super) presence: bool,
    pub(super) audit: Option<AuditTrail>,
    pub(super) idempotency: Option<Idempotency>,
    pub(super) soft_delete: Option<SoftDelete>,
    pub(super) bulk: Option<Bulk>,
    pub(super) tree: Option<Tree>,
    pub(super) visible_to: Vec<(String, Permission)>,
    pub(super) writable_by: Vec<(String, Permission)>,
    pub(super) redacted_for: Vec<(String, (Permission, Json))>,
    pub(super) fills: Vec<(String, Fill)>,
    pub(super) hidden: Vec<String>,
    pub(super) id_field: String,
    pub(super) id: Option<Id>,
    pub(super) version: Option<String>,
    pub(super) timestamps: Option<(String, String)>,
    pub(super) read_only: Vec<String>,
    pub(super) write_only: Vec<String>,
    pub(super) immutable: Vec<String>,
    pub(super) filterable: Vec<String>,
    pub(super) sortable: Vec<String>,
    pub(super) searchable: Vec<String>,
    pub(super) indexes: Vec<(Vec<String>, bool)>,
    /// Positions in `indexes` of those that are unique across tenants.
    pub(super) globally_unique: Vec<usize>,
    pub(super) unique_within: Option<String>,
    pub(super) relations: Vec<Relation>,
    pub(super) default_limit: u32,
    pub(super) max_limit: u32,
    pub(super) offset_paging: bool,
    pub(super) require_if_match: bool,
    pub(super) cache: Option<Cache>,
    pub(super) cache_control: Option<String>,
    pub(super) description: Option<String>,
    pub(super) singular: Option<String>,
    /// Keywords that the OpenAPI document adds to the schema of a field in bodies.
    pub(super) extra_keywords: Vec<(&'static str, Json)>,
}

impl ResourceBuilder {
    fn new(name: String, json_schema: Json, codec: Codec) -> Self {
        Self {
            name,
            json_schema,
            codec,
            table: None,
            permissions: None,
            policies: Vec::new(),
            hooks: Vec::new(),
            actions: Vec::new(),
            state_machines: Vec::new(),
            claims: Vec::new(),
            presets: Vec::new(),
            list_parameters: Vec::new(),
            scheduled: Vec::new(),
            current_preset: None,
            events: true,
            streams: true,
            presence: false,
            audit: None,
            idempotency: None,
            soft_delete: None,
            bulk: None,
            tree: None,
            visible_to: Vec::new(),
            writable_by: Vec::new(),
            redacted_for: Vec::new(),
            fills: Vec::new(),
            hidden: Vec::new(),
            id_field: "id".to_owned(),
            id: None,
            version: None,
            timestamps: None,
            read_only: Vec::new(),
            write_only: Vec::new(),
            immutable: Vec::new(),
            filterable: Vec::new(),
            sortable: Vec::new(),
            searchable: Vec::new(),
            indexes: Vec::new(),
            globally_unique: Vec::new(),
            unique_within: None,
            relations: Vec::new(),
            default_limit: 50,
            max_limit: 200,
            offset_paging: false,
            require_if_match: false,
            cache: None,
            cache_control: None,
            description: None,
            singular: None,
            extra_keywords: Vec::new(),
        }
    }

    /// The table that stores the items. Mandatory.
    pub fn adapter(mut self, table: Table) -> Self {
        self.table = Some(table);
        self
    }

    /// The permission of each operation. Mandatory, for every operation: there is no default.
    pub fn permissions(mut self, permissions: Permissions) -> Self {
        self.permissions = Some(permissions);
        self
    }

    /// A permission that every operation requires beside its own. Rows that it filters out are out of reach on any path.
    ///
    /// ```
    /// use resourceful::prelude::*;
    /// use resourceful::access::rows;
    ///
    /// # #[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
    /// # struct Note { id: Uuid, archived: bool }
    /// let notes = define_resource::<Note>("notes")
    ///     .adapter(Memory::new().table("notes"))
    ///     .permissions(Permissions::all(anyone()))
    ///     .policy(rows(serde_json::json!({"archived": false})))
    ///     .build()?;
    /// # let _ = notes; Ok::<(), DefinitionErrors>(())
    /// ```
    pub fn policy(self, permission: Permission) -> Self {
        self.policy_on(Operation::ALL, permission)
    }

    /// A policy on some operations only; otherwise as [`policy`](Self::policy).
    pub fn policy_on(
        mut self,
        operations: impl IntoIterator<Item = Operation>,
        permission: Permission,
    ) -> Self {
        self.policies.push(Policy { operations: operations.into_iter().collect(), permission });
        self
    }

    /// Fields that exist for these callers only. For all other callers they are absent from responses, and filtering,
    /// sorting, searching or setting them is refused. The permission is about the caller, not about rows.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a rule is written in place, as every other setting is"
    )]
    pub fn visible_to<N: Into<String>>(
        mut self,
        fields: impl IntoIterator<Item = N>,
        permission: Permission,
    ) -> Self {
        self.visible_to.extend(fields.into_iter().map(|field| (field.into(), permission.clone())));
        self
    }

    /// Fields that only these callers may set; other callers are refused (403).
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a rule is written in place, as every other setting is"
    )]
    pub fn writable_by<N: Into<String>>(
        mut self,
        fields: impl IntoIterator<Item = N>,
        permission: Permission,
    ) -> Self {
        self.writable_by.extend(fields.into_iter().map(|field| (field.into(), permission.clone())));
        self
    }

    /// Fields that show these callers this value instead of the stored one. The callers cannot filter or sort by it.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a rule is written in place, as every other setting is"
    )]
    pub fn redacted_for<N: Into<String>>(
        mut self,
        fields: impl IntoIterator<Item = N>,
        permission: Permission,
        value: impl Into<Json>,
    ) -> Self {
        let value = value.into();
        let fields = fields.into_iter().map(|field| (field.into(), (permission.clone(), value.clone())));
        self.redacted_for.extend(fields);
        self
    }

    /// Runs a function before items are created, changed or deleted: it may set fields, refuse the change with a
    /// problem of its own, and enlist changes of other items into the same commit. Hooks of [`Operation::Update`] apply
    /// to PUT as well. See [`Hook::before`].
    ///
    /// ```
    /// use resourceful::prelude::*;
    /// use resourceful::{Change, Error, ErrorKind};
    ///
    /// #[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
    /// struct Product { id: Uuid, name: String, price_cents: i64 }
    ///
    /// let products = define_resource::<Product>("products")
    ///     .adapter(Memory::new().table("products"))
    ///     .permissions(Permissions::all(anyone()))
    ///     .before([Operation::Create, Operation::Update], |product: &mut Product, change: &mut Change| {
    ///         product.name = product.name.trim().to_owned();
    ///         if product.price_cents > 100_000 && !change.actor().has_role("buyer") {
    ///             return Err(Error::new(ErrorKind::Conflict, "too-expensive", "Ask a buyer."));
    ///         }
    ///         Ok(())
    ///     })
    ///     .build()?;
    /// # let _ = products; Ok::<(), DefinitionErrors>(())
    /// ```
    ///
    /// The function takes the resource's own model, or `serde_json::Map<String, Value>` for any.
    pub fn before<M, F>(mut self, operations: impl IntoIterator<Item = Operation>, hook: F) -> Self
    where
        M: Serialize + DeserializeOwned + 'static,
        F: Fn(&mut M, &mut Change) -> Result<(), Error> + Send + Sync + 'static,
    {
        self.hooks.push(PlacedHook::typed::<M>(operations, Before(hook, PhantomData)));
        self
    }

    /// Runs a function after items were created, changed or deleted, with the item after the change, or before it for a
    /// delete. Its errors are logged and change nothing. See [`Hook::after`].
    pub fn after<M, F, T>(mut self, operations: impl IntoIterator<Item = Operation>, hook: F) -> Self
    where
        M: DeserializeOwned + 'static,
        F: Fn(M, Change) -> T + Send + Sync + 'static,
        T: Future<Output = Result<(), CheckError>> + Send + 'static,
    {
        self.hooks.push(PlacedHook::typed::<M>(operations, After(hook, PhantomData)));
        self
    }

    /// Runs a hook around every change of this resource.
    pub fn hook(mut self, hook: impl Hook) -> Self {
        self.hooks.push(PlacedHook::for_all(hook));
        self
    }

    /// Adds a hook that runs after all others, wherever they are declared: it sees the item as it will be stored.
    pub fn hook_last(mut self, hook: impl Hook) -> Self {
        self.hooks.push(PlacedHook { is_last: true, ..PlacedHook::for_all(hook) });
        self
    }

    /// Adds an action: `POST /{resource}/{id}/{name}`, or `POST /{resource}/{name}` on the collection.
    pub fn action(mut self, name: impl Into<String>, action: Action) -> Self {
        let name = name.into();
        let path = match action.target {
            Target::Item => format!("the path /{{id}}/{name}"),
            Target::Collection => format!("the path /{name}"),
        };
        self.claim(path, &format!(".action(\"{name}\", …)"));
        self.actions.push((name, action));
        self
    }

    /// Adds a state machine: its field changes only by transitions, each of which is an action.
    pub fn states(mut self, machine: StateMachine) -> Self {
        self.claim(format!("the field `{}`", machine.field), ".states(…)");
        self.state_machines.push(machine.clone());
        machine.declare(self)
    }

    /// Claims a field for a preset: a second claim of the same field is a fault of the declaration that names both.
    pub fn claim_field(mut self, field: impl AsRef<str>) -> Self {
        self.claim(format!("the field `{}`", field.as_ref()), ".claim_field(…)");
        self
    }

    /// Records the claim of a path or a field, with its claimant.
    fn claim(&mut self, what: impl Into<String>, by: &str) {
        let by = self.current_preset.map_or_else(|| by.to_owned(), |preset| format!("the preset `{preset}`"));
        self.claims.push((what.into(), by));
    }

    /// Whether each change writes an event to the outbox, in the same transaction; on by default. Without events, no
    /// subscriber, stream or webhook receives changes.
    pub fn events(mut self, events: bool) -> Self {
        self.events = events;
        self
    }

    /// Whether clients can subscribe to changes, at `GET /{resource}/stream` and `GET /events`; on by default with events.
    pub fn streams(mut self, streams: bool) -> Self {
        self.streams = streams;
        self
    }

    /// Whether callers who view an item, or the list, can see each other, over a socket (`join` at `GET /ws`); off by
    /// default. Callers who may read an item may join its room, and are shown there by their id to the other members of
    /// their tenant.
    pub fn presence(mut self, presence: bool) -> Self {
        self.presence = presence;
        self
    }

    /// Keeps an audit trail of every change. See also the preset [`audit`](crate::presets::audit).
    pub fn audit_trail(mut self, trail: AuditTrail) -> Self {
        self.claim("the path /{id}/history", ".audit_trail(…)");
        if trail.revert.is_some() {
            self.claim("the path /{id}/revert", ".audit_trail(…)");
        }
        self.audit = Some(trail);
        self
    }

    /// Makes each write with an `Idempotency-Key` take effect once. See also the preset
    /// [`idempotency`](crate::presets::idempotency).
    pub fn idempotent(mut self, idempotency: Idempotency) -> Self {
        self.idempotency = Some(idempotency);
        self
    }

    /// Adds bulk routes, for many items in one request. See also the preset [`bulk`](crate::presets::bulk).
    pub fn bulk(mut self, bulk: Bulk) -> Self {
        self.claim("the path /bulk", ".bulk(…)");
        self.bulk = Some(bulk);
        self
    }

    /// Keeps deleted items, so that they can be restored. See also the preset
    /// [`soft_delete`](crate::presets::soft_delete).
    pub fn soft_delete(mut self, soft_delete: SoftDelete) -> Self {
        self.claim(format!("the field `{}`", soft_delete.field), ".soft_delete(…)");
        self.claim("the path /{id}/restore", ".soft_delete(…)");
        self.presets.push(Arc::new(soft_delete.clone()));
        self.soft_delete = Some(soft_delete);
        self
    }

    /// Adds the routes of a tree, `GET /{resource}/{id}/children` and `GET /{resource}/{id}/subtree`, and two
    /// relations: `children`, and the parent item by the field's name without `_id`. Moves are not checked: see the
    /// preset [`tree`](crate::presets::tree).
    pub fn tree(mut self, tree: Tree) -> Self {
        self.claim(format!("the field `{}`", tree.parent), ".tree(…)");
        self.claim("the path /{id}/children", ".tree(…)");
        self.claim("the path /{id}/subtree", ".tree(…)");
        let parent_relation =
            belongs_to(tree.parent_relation(), self.name.as_str()).key(tree.parent.as_str());
        self.relations.push(parent_relation);
        self.relations.push(has_many("children", self.name.as_str()).key(tree.parent.as_str()));
        self.indexes.push((vec![tree.parent.clone()], false));
        self.tree = Some(tree);
        self
    }

    /// Fields that clients neither see nor set: they hold their default, or a value that the application sets.
    pub fn hidden<N: Into<String>>(mut self, fields: impl IntoIterator<Item = N>) -> Self {
        self.hidden.extend(fields.into_iter().map(Into::into));
        self
    }

    /// Sets a field from the creating actor, and never from a body.
    pub fn fill(mut self, field: impl Into<String>, with: Fill) -> Self {
        let field = field.into();
        self.claim(format!("the field `{field}`"), ".fill(…)");
        self.fills.push((field, with));
        self
    }

    /// The field that identifies an item; `id` by default.
    pub fn id_field(mut self, field: impl Into<String>) -> Self {
        self.id_field = field.into();
        self
    }

    /// Which side generates ids. By default the server generates UUIDs ([`Id::UuidV7`]), the database generates
    /// integers ([`Id::Integer`]), and clients assign text ids ([`Id::Client`]).
    pub fn id(mut self, id: Id) -> Self {
        self.id = Some(id);
        self
    }

    /// Keeps a version counter in this field, from which ETags are made: each change increments it. It begins at 1, or
    /// at a random number (up to 2^30) if clients assign ids, so that the ETags of a deleted item differ from those of
    /// an item that is later created under its id.
    ///
    /// A field of the model becomes read-only and shows the counter; if the model has no such field, only the table has
    /// the column. Without a counter an item's ETag is a digest of its content.
    pub fn version(mut self, field: impl Into<String>) -> Self {
        self.version = Some(field.into());
        self
    }

    /// Lets the server maintain two `date-time` fields of the model: when an item was created and last changed.
    pub fn timestamps(mut self, created: impl Into<String>, updated: impl Into<String>) -> Self {
        let (created, updated) = (created.into(), updated.into());
        for field in [&created, &updated] {
            self.claim(format!("the field `{field}`"), ".timestamps(…)");
        }
        self.timestamps = Some((created, updated));
        self
    }

    /// Fields that responses contain and bodies cannot set (also `readOnly` in the schema).
    pub fn read_only<N: Into<String>>(mut self, fields: impl IntoIterator<Item = N>) -> Self {
        self.read_only.extend(fields.into_iter().map(Into::into));
        self
    }

    /// Fields that bodies may set and responses never contain (also `writeOnly` in the schema).
    pub fn write_only<N: Into<String>>(mut self, fields: impl IntoIterator<Item = N>) -> Self {
        self.write_only.extend(fields.into_iter().map(Into::into));
        self
    }

    /// Fields that are set when an item is created and cannot be changed afterwards.
    pub fn immutable<N: Into<String>>(mut self, fields: impl IntoIterator<Item = N>) -> Self {
        self.immutable.extend(fields.into_iter().map(Into::into));
        self
    }

    /// Fields that lists can be filtered by, in addition to the id and the indexed fields.
    pub fn filterable<N: Into<String>>(mut self, fields: impl IntoIterator<Item = N>) -> Self {
        self.filterable.extend(fields.into_iter().map(Into::into));
        self
    }

    /// Fields that lists can be sorted by, in addition to the id and the indexed fields.
    pub fn sortable<N: Into<String>>(mut self, fields: impl IntoIterator<Item = N>) -> Self {
        self.sortable.extend(fields.into_iter().map(Into::into));
        self
    }

    /// Text fields that `q=` searches. Without any, `q` is an unknown parameter.
    pub fn searchable<N: Into<String>>(mut self, fields: impl IntoIterator<Item = N>) -> Self {
        self.searchable.extend(fields.into_iter().map(Into::into));
        self
    }

    /// An index over these fields, the leading one first. Lists can be filtered and sorted by indexed fields.
    pub fn index<N: Into<String>>(mut self, fields: impl IntoIterator<Item = N>) -> Self {
        self.indexes.push((fields.into_iter().map(Into::into).collect(), false));
        self
    }

    /// A unique index over these fields. With the preset [`multi_tenant`](crate::presets::multi_tenant) values are
    /// unique within a tenant, since a conflict would reveal another tenant's items.
    pub fn unique<N: Into<String>>(mut self, fields: impl IntoIterator<Item = N>) -> Self {
        self.indexes.push((fields.into_iter().map(Into::into).collect(), true));
        self
    }

    /// A unique index across all tenants, for namespaces that all tenants share, such as domain names. A conflict then
    /// reveals that some tenant holds the value.
    pub fn unique_globally<N: Into<String>>(mut self, fields: impl IntoIterator<Item = N>) -> Self {
        self.globally_unique.push(self.indexes.len());
        self.unique(fields)
    }

    /// Scopes unique indexes to this field: items that differ in it may hold the same unique values, except those that
    /// are [`unique_globally`](Self::unique_globally). For presets that assign each item to a tenant.
    pub fn unique_within(mut self, field: impl Into<String>) -> Self {
        self.unique_within = Some(field.into());
        self
    }

    /// Adds a preset: a named, reusable part of a declaration.
    pub fn preset(mut self, preset: impl Preset) -> Self {
        let outer = self.current_preset.replace(preset.name());
        self = preset.apply(self);
        self.current_preset = outer;
        self.presets.push(Arc::new(preset));
        self
    }

    /// Adds a query parameter of lists: a filter that clients choose by name. See [`ListParameter`].
    pub fn list_parameter(mut self, parameter: ListParameter) -> Self {
        self.claim(format!("the parameter `{}`", parameter.name), ".list_parameter(…)");
        self.list_parameters.push(parameter);
        self
    }

    /// Runs work of the application at an interval, such as removing or closing old items. See [`ScheduledWork`].
    pub fn scheduled(mut self, work: ScheduledWork) -> Self {
        self.claim(format!("the scheduled work `{}`", work.name), ".scheduled(…)");
        self.scheduled.push(work);
        self
    }

    /// Adds a relation to another resource of the application.
    pub fn relation(mut self, relation: Relation) -> Self {
        self.relations.push(relation);
        self
    }

    /// The page size: the default without `limit=`, and the maximum. 50 and 200 by default.
    pub fn limits(mut self, default: u32, max: u32) -> Self {
        self.default_limit = default;
        self.max_limit = max;
        self
    }

    /// Accepts `page=` in addition to cursors: pages by number, whose cost grows with the number.
    pub fn offset_paging(mut self) -> Self {
        self.offset_paging = true;
        self
    }

    /// Refuses a change without `If-Match` (428, RFC 6585).
    pub fn require_if_match(mut self) -> Self {
        self.require_if_match = true;
        self
    }

    /// Caches responses, until the data that they show changes. See [`Cache`].
    pub fn cache(mut self, cache: Cache) -> Self {
        self.cache = Some(cache);
        self
    }

    /// The `Cache-Control` header of reads (RFC 9111); `private, no-cache` by default.
    pub fn cache_control(mut self, directives: impl Into<String>) -> Self {
        self.cache_control = Some(directives.into());
        self
    }

    /// Verifies the declaration and turns it into an immutable [`Resource`].
    ///
    /// # Errors
    /// Every fault of the declaration at once, each with a suggested fix.
    pub fn build(self) -> Result<Resource, DefinitionErrors> {
        derive::build(self)
    }
}
