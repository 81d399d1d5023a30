//! Builds a definition from a declaration: derive, verify, freeze.

use std::sync::Arc;

use http::HeaderValue;
use resourceful_contract::{Field, FieldType, IdSource, Index, Schema, Table};
use serde_json::Value as Json;

use super::bodies::{BodySchemas, is_internal};
use super::definition::{FieldRule, Fill};
use super::verify;
use super::verify::{DefinitionErrors, Faults};
use super::{DeclaredAction, Definition, Id, Model, PresetFaults, Resource, ResourceBuilder, TreeParent};
use crate::access::Operation;
use crate::access::{Permission, Permissions, all_of};

/// A declaration with derived fields, before verification.
pub(super) struct Draft {
    pub(super) builder: ResourceBuilder,
    pub(super) fields: Vec<Field>,
    pub(super) id: Option<(usize, Id)>,
    pub(super) version: Option<usize>,
}

impl Draft {
    pub(super) fn position(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| field.name == name)
    }

    fn positions(&self, names: &[String]) -> Vec<usize> {
        names.iter().filter_map(|name| self.position(name)).collect()
    }

    /// The fields that are set from the creating actor.
    fn fills(&self) -> Vec<(usize, Fill)> {
        let fills = self.builder.fills.iter();
        fills.filter_map(|(name, fill)| Some((self.position(name)?, *fill))).collect()
    }

    /// For each field, whether clients may select by it: the id, indexed fields, keys of `belongs_to` and `names`, if
    /// visible and accepted by `suits`.
    fn selectable(&self, names: &[String], suits: impl Fn(&Field) -> bool) -> Vec<bool> {
        let indexed = self.builder.indexes.iter().flat_map(|(names, _)| names);
        let mut selectable = vec![false; self.fields.len()];
        for name in indexed.chain(names) {
            if let Some(position) = self.position(name) {
                selectable[position] = true;
            }
        }
        for (relation, position) in self.builder.relations.iter().filter_map(|relation| {
            let key = self.position(&relation.key_name())?;
            Some((relation, key))
        }) {
            // A referring field has an index, as a foreign key.
            if relation.cardinality == resourceful_contract::Cardinality::One {
                selectable[position] = true;
            }
        }
        if let Some((id, _)) = self.id {
            selectable[id] = true;
        }
        for (selectable, field) in selectable.iter_mut().zip(&self.fields) {
            *selectable &= !field.hidden && suits(field);
        }
        selectable
    }
}

pub(super) fn build(builder: ResourceBuilder) -> Result<Resource, DefinitionErrors> {
    let mut faults = Faults::of(&builder.name);
    let draft = derive(builder, &mut faults);
    verify::verify_declaration(&draft, &mut faults);
    for preset in &draft.builder.presets {
        let model = Model { fields: &draft.fields };
        preset.verify(&model, &mut PresetFaults { faults: &mut faults });
    }
    let (Some((id, kind)), Some(permissions), Some(table)) =
        (draft.id, draft.builder.permissions.clone(), draft.builder.table.clone())
    else {
        return Err(faults.into_errors());
    };
    let schema = schema(&draft, id, kind, &table);
    let bodies = match BodySchemas::derive(&schema, &draft.builder.json_schema, kind == Id::Client) {
        Ok(bodies) => bodies,
        Err(error) => {
            faults.push(None, format!("the model's JSON Schema is not valid: {error}"), "correct the schema");
            return Err(faults.into_errors());
        }
    };
    let actions = actions(&draft, &mut faults);
    faults.into_result()?;
    Ok(Resource(Arc::new(build_definition(draft, schema, bodies, actions, kind, table, permissions))))
}

fn derive(mut builder: ResourceBuilder, faults: &mut Faults) -> Draft {
    let mut fields = match Schema::fields_from_json_schema(&builder.json_schema) {
        Ok(fields) => fields,
        Err(unsupported) => {
            for fault in unsupported {
                let field = (!fault.field.is_empty()).then_some(fault.field);
                faults.push(field.as_deref(), fault.message, "change the model");
            }
            Vec::new()
        }
    };
    apply_flags(&builder, &mut fields);
    let version = builder.version.as_ref().map(|name| version_field(name, &mut fields));
    if let Some(table) = &builder.table {
        for field in &mut fields {
            if let Some(column) = table.columns().get(&field.name) {
                field.column.clone_from(column);
            }
        }
    }
    let id = fields.iter().position(|field| field.name == builder.id_field).map(|position| {
        let kind = builder.id.unwrap_or(match fields[position].field_type {
            FieldType::Uuid => Id::UuidV7,
            FieldType::Integer => Id::Integer,
            _ => Id::Client,
        });
        if kind != Id::Client {
            fields[position].read_only = true;
        }
        fields[position].immutable = true;
        (position, kind)
    });
    if builder.description.is_none() {
        builder.description =
            builder.json_schema.get("description").and_then(Json::as_str).map(str::to_owned);
    }
    Draft { builder, fields, id, version }
}

/// The actions, with `restore` and `revert` where they apply, each with the validator of its input.
fn actions(draft: &Draft, faults: &mut Faults) -> Vec<DeclaredAction> {
    let builder = &draft.builder;
    let delete = builder.permissions.as_ref().and_then(|permissions| permissions.of(Operation::Delete));
    let restore = builder.soft_delete.as_ref().zip(delete);
    let restore = restore.map(|(soft, delete)| ("restore".to_owned(), soft.action(delete)));
    let mut actions = Vec::with_capacity(builder.actions.len());
    let revert = builder.audit.as_ref().and_then(|trail| Some(("revert".to_owned(), trail.action()?)));
    for (name, action) in builder.actions.iter().chain(&restore).chain(&revert) {
        match action.input.validator() {
            Ok(input_validator) => {
                actions.push(DeclaredAction { name: name.clone(), action: action.clone(), input_validator });
            }
            Err(error) => faults.push(
                None,
                format!("the JSON Schema of the input of `{name}` is not valid: {error}"),
                "correct the type's schema",
            ),
        }
    }
    actions
}

/// Sets the flags of the fields that the declaration names.
fn apply_flags(builder: &ResourceBuilder, fields: &mut Vec<Field>) {
    let flag = |names: &[String], set: fn(&mut Field), fields: &mut Vec<Field>| {
        for field in fields.iter_mut().filter(|field| names.contains(&field.name)) {
            set(field);
        }
    };
    flag(&builder.read_only, |field| field.read_only = true, fields);
    flag(&builder.immutable, |field| field.immutable = true, fields);
    flag(
        &builder.write_only,
        |field| {
            field.write_only = true;
            field.hidden = true;
        },
        fields,
    );
    flag(
        &builder.hidden,
        |field| {
            field.read_only = true;
            field.write_only = true;
            field.hidden = true;
        },
        fields,
    );
    let filled: Vec<_> = builder.fills.iter().map(|(name, _)| name.clone()).collect();
    flag(&filled, |field| field.read_only = true, fields);
    if let Some(soft) = &builder.soft_delete {
        flag(std::slice::from_ref(&soft.field), |field| field.read_only = true, fields);
    }
    for machine in &builder.state_machines {
        for field in fields.iter_mut().filter(|field| field.name == machine.field) {
            field.read_only = true;
            if let Json::Object(schema) = &mut field.json_schema {
                schema.insert("default".to_owned(), machine.initial.as_str().into());
            }
        }
    }
    if let Some((created, updated)) = &builder.timestamps {
        flag(&[created.clone(), updated.clone()], |field| field.read_only = true, fields);
    }
}

/// The position of the version counter; adds a hidden field if the model has none.
fn version_field(name: &str, fields: &mut Vec<Field>) -> usize {
    if let Some(position) = fields.iter().position(|field| field.name == name) {
        fields[position].read_only = true;
        return position;
    }
    let mut field = Field::new(name, FieldType::Integer);
    field.read_only = true;
    field.hidden = true;
    fields.push(field);
    fields.len() - 1
}

fn schema(draft: &Draft, id: usize, kind: Id, table: &Table) -> Schema {
    let source = match kind {
        Id::UuidV7 | Id::Text => IdSource::Engine,
        Id::Integer => IdSource::Storage,
        Id::Client => IdSource::Client,
    };
    let builder = &draft.builder;
    let mut schema = Schema::new(&builder.name, table.name(), draft.fields.clone(), id, source);
    schema.version = draft.version;
    let within = builder.unique_within.as_deref().and_then(|name| draft.position(name));
    schema.indexes = builder
        .indexes
        .iter()
        .enumerate()
        .map(|(index, (names, unique))| {
            let mut fields = draft.positions(names);
            let within = within.filter(|_| *unique && !builder.globally_unique.contains(&index));
            if let Some(within) = within.filter(|within| !fields.contains(within)) {
                fields.insert(0, within);
            }
            Index { fields, unique: *unique }
        })
        .collect();
    for relation in &builder.relations {
        if relation.cardinality != resourceful_contract::Cardinality::One {
            continue;
        }
        let Some(key) = draft.position(&relation.key_name()) else {
            continue;
        };
        // Both the foreign key's own checks and `has_many` from the other side look rows up by it.
        if key != id && !schema.indexes.iter().any(|index| index.fields.first() == Some(&key)) {
            schema.indexes.push(Index { fields: vec![key], unique: false });
        }
    }
    schema
}

/// The rules of each field for which any are declared.
fn field_rules(draft: &Draft) -> Vec<FieldRule> {
    let builder = &draft.builder;
    let all = |permissions: Vec<&Permission>| match permissions.as_slice() {
        [] => None,
        [only] => Some((*only).clone()),
        several => Some(all_of(several.iter().map(|permission| (*permission).clone()))),
    };
    let mut rules = Vec::new();
    for (field, name) in draft.fields.iter().map(|field| &field.name).enumerate() {
        let of = |declared: &'_ [(String, Permission)]| {
            declared.iter().filter(|(of, _)| of == name).map(|(_, rule)| rule.clone()).collect::<Vec<_>>()
        };
        let (visible, writable) = (of(&builder.visible_to), of(&builder.writable_by));
        let rule = FieldRule {
            field,
            visible_to: all(visible.iter().collect()),
            writable_by: all(writable.iter().collect()),
            redacted_for: builder
                .redacted_for
                .iter()
                .find(|(of, _)| of == name)
                .map(|(_, rule)| rule.clone()),
        };
        if rule.visible_to.is_some() || rule.writable_by.is_some() || rule.redacted_for.is_some() {
            rules.push(rule);
        }
    }
    rules
}

fn tree_parent(draft: &Draft) -> Option<TreeParent> {
    let tree = draft.builder.tree.as_ref()?;
    let parent = draft.position(&tree.parent)?;
    Some(TreeParent { parent, max_depth: tree.max_depth, max_items: tree.max_items })
}

fn cache_control(declared: Option<String>) -> HeaderValue {
    declared
        .and_then(|directives| HeaderValue::from_str(&directives).ok())
        .unwrap_or(HeaderValue::from_static("private, no-cache"))
}

/// The model's title: the name of its type, the `title` of its JSON Schema, or the resource's name.
fn title(builder: &ResourceBuilder) -> String {
    let schema_title = || builder.json_schema.get("title").and_then(Json::as_str).map(str::to_owned);
    builder.codec.title().map(str::to_owned).or_else(schema_title).unwrap_or_else(|| builder.name.clone())
}

/// Positions of the fields that the model has.
fn model_fields(schema: &Schema) -> Vec<usize> {
    (0..schema.fields.len()).filter(|position| !is_internal(&schema.fields[*position])).collect()
}

fn build_definition(
    draft: Draft,
    schema: Schema,
    bodies: BodySchemas,
    actions: Vec<DeclaredAction>,
    id: Id,
    table: Table,
    permissions: Permissions,
) -> Definition {
    let filterable = draft.selectable(&draft.builder.filterable, |_| true);
    let sortable = draft.selectable(&draft.builder.sortable, |field| field.field_type.is_ordered());
    let searchable = draft.positions(&draft.builder.searchable);
    let timestamp = |pick: fn(&(String, String)) -> &String| {
        draft.builder.timestamps.as_ref().and_then(|names| draft.position(pick(names)))
    };
    let tree_parent = tree_parent(&draft);
    let mut hooks = draft.builder.hooks.clone();
    hooks.sort_by_key(|registration| registration.is_last);
    let unique_within = draft.builder.unique_within.as_deref().and_then(|name| draft.position(name));
    let fills = draft.fills();
    let deleted_at = draft.builder.soft_delete.as_ref().and_then(|soft| draft.position(&soft.field));
    let field_rules = field_rules(&draft);
    let (created_at, updated_at) = (timestamp(|names| &names.0), timestamp(|names| &names.1));
    let builder = draft.builder;
    let (title, singular) = (title(&builder), builder.singular_name());
    Definition {
        visible: schema.visible().collect(),
        model_fields: model_fields(&schema),
        max_bytes: (0..schema.fields.len()).map(|position| schema.max_bytes(position)).collect(),
        filterable,
        sortable,
        searchable,
        created_at,
        updated_at,
        schema: Arc::new(schema),
        table,
        permissions,
        policies: builder.policies,
        list_parameters: builder.list_parameters,
        scheduled: builder.scheduled,
        field_rules,
        fills,
        unique_within,
        hooks,
        actions,
        events: builder.events,
        streams: builder.streams,
        presence: builder.presence,
        audit: builder.audit,
        idempotency: builder.idempotency,
        deleted_at,
        soft_delete: builder.soft_delete,
        bulk: builder.bulk,
        tree: tree_parent,
        codec: builder.codec,
        bodies,
        id,
        relations: builder.relations,
        default_limit: builder.default_limit,
        max_limit: builder.max_limit,
        offset_paging: builder.offset_paging,
        require_if_match: builder.require_if_match,
        cache: builder.cache,
        cache_control: cache_control(builder.cache_control),
        description: builder.description,
        title,
        singular,
        extra_keywords: builder.extra_keywords,
    }
}
