//! The builder of resource declarations.

use std::sync::Arc;

use resourceful_contract::Table;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use validator::Validate;

use super::definition::{Fill, Policy};
use super::model_codec::Codec;
use super::{
    Action, AuditTrail, Bulk, Cache, DefinitionErrors, Id, Idempotency, ListParameter, PlacedHook, Preset,
    Relation, Resource, ScheduledWork, SoftDelete, StateMachine, Tree, derive,
};
use crate::access::{Permission, Permissions};

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

    /// Claims a field for a preset: a second claim of the same field is a fault of the declaration that names both.
    pub fn claim_field(mut self, field: impl AsRef<str>) -> Self {
        self.claim(format!("the field `{}`", field.as_ref()), ".claim_field(…)");
        self
    }

    /// Records the claim of a path or a field, with its claimant.
    pub(super) fn claim(&mut self, what: impl Into<String>, by: &str) {
        let by = self.current_preset.map_or_else(|| by.to_owned(), |preset| format!("the preset `{preset}`"));
        self.claims.push((what.into(), by));
    }

    /// Adds a preset: a named, reusable part of a declaration.
    pub fn preset(mut self, preset: impl Preset) -> Self {
        let outer = self.current_preset.replace(preset.name());
        self = preset.apply(self);
        self.current_preset = outer;
        self.presets.push(Arc::new(preset));
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
