//! The components: each resource's shapes, and what all share.

use resourceful_contract::{Field, FieldType};
use serde_json::{Map, Value as Json, json};

use super::lens::Lens;
use super::{bulk, decimals, parameters};
use crate::engine::Entry;

/// What the components of a resource are named after its title; the title alone is what answers hold.
const SUFFIXES: [&str; 7] = ["", "Create", "Replace", "Patch", "List", "Filter", "Query"];

/// The components of a document, by name.
#[derive(Debug, Default)]
pub(super) struct Components {
    schemas: Map<String, Json>,
    /// For each resource of the catalog, the name that its components begin with.
    titles: Vec<String>,
}

impl Components {
    pub(super) fn of(lens: &Lens<'_>) -> Self {
        let mut components = Self::default();
        components.schemas.insert("Problem".to_owned(), problem());
        components.schemas.insert("Page".to_owned(), page());
        for entry in lens.catalog.entries() {
            let title = components.free_title(&pascal(&entry.definition.title));
            components.titles.push(title);
        }
        for entry in lens.catalog.entries().iter().filter(|entry| lens.shows_resource(entry)) {
            components.add_resource(lens, entry);
        }
        components
    }

    /// The name that a resource's components begin with.
    pub(super) fn title(&self, resource: usize) -> &str {
        &self.titles[resource]
    }

    pub(super) fn into_schemas(self) -> Json {
        Json::Object(self.schemas)
    }

    /// A title that no other resource has.
    fn free_title(&self, wanted: &str) -> String {
        let derived = |title: &str| SUFFIXES.map(|suffix| format!("{title}{suffix}"));
        let taken = |name: &str| {
            derived(name).iter().any(|name| {
                self.schemas.contains_key(name)
                    || self.titles.iter().any(|title| derived(title).contains(name))
            })
        };
        if !taken(wanted) {
            return wanted.to_owned();
        }
        let mut number = 2;
        while taken(&format!("{wanted}{number}")) {
            number += 1;
        }
        format!("{wanted}{number}")
    }

    /// Adds a component that is none of a resource's shapes, and what it refers to.
    pub(super) fn add(&mut self, name: &str, schema: Json) {
        let mut schema = schema;
        decimals::spell(&mut schema, false);
        let schema = self.hoist(name, schema);
        self.schemas.insert(name.to_owned(), schema);
    }

    fn add_resource(&mut self, lens: &Lens<'_>, entry: &Entry) {
        let title = self.titles[entry.position].clone();
        let bodies = &entry.definition.bodies;
        let hidden = |field: usize| !lens.shows(entry, field);
        let closed = |field: usize| !lens.takes(entry, field);
        let mut answer = without(entry, bodies.answer.clone(), hidden);
        self.open_to_selection(lens, entry, &mut answer);
        if let Some(description) = &entry.definition.description {
            answer["description"] = Json::from(description.as_str());
        }
        for (suffix, schema) in [
            ("", answer),
            ("Create", without(entry, bodies.create.clone(), closed)),
            // The path of a PUT says the id; a body may repeat it and never needs to.
            ("Replace", without(entry, bodies.replace.clone(), |at| at == entry.schema.id || closed(at))),
            ("Patch", without(entry, bodies.update.clone(), closed)),
        ] {
            // A patch may leave out at every depth what the other shapes require.
            let mut schema = schema;
            decimals::spell(&mut schema, !suffix.is_empty());
            let prefix = if suffix == "Patch" { format!("{title}Patch") } else { title.clone() };
            let schema = self.hoist(&prefix, schema);
            self.schemas.insert(format!("{title}{suffix}"), schema);
        }
        let list = json!({
            "type": "object",
            "properties": {
                "items": {"type": "array", "items": reference(&title)},
                "page": reference("Page"),
            },
            "required": ["items", "page"],
            "additionalProperties": false,
        });
        self.schemas.insert(format!("{title}List"), list);
        self.schemas.insert(format!("{title}Filter"), filter(&title, lens, entry));
        self.schemas.insert(format!("{title}Query"), query(&title, lens, entry));
        if entry.definition.audit.is_some() {
            self.schemas.insert("History".to_owned(), history());
        }
        if entry.definition.tree.is_some() {
            self.schemas.insert(format!("{title}_Subtree"), subtree(&title));
        }
        if let Some(bulk) = &entry.definition.bulk {
            bulk::add(&mut self.schemas, &title, entry, bulk);
        }
        for declared in &entry.definition.actions {
            let input = Some(&declared.action.input.schema);
            for (schema, suffix) in [(input, "Input"), (declared.action.output.as_ref(), "Output")] {
                if let Some(schema) = schema {
                    self.add(&of_action(&title, &declared.name, suffix), schema.clone());
                }
            }
        }
    }

    /// `fields` leaves members out and `include` adds some, so none is required and relations may stand there.
    fn open_to_selection(&self, lens: &Lens<'_>, entry: &Entry, answer: &mut Json) {
        if let Json::Object(map) = &mut *answer {
            map.remove("required");
        }
        for relation in lens.includes(entry) {
            let target = reference(&self.titles[relation.target]);
            answer["properties"][&relation.link.name] = match relation.link.cardinality {
                resourceful_contract::Cardinality::One => {
                    json!({"anyOf": [target, {"type": "null"}]})
                }
                resourceful_contract::Cardinality::Many => {
                    json!({"type": "array", "items": target})
                }
            };
        }
    }

    /// Moves a schema's `$defs` into the components, and its references to where they stand then.
    fn hoist(&mut self, title: &str, mut schema: Json) -> Json {
        let Some(definitions) = schema.as_object_mut().and_then(|map| map.shift_remove("$defs")) else {
            return schema;
        };
        let Json::Object(definitions) = definitions else {
            return schema;
        };
        let free = |name: String| {
            // A definition may be called as one of the shapes is.
            if SUFFIXES.iter().any(|suffix| name == format!("{title}{suffix}")) {
                format!("{name}_")
            } else {
                name
            }
        };
        let names: Vec<(String, String)> =
            definitions.keys().map(|name| (name.clone(), free(format!("{title}{}", pascal(name))))).collect();
        redirect(&mut schema, &names);
        for ((_, to), mut definition) in names.iter().zip(definitions.into_iter().map(|(_, schema)| schema)) {
            redirect(&mut definition, &names);
            self.schemas.insert(to.clone(), definition);
        }
        schema
    }
}

/// What lies below an item.
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
    let maybe = json!({"type": ["string", "null"]});
    let change = json!({
        "type": "object",
        "description": "From what to what; of a field that is never shown only that it was changed.",
        "properties": {"from": {}, "to": {}},
        "additionalProperties": false,
    });
    let entry = json!({
        "type": "object",
        "properties": {
            "operation": {"type": "string"},
            "at": {"type": "string", "format": "date-time"},
            "actor": maybe, "tenant": maybe, "request_id": maybe, "address": maybe,
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

/// A shape without some of its fields.
fn without(entry: &Entry, mut shape: Json, is_out: impl Fn(usize) -> bool) -> Json {
    let fields = entry.schema.fields.iter().enumerate();
    for (_, field) in fields.filter(|(position, _)| is_out(*position)) {
        if let Some(properties) = shape["properties"].as_object_mut() {
            properties.shift_remove(&field.name);
        }
        if let Some(required) = shape.get_mut("required").and_then(Json::as_array_mut) {
            required.retain(|name| *name != field.name.as_str());
        }
    }
    shape
}

/// What the input or the output of an action is called. No title holds an underscore.
pub(super) fn of_action(title: &str, action: &str, suffix: &str) -> String {
    format!("{title}_{}{suffix}", pascal(action))
}

/// `order_line` and `order line` as `OrderLine`.
fn pascal(name: &str) -> String {
    name.split(|character: char| !character.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(|word| {
            let mut characters = word.chars();
            characters
                .next()
                .map(char::to_uppercase)
                .into_iter()
                .flatten()
                .chain(characters)
                .collect::<String>()
        })
        .collect()
}

pub(super) fn reference(name: &str) -> Json {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// Points every `#/$defs/name` at the component that it has become.
fn redirect(schema: &mut Json, names: &[(String, String)]) {
    match schema {
        Json::Object(map) => {
            if let Some(Json::String(to)) = map.get_mut("$ref")
                && let Some(name) = to.strip_prefix("#/$defs/")
                && let Some((_, component)) = names.iter().find(|(from, _)| from == name)
            {
                *to = format!("#/components/schemas/{component}");
            }
            map.values_mut().for_each(|value| redirect(value, names));
        }
        Json::Array(items) => items.iter_mut().for_each(|item| redirect(item, names)),
        _ => {}
    }
}

/// RFC 9457, as every failure is answered.
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
            "code": {"type": "string", "description": "A word for programs."},
            "trace_id": {"type": "string", "description": "Finds the request in the server's log."},
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

/// The tree of the body form. A dotted name filters through a relation.
fn filter(title: &str, lens: &Lens<'_>, entry: &Entry) -> Json {
    let own = reference(&format!("{title}Filter"));
    let mut properties = Map::new();
    for word in ["and", "or"] {
        properties.insert(word.to_owned(), json!({"type": "array", "items": own}));
    }
    properties.insert("not".to_owned(), own);
    for (name, field) in parameters::filterable(lens, entry) {
        properties.insert(name, comparisons(field));
    }
    json!({"type": "object", "properties": properties, "additionalProperties": false})
}

fn comparisons(field: &Field) -> Json {
    let operators = field.field_type.operators().iter().map(|operator| {
        let schema = match *operator {
            "in" | "nin" | "overlaps" => parameters::list(field, 0, 1_000),
            "between" => parameters::list(field, 2, 2),
            "is_null" => json!({"type": "boolean"}),
            "contains" | "starts" | "ends" => parameters::any_text(),
            _ => parameters::value(field),
        };
        ((*operator).to_owned(), schema)
    });
    let object = json!({
        "type": "object",
        "properties": operators.collect::<Map<_, _>>(),
        "additionalProperties": false,
        "minProperties": 1,
    });
    match field.field_type {
        FieldType::Json | FieldType::Array(_) => object,
        _ => json!({"anyOf": [object, parameters::value(field)]}),
    }
}

fn query(title: &str, lens: &Lens<'_>, entry: &Entry) -> Json {
    let mut properties = Map::new();
    let mut add = |name: &str, schema: Json| properties.insert(name.to_owned(), schema);
    add("filter", reference(&format!("{title}Filter")));
    // In a body an empty list says that there is none; a query string cannot say one.
    let may_be_empty = |mut list: Json| {
        if let Some(list) = list.as_object_mut() {
            list.shift_remove("minItems");
        }
        list
    };
    add("sort", may_be_empty(parameters::sort(lens, entry)));
    add("fields", parameters::fields(lens, entry));
    if lens.includes(entry).next().is_some() {
        add("include", may_be_empty(parameters::include(lens, entry)));
    }
    add("limit", parameters::limit(entry));
    add("after", parameters::cursor());
    add("before", parameters::cursor());
    if entry.definition.offset_paging {
        add("page", parameters::page());
    }
    if lens.searches(entry) {
        add("q", parameters::words());
    }
    if parameters::sees_deleted(lens, entry) {
        add("deleted", parameters::deleted());
    }
    json!({
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
        // A page begins at one place.
        "not": {"required": ["after", "before"]},
    })
}
