//! The schemas of a resource: its items, the request bodies, its lists and filters.

use resourceful_contract::Cardinality;
use serde_json::{Map, Value as Json, json};

use super::catalog_view::CatalogView;
use super::components::{Components, reference};
use super::names::{action_schema_name, pascal};
use super::{bulk, decimals, filters, parameters};
use crate::catalog::{Catalog, Entry};
use crate::resource::DeclaredAction;

/// The suffixes of a resource's components after its title; the title alone is a whole item.
const SUFFIXES: [&str; 8] = ["", "Partial", "Create", "Replace", "Patch", "List", "Filter", "Query"];

/// For each resource of the catalog, the title: the prefix of its components' names.
pub(super) fn titles(catalog: &Catalog) -> Vec<String> {
    let mut titles: Vec<String> = Vec::new();
    for entry in catalog.entries() {
        let title = unique_title(&titles, &pascal(&entry.definition.title));
        titles.push(title);
    }
    titles
}

/// A title whose components collide with no other names; numbered if necessary.
fn unique_title(titles: &[String], wanted: &str) -> String {
    let derived = |title: &str| SUFFIXES.map(|suffix| format!("{title}{suffix}"));
    let taken = |name: &str| {
        derived(name).iter().any(|name| {
            COMMON.contains(&name.as_str()) || titles.iter().any(|title| derived(title).contains(name))
        })
    };
    let numbered = (2..).map(|number| format!("{wanted}{number}"));
    let mut names = std::iter::once(wanted.to_owned()).chain(numbered);
    names.find(|name| !taken(name)).unwrap_or_else(|| wanted.to_owned())
}

/// Schemas that belong to no resource.
const COMMON: [&str; 16] = [
    "Problem",
    "Page",
    "History",
    "NoInput",
    "Question",
    "Explanation",
    "Batch",
    "BatchOperation",
    "BatchCreate",
    "BatchUpdate",
    "BatchDelete",
    "BatchResult",
    "BatchResults",
    "BulkResults",
    "BulkAffected",
    "ServerSentEvent",
];

/// Adds the schemas that every document may refer to.
pub(super) fn add_common(components: &mut Components) {
    components.schemas.insert("Problem".to_owned(), problem());
    components.schemas.insert("Page".to_owned(), page());
    components.schemas.insert("History".to_owned(), history());
}

/// Adds a schema other than a resource's bodies, with the definitions that it refers to.
pub(super) fn add(components: &mut Components, name: &str, mut schema: Json) {
    decimals::describe_decimals(&mut schema, false);
    let schema = hoist(components, name, schema);
    components.schemas.insert(name.to_owned(), schema);
}

/// Adds the schemas of one resource.
pub(super) struct SchemaBuilder<'a> {
    pub(super) view: &'a CatalogView<'a>,
    pub(super) titles: &'a [String],
    pub(super) components: &'a mut Components,
}

impl SchemaBuilder<'_> {
    pub(super) fn add(&mut self, entry: &Entry) {
        self.add_items(entry);
        self.add_bodies(entry);
        self.add_lists(entry);
        for declared in &entry.definition.actions {
            self.add_action(entry, declared);
        }
    }

    fn title(&self, entry: &Entry) -> String {
        self.titles[entry.position].clone()
    }

    /// Adds a whole item, as in responses to writes, and a partial one, as in responses to reads: `fields` leaves
    /// members out and `include` adds related items.
    fn add_items(&mut self, entry: &Entry) {
        let view = self.view;
        let mut item =
            without(entry, entry.definition.bodies.response.clone(), |field| !view.is_visible(entry, field));
        if let Some(description) = &entry.definition.description {
            item["description"] = Json::from(description.as_str());
        }
        decimals::describe_decimals(&mut item, false);
        let mut item = hoist(self.components, &self.title(entry), item);
        let mut partial = item.clone();
        for (position, field) in entry.schema.fields.iter().enumerate() {
            if !view.is_always_visible(entry, position)
                && let Some(required) = item.get_mut("required").and_then(Json::as_array_mut)
            {
                required.retain(|name| *name != field.name.as_str());
            }
        }
        if let Json::Object(map) = &mut partial {
            map.shift_remove("required");
        }
        for relation in view.includable_relations(entry) {
            let target = reference(&self.titles[relation.target]);
            partial["properties"][&relation.link.name] = match relation.link.cardinality {
                Cardinality::One => json!({"anyOf": [target, {"type": "null"}]}),
                Cardinality::Many => json!({"type": "array", "items": target}),
            };
        }
        let title = self.title(entry);
        self.components.schemas.insert(format!("{title}Partial"), partial);
        self.components.schemas.insert(title, item);
    }

    fn add_bodies(&mut self, entry: &Entry) {
        let view = self.view;
        let (title, bodies) = (self.title(entry), &entry.definition.bodies);
        let closed = |field: usize| !view.can_write(entry, field);
        for (suffix, schema) in [
            ("Create", without(entry, bodies.create.clone(), closed)),
            // The path of a PUT contains the id; a body may repeat it but need not.
            ("Replace", without(entry, bodies.replace.clone(), |at| at == entry.schema.id || closed(at))),
            ("Patch", without(entry, bodies.update.clone(), closed)),
        ] {
            let mut schema = schema;
            decimals::describe_decimals(&mut schema, true);
            for (field, keywords) in &entry.definition.extra_keywords {
                if let Some(property) = schema["properties"].get_mut(*field).and_then(Json::as_object_mut) {
                    property.extend(keywords.as_object().cloned().unwrap_or_default());
                }
            }
            // At every depth a patch may leave out members that the other bodies require.
            let prefix = if suffix == "Patch" { format!("{title}Patch") } else { title.clone() };
            let schema = hoist(self.components, &prefix, schema);
            self.components.schemas.insert(format!("{title}{suffix}"), schema);
        }
        if let Some(bulk) = &entry.definition.bulk {
            bulk::add(&mut self.components.schemas, &title, entry, bulk);
        }
    }

    fn add_lists(&mut self, entry: &Entry) {
        let title = self.title(entry);
        let list = json!({
            "type": "object",
            "properties": {
                "items": {"type": "array", "items": reference(&format!("{title}Partial"))},
                "page": reference("Page"),
            },
            "required": ["items", "page"],
            "additionalProperties": false,
        });
        let filter = self.filter(entry);
        let schemas = &mut self.components.schemas;
        schemas.insert(format!("{title}List"), list);
        schemas.insert(format!("{title}Filter"), filter);
        schemas.insert(format!("{title}Query"), query(&title, self.view, entry));
        if entry.definition.tree.is_some() {
            schemas.insert(format!("{title}_Subtree"), subtree(&title));
        }
    }

    /// The filter tree of the body form. A dotted name filters through a relation.
    fn filter(&mut self, entry: &Entry) -> Json {
        let filter_ref = reference(&format!("{}Filter", self.title(entry)));
        let mut properties = Map::new();
        for word in ["and", "or"] {
            properties.insert(word.to_owned(), json!({"type": "array", "items": filter_ref}));
        }
        properties.insert("not".to_owned(), filter_ref);
        let view = self.view;
        for field in filters::of(view, entry) {
            let condition = field.condition(self.components, self.titles);
            properties.insert(field.path, condition);
        }
        // A to-many relation accepts several conditions on one row.
        let many = entry.links.iter().filter(|relation| relation.link.cardinality == Cardinality::Many);
        for relation in many.filter(|relation| view.is_filterable_relation(entry, relation)) {
            let any = reference(&format!("{}Filter", self.titles[relation.target]));
            let one_row = json!({"type": "object", "properties": {"any": any}, "required": ["any"], "additionalProperties": false});
            properties.insert(relation.link.name.clone(), one_row);
        }
        json!({"type": "object", "properties": properties, "additionalProperties": false})
    }

    fn add_action(&mut self, entry: &Entry, declared: &DeclaredAction) {
        let title = self.title(entry);
        let input = input_schema_name(&title, declared);
        add(self.components, &input, declared.action.input.schema.clone());
        if let Some(output) = &declared.action.output {
            add(self.components, &action_schema_name(&title, &declared.name, "Output"), output.clone());
        }
    }
}

/// The name of an action's input schema; actions without an input share one.
pub(super) fn input_schema_name(title: &str, declared: &DeclaredAction) -> String {
    let is_empty = declared.action.input.schema["properties"].as_object().is_none_or(Map::is_empty)
        && declared.action.input.schema.get("title").is_some_and(|title| title == NO_INPUT);
    if is_empty { NO_INPUT.to_owned() } else { action_schema_name(title, &declared.name, "Input") }
}

const NO_INPUT: &str = "NoInput";

/// The component name of a `$defs` entry of a resource's model, made distinct from the resource's own schemas.
pub(super) fn definition_name(title: &str, definition: &str) -> String {
    let name = format!("{title}{}", pascal(definition));
    let is_taken = SUFFIXES.iter().any(|suffix| name == format!("{title}{suffix}"));
    if is_taken { format!("{name}_") } else { name }
}

/// Moves a schema's `$defs` into the components, and updates its references to them.
fn hoist(components: &mut Components, title: &str, mut schema: Json) -> Json {
    let Some(definitions) = schema.as_object_mut().and_then(|map| map.shift_remove("$defs")) else {
        return schema;
    };
    let Json::Object(definitions) = definitions else {
        return schema;
    };
    let names: Vec<(String, String)> =
        definitions.keys().map(|name| (name.clone(), definition_name(title, name))).collect();
    rewrite_refs(&mut schema, &names);
    for ((_, to), mut definition) in names.iter().zip(definitions.into_iter().map(|(_, schema)| schema)) {
        rewrite_refs(&mut definition, &names);
        components.schemas.insert(to.clone(), definition);
    }
    schema
}

/// The response of a subtree.
fn subtree(title: &str) -> Json {
    let item = json!({
        "type": "object",
        "properties": {
            "depth": {"type": "integer", "minimum": 1, "description": "How many levels below the item."},
            "item": reference(title),
        },
        "required": ["depth", "item"],
        "additionalProperties": false,
    });
    json!({
        "type": "object",
        "properties": {"items": {"type": "array", "items": item}},
        "required": ["items"],
        "additionalProperties": false,
    })
}

/// A page of an item's history.
fn history() -> Json {
    let nullable_string = json!({"type": ["string", "null"]});
    let change = json!({
        "type": "object",
        "description": "The old and the new value; of a hidden field only that it was changed.",
        "properties": {"from": {}, "to": {}},
        "additionalProperties": false,
    });
    let entry = json!({
        "type": "object",
        "properties": {
            "operation": {"type": "string"},
            "at": {"type": "string", "format": "date-time"},
            "actor": nullable_string, "tenant": nullable_string, "request_id": nullable_string, "address": nullable_string,
            "changes": {"type": "object", "additionalProperties": change},
        },
        "required": ["operation", "at", "actor", "tenant", "request_id", "address", "changes"],
        "additionalProperties": false,
    });
    json!({
        "type": "object",
        "properties": {"items": {"type": "array", "items": entry}, "page": reference("Page")},
        "required": ["items", "page"],
        "additionalProperties": false,
    })
}

/// A schema without some of its fields.
fn without(entry: &Entry, mut schema: Json, is_out: impl Fn(usize) -> bool) -> Json {
    let fields = entry.schema.fields.iter().enumerate();
    for (_, field) in fields.filter(|(position, _)| is_out(*position)) {
        if let Some(properties) = schema["properties"].as_object_mut() {
            properties.shift_remove(&field.name);
        }
        if let Some(required) = schema.get_mut("required").and_then(Json::as_array_mut) {
            required.retain(|name| *name != field.name.as_str());
        }
    }
    schema
}

/// Redirects every `#/$defs/name` to the component that it has become.
fn rewrite_refs(schema: &mut Json, names: &[(String, String)]) {
    match schema {
        Json::Object(map) => {
            if let Some(Json::String(to)) = map.get_mut("$ref")
                && let Some(name) = to.strip_prefix("#/$defs/")
                && let Some((_, component)) = names.iter().find(|(from, _)| from == name)
            {
                *to = format!("#/components/schemas/{component}");
            }
            map.values_mut().for_each(|value| rewrite_refs(value, names));
        }
        Json::Array(items) => items.iter_mut().for_each(|item| rewrite_refs(item, names)),
        _ => {}
    }
}

/// The schema of problem details (RFC 9457), the response of every failure.
fn problem() -> Json {
    json!({
        "type": "object",
        "description": "Problem details (RFC 9457).",
        "properties": {
            "type": {"type": "string", "format": "uri", "description": "Names the kind of problem; its last segment is the code."},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "instance": {"type": "string", "description": "The path that was asked for."},
            "code": {"type": "string", "description": "A machine-readable error code."},
            "trace_id": {"type": "string", "description": "Identifies the request in the server's log."},
            "errors": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "pointer": {"type": "string", "description": "In the body (RFC 6901)."},
                        "parameter": {"type": "string", "description": "In the query string."},
                        "header": {"type": "string"},
                        "code": {"type": "string"},
                        "detail": {"type": "string"},
                    },
                    "required": ["code", "detail"],
                },
            },
        },
        "required": ["type", "title", "status", "detail", "instance", "code", "trace_id"],
    })
}

fn page() -> Json {
    json!({
        "type": "object",
        "properties": {
            "next": {"type": ["string", "null"], "description": "For `after=`: the page behind this one."},
            "prev": {"type": ["string", "null"], "description": "For `before=`: the page before this one."},
            "limit": {"type": "integer", "minimum": 1},
            "total": {"type": "integer", "minimum": 0, "description": "With `Prefer: count=exact|estimated`."},
            "total_kind": {"type": "string", "enum": ["exact", "estimated"]},
        },
        "required": ["next", "prev", "limit"],
        "additionalProperties": false,
    })
}

fn query(title: &str, view: &CatalogView<'_>, entry: &Entry) -> Json {
    let mut properties = Map::new();
    let mut add = |name: &str, schema: Json| properties.insert(name.to_owned(), schema);
    add("filter", reference(&format!("{title}Filter")));
    // In a body a list may be empty; a query string cannot express an empty list.
    let may_be_empty = |mut list: Json| {
        if let Some(list) = list.as_object_mut() {
            list.shift_remove("minItems");
        }
        list
    };
    add("sort", may_be_empty(parameters::sort(view, entry)));
    add("fields", parameters::fields(view, entry));
    if view.includable_relations(entry).next().is_some() {
        add("include", may_be_empty(parameters::include(view, entry)));
    }
    add("limit", parameters::limit(entry));
    add("after", parameters::cursor());
    add("before", parameters::cursor());
    if entry.definition.offset_paging {
        add("page", parameters::page());
    }
    if view.has_search(entry) {
        add("q", parameters::search_schema());
    }
    if parameters::can_see_deleted(view, entry) {
        add("deleted", parameters::deleted());
    }
    for parameter in &entry.definition.list_parameters {
        add(&parameter.name, parameters::values_schema(parameter));
    }
    json!({
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
        // A page has one start: `after` or `before`.
        "not": {"required": ["after", "before"], "properties": {"after": {}, "before": {}}},
    })
}
