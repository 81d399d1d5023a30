//! The Components Object: schemas, parameters, headers and responses that a document refers to by name (OpenAPI 3.1,
//! 4.8.7).
//!
//! utoipa's schema type drops JSON Schema keywords that it does not know. Schemas therefore stay JSON: inside utoipa's
//! types a numbered reference stands for each of them, and they are inserted after the document is serialized.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};

use serde_json::{Map, Value as Json};
use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::path::Parameter;
use utoipa::openapi::response::Response;
use utoipa::openapi::schema::Schema;
use utoipa::openapi::{ComponentsBuilder, Ref, RefOr};

const INLINE_PREFIX: &str = "#/x-schemas/";
/// The prefix of references to components.
const COMPONENTS: &str = "#/components/";

/// The components of a document, by name.
#[derive(Default)]
pub(super) struct Components {
    pub(super) schemas: Map<String, Json>,
    parameters: BTreeMap<String, Parameter>,
    headers: BTreeMap<String, Header>,
    responses: BTreeMap<String, Response>,
    /// Schemas inside parameters, headers and media types, by the numbers of their references.
    inlined: Vec<Json>,
}

impl Components {
    /// Adds a schema that is inserted where it is used.
    pub(super) fn inline(&mut self, schema: Json) -> RefOr<Schema> {
        self.inlined.push(schema);
        RefOr::Ref(Ref::new(format!("{INLINE_PREFIX}{}", self.inlined.len() - 1)))
    }

    /// Adds a schema that several others share, and returns a reference to it. If its name is another schema's, it gets
    /// a number.
    pub(super) fn add_shared(&mut self, name: &str, schema: Json) -> Json {
        let numbered = (2..).map(|number| format!("{name}{number}"));
        let mut names = std::iter::once(name.to_owned()).chain(numbered);
        let is_free = |name: &String| self.schemas.get(name).is_none_or(|known| *known == schema);
        let name = names.find(is_free).unwrap_or_else(|| name.to_owned());
        let reference = reference(&name);
        self.schemas.insert(name, schema);
        reference
    }

    /// A reference to a parameter, which is added under this name unless there is one already.
    pub(super) fn parameter(
        &mut self,
        name: &str,
        make: impl FnOnce(&mut Self) -> Parameter,
    ) -> RefOr<Parameter> {
        let name = &*component_name(name);
        if !self.parameters.contains_key(name) {
            let parameter = make(self);
            self.parameters.insert(name.to_owned(), parameter);
        }
        RefOr::Ref(Ref::new(format!("{COMPONENTS}parameters/{name}")))
    }

    /// A reference to a response header, whose component has the header's own name.
    pub(super) fn header(&mut self, name: &str, description: &str) -> Ref {
        if !self.headers.contains_key(name) {
            let schema = self.inline(serde_json::json!({"type": "string"}));
            let header = HeaderBuilder::new().schema(Some(schema)).description(Some(description)).build();
            self.headers.insert(name.to_owned(), header);
        }
        Ref::new(format!("{COMPONENTS}headers/{name}"))
    }

    /// A reference to a response, which is added under this name unless there is one already.
    pub(super) fn response(
        &mut self,
        name: &str,
        make: impl FnOnce(&mut Self) -> Response,
    ) -> RefOr<Response> {
        if !self.responses.contains_key(name) {
            let response = make(self);
            self.responses.insert(name.to_owned(), response);
        }
        RefOr::Ref(Ref::new(format!("{COMPONENTS}responses/{name}")))
    }

    /// Adds the components that are of utoipa's own types.
    pub(super) fn add_to_builder(&mut self, builder: ComponentsBuilder) -> ComponentsBuilder {
        let mut builder = builder;
        for (name, parameter) in std::mem::take(&mut self.parameters) {
            builder = builder.parameter(name, parameter);
        }
        for (name, header) in std::mem::take(&mut self.headers) {
            builder = builder.header(name, header);
        }
        for (name, response) in std::mem::take(&mut self.responses) {
            builder = builder.response(name, response);
        }
        builder
    }

    /// Inserts every schema at its place in the serialized document.
    pub(super) fn place(self, document: &mut Json) {
        place(&self.inlined, document);
        document["components"]["schemas"] = Json::Object(self.schemas);
    }
}

/// A valid component name: letters, digits, `.`, `-` and `_` (OpenAPI 3.1, 4.8.7.1). A digest distinguishes names that
/// differ in other characters only.
fn component_name(name: &str) -> Cow<'_, str> {
    let is_kept = |character: char| character.is_ascii_alphanumeric() || "._-".contains(character);
    if name.chars().all(is_kept) {
        return Cow::Borrowed(name);
    }
    let sanitized: String = name.chars().filter(|character| is_kept(*character)).collect();
    Cow::Owned(format!("{sanitized}.{}", &blake3::hash(name.as_bytes()).to_hex()[..8]))
}

fn place(schemas: &[Json], document: &mut Json) {
    match document {
        Json::Object(map) => {
            let number = map.get("$ref").and_then(Json::as_str).and_then(|to| to.strip_prefix(INLINE_PREFIX));
            if let Some(schema) = number.and_then(|number| schemas.get(number.parse::<usize>().ok()?)) {
                *document = schema.clone();
            } else {
                map.values_mut().for_each(|value| place(schemas, value));
            }
        }
        Json::Array(items) => items.iter_mut().for_each(|item| place(schemas, item)),
        _ => {}
    }
}

/// A reference to a schema of the components, for utoipa's types.
pub(super) fn schema(name: &str) -> RefOr<Schema> {
    RefOr::Ref(Ref::from_schema_name(name))
}

/// A reference to a schema of the components, as JSON.
pub(super) fn reference(name: &str) -> Json {
    serde_json::json!({"$ref": format!("{COMPONENTS}schemas/{name}")})
}

/// Removes the components that no path refers to, such as the schemas of fields that the caller does not see: their
/// names must not be visible either.
pub(super) fn remove_unused(document: &mut Json) {
    let mut used = HashSet::new();
    let mut pending = vec![&document["paths"]];
    while let Some(json) = pending.pop() {
        match json {
            Json::Array(items) => pending.extend(items),
            Json::Object(members) => {
                let target = members.get("$ref").and_then(Json::as_str);
                let target = target.and_then(|to| to.strip_prefix(COMPONENTS)?.split_once('/'));
                if let Some((section, name)) = target
                    && used.insert((section.to_owned(), name.to_owned()))
                {
                    pending.push(&document["components"][section][name]);
                }
                pending.extend(members.values());
            }
            _ => {}
        }
    }
    for section in ["schemas", "parameters", "headers", "responses"] {
        if let Some(components) = document["components"].get_mut(section).and_then(Json::as_object_mut) {
            components.retain(|name, _| used.contains(&(section.to_owned(), name.clone())));
        }
    }
}
