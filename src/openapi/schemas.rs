//! The components: each resource's shapes, and what all share.

use resourceful_contract::{Field, FieldType};
use serde_json::{Map, Value as Json, json};

use super::parameters;
use crate::engine::{Catalog, Entry};

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
    pub(super) fn of(catalog: &Catalog) -> Self {
        let mut components = Self::default();
        components.schemas.insert("Problem".to_owned(), problem());
        components.schemas.insert("Page".to_owned(), page());
        for entry in catalog.entries() {
            let title = components.free_title(&pascal(&entry.definition.title));
            components.titles.push(title);
        }
        for (position, entry) in catalog.entries().iter().enumerate() {
            components.add_resource(catalog, position, entry);
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

    fn add_resource(&mut self, catalog: &Catalog, position: usize, entry: &Entry) {
        let title = self.titles[position].clone();
        let bodies = &entry.definition.bodies;
        let mut answer = bodies.answer.clone();
        self.open_to_selection(catalog, entry, &mut answer);
        if let Some(description) = &entry.definition.description {
            answer["description"] = Json::from(description.as_str());
        }
        for (suffix, schema) in [
            ("", answer),
            ("Create", bodies.create.clone()),
            ("Replace", without_id(entry, bodies.replace.clone())),
            ("Patch", bodies.update.clone()),
        ] {
            // A patch may leave out at every depth what the other shapes require.
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
        self.schemas.insert(format!("{title}Filter"), filter(&title, catalog, entry));
        self.schemas.insert(format!("{title}Query"), query(&title, entry));
    }

    /// `fields` leaves members out and `include` adds some, so none is required and relations may stand there.
    fn open_to_selection(&self, catalog: &Catalog, entry: &Entry, answer: &mut Json) {
        if let Json::Object(map) = &mut *answer {
            map.remove("required");
        }
        for relation in &entry.links {
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
        debug_assert!(catalog.entries().len() == self.titles.len(), "every resource has a title");
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

/// The path of a PUT says the id; a body may repeat it and never needs to.
fn without_id(entry: &Entry, mut body: Json) -> Json {
    if let Some(properties) = body["properties"].as_object_mut() {
        properties.shift_remove(&entry.schema.id_field().name);
    }
    body
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
fn filter(title: &str, catalog: &Catalog, entry: &Entry) -> Json {
    let own = reference(&format!("{title}Filter"));
    let mut properties = Map::new();
    for word in ["and", "or"] {
        properties.insert(word.to_owned(), json!({"type": "array", "items": own}));
    }
    properties.insert("not".to_owned(), own);
    for (name, field) in parameters::filterable(catalog, entry) {
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

fn query(title: &str, entry: &Entry) -> Json {
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
    add("sort", may_be_empty(parameters::sort(entry)));
    add("fields", parameters::fields(entry));
    if !entry.links.is_empty() {
        add("include", may_be_empty(parameters::include(entry)));
    }
    add("limit", parameters::limit(entry));
    add("after", parameters::cursor());
    add("before", parameters::cursor());
    if entry.definition.offset_paging {
        add("page", parameters::page());
    }
    if !entry.definition.searchable.is_empty() {
        add("q", parameters::words());
    }
    json!({
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
        // A page begins at one place.
        "not": {"required": ["after", "before"]},
    })
}
