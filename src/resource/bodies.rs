//! The JSON Schemas of an item in responses and in the bodies of creates, updates and replacements, derived from its
//! storage schema.

use jsonschema::Validator;
use resourceful_contract::{Field, FieldType, Schema};
use serde_json::{Map, Value as Json, json};

use super::exact_numbers::MAX_FLOAT32;
use super::validate::compile;

/// The JSON Schemas of an item's bodies, and the validators compiled from them.
#[derive(Debug)]
pub(crate) struct BodySchemas {
    /// An item in responses.
    pub(crate) response: Json,
    /// The body of a POST.
    pub(crate) create: Json,
    /// The body of a PUT.
    pub(crate) replace: Json,
    /// The body of a PATCH.
    pub(crate) update: Json,
    /// Validator of a POST body.
    pub(crate) create_validator: Validator,
    /// Validator of a PUT body.
    pub(crate) replace_validator: Validator,
    /// Validator of a whole item, as it will be stored.
    pub(crate) item_validator: Validator,
}

impl BodySchemas {
    /// Derives every schema and validator.
    ///
    /// # Errors
    /// The error of the model's JSON Schema, as the validator reports it.
    pub(super) fn derive(schema: &Schema, root: &Json, client_ids: bool) -> Result<Self, String> {
        let required: Vec<&str> = root
            .get("required")
            .and_then(Json::as_array)
            .map(|names| names.iter().filter_map(Json::as_str).collect())
            .unwrap_or_default();
        let builder = BodySchemaBuilder { schema, root, required };
        let id = schema.id;
        let writable = |position: usize, field: &Field| {
            if position == id { client_ids } else { !field.read_only && !is_internal(field) }
        };
        let create = builder.body(writable, &Required::AsDeclared);
        // The path of a PUT contains the id, so its body need not.
        let replace = builder.body(writable, &Required::AsDeclaredBut(&schema.fields[id].name));
        let mut update =
            builder.body(|position, field| position != id && writable(position, field), &Required::Nothing);
        make_optional(&mut update);
        let response = builder.body(|_, field| !field.hidden, &Required::Everything);
        let assembled = builder.body(|_, field| !is_internal(field), &Required::AsDeclared);
        Ok(Self {
            create_validator: compile(&create)?,
            replace_validator: compile(&replace)?,
            item_validator: compile(&assembled)?,
            response,
            create,
            replace,
            update,
        })
    }
}

/// Whether a field is internal: neither shown nor accepted.
pub(crate) fn is_internal(field: &Field) -> bool {
    field.hidden && !field.write_only
}

enum Required<'a> {
    Nothing,
    AsDeclared,
    AsDeclaredBut(&'a str),
    Everything,
}

struct BodySchemaBuilder<'a> {
    schema: &'a Schema,
    root: &'a Json,
    required: Vec<&'a str>,
}

impl BodySchemaBuilder<'_> {
    fn body(&self, keep: impl Fn(usize, &Field) -> bool, required: &Required<'_>) -> Json {
        let mut properties = Map::new();
        let mut names = Vec::new();
        for (position, field) in self.schema.fields.iter().enumerate() {
            if !keep(position, field) {
                continue;
            }
            let mut property = self.property(field);
            if !matches!(required, Required::Everything) {
                describe_max_bytes(&mut property, field, self.schema.max_bytes(position));
            }
            properties.insert(field.name.clone(), property);
            let name = field.name.as_str();
            let declared = self.required.contains(&name) && field.default().is_none();
            if match required {
                Required::Nothing => false,
                Required::AsDeclared => declared,
                Required::AsDeclaredBut(other) => declared && name != *other,
                Required::Everything => true,
            } {
                names.push(Json::from(name));
            }
        }
        let mut body = json!({
            "type": "object",
            "properties": properties,
            "additionalProperties": false,
        });
        if !names.is_empty() {
            body["required"] = Json::Array(names);
        }
        if let Some(definitions) = self.root.get("$defs") {
            let mut definitions = definitions.clone();
            if let Json::Object(map) = &mut definitions {
                map.values_mut().for_each(add_constraints);
            }
            body["$defs"] = definitions;
        }
        body
    }

    fn property(&self, field: &Field) -> Json {
        let mut property = field.json_schema.clone();
        if let Json::Object(map) = &mut property {
            map.remove("$defs");
            // Whether a field is writable follows from the schema that contains it.
            map.remove("readOnly");
            map.remove("writeOnly");
        }
        add_constraints(&mut property);
        property
    }
}

/// Describes the maximum size in bytes of text that an index accepts, unless the model has a tighter bound. JSON Schema
/// counts characters, so there is no keyword for it.
fn describe_max_bytes(property: &mut Json, field: &Field, max_bytes: Option<usize>) {
    let (Some(max_bytes), Json::Object(map)) = (max_bytes, property) else { return };
    let characters =
        map.get("maxLength").and_then(Json::as_u64).and_then(|max_bytes| usize::try_from(max_bytes).ok());
    let is_tighter = characters.is_some_and(|characters| characters.saturating_mul(4) <= max_bytes);
    if field.field_type != FieldType::Text || is_tighter || field.enum_values().is_some() {
        return;
    }
    let limit = format!("At most {max_bytes} bytes of UTF-8.");
    let described = match field.description() {
        Some(description) => format!("{description}\n\n{limit}"),
        None => limit,
    };
    map.insert("description".to_owned(), Json::String(described));
}

/// Adds the constraints that hold for every resource where a model does not state them: objects have only the declared
/// members, integers have 64 bits, single precision its range, and text has no U+0000. They are enforced, and part of
/// the OpenAPI document.
pub(super) fn add_constraints(schema: &mut Json) {
    let Json::Object(map) = schema else {
        return;
    };
    for keyword in ["properties", "items", "anyOf", "oneOf", "allOf", "additionalProperties", "prefixItems"] {
        match map.get_mut(keyword) {
            // The parts of an `allOf` must not refuse each other's properties.
            Some(Json::Array(parts)) if keyword != "allOf" => parts.iter_mut().for_each(add_constraints),
            Some(Json::Object(inner)) if keyword == "properties" => {
                inner.values_mut().for_each(add_constraints);
            }
            Some(inner @ Json::Object(_)) => add_constraints(inner),
            _ => {}
        }
    }
    forbid_unknown_members(map);
    bound_scalar(map);
}

/// Closes an object, since serde would ignore unknown members without an error.
fn forbid_unknown_members(map: &mut Map<String, Json>) {
    let is_open = map.contains_key("properties")
        && !["additionalProperties", "unevaluatedProperties", "patternProperties"]
            .iter()
            .any(|keyword| map.contains_key(*keyword));
    if is_open {
        let is_composed = ["allOf", "anyOf", "oneOf", "$ref"].iter().any(|key| map.contains_key(*key));
        let keyword = if is_composed { "unevaluatedProperties" } else { "additionalProperties" };
        map.insert(keyword.to_owned(), Json::Bool(false));
    }
}

fn bound_scalar(map: &mut Map<String, Json>) {
    let is = |name: &str| match map.get("type") {
        Some(Json::String(only)) => only == name,
        Some(Json::Array(several)) => several.iter().any(|one| one == name),
        _ => false,
    };
    let (text, integer) = (is("string"), is("integer"));
    let is_single_precision = is("number") && map.get("format").is_some_and(|format| format == "float");
    if map.contains_key("enum") || map.contains_key("const") {
        return;
    }
    // Every enforced format excludes U+0000 itself.
    if text && !map.contains_key("pattern") && !map.contains_key("format") {
        map.insert("pattern".to_owned(), Json::from("^[^\\u0000]*$"));
    }
    let (min, max) = match (integer, is_single_precision) {
        (true, _) => (Json::from(i64::MIN), Json::from(i64::MAX)),
        (_, true) => (Json::from(-MAX_FLOAT32), Json::from(MAX_FLOAT32)),
        _ => return,
    };
    for (bound, exclusive, value) in
        [("minimum", "exclusiveMinimum", min), ("maximum", "exclusiveMaximum", max)]
    {
        if !map.contains_key(bound) && !map.contains_key(exclusive) {
            map.insert(bound.to_owned(), value);
        }
    }
}

/// Makes members optional at every depth: a merge patch names only the members that it changes (RFC 7396).
fn make_optional(schema: &mut Json) {
    match schema {
        Json::Object(map) => {
            // A property may be named `required` too; its value is then an object.
            if map.get("required").is_some_and(Json::is_array) {
                map.shift_remove("required");
            }
            map.values_mut().for_each(make_optional);
        }
        Json::Array(items) => items.iter_mut().for_each(make_optional),
        _ => {}
    }
}
