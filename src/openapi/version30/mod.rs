//! The document in OpenAPI 3.0, for tools that do not support newer versions.
//!
//! The Schema Object of 3.0 is a dialect of its own (OpenAPI 3.0.4, 4.7.24): `nullable` instead of the type `null`,
//! flags for exclusive bounds, and no siblings beside references. Unsupported keywords are left out.

mod operations;

use std::collections::{BTreeMap, HashSet};

use serde_json::{Map, Value as Json, json};

use super::{components, walk};

/// Keywords of JSON Schema that OpenAPI 3.0 does not have.
const UNSUPPORTED_KEYWORDS: [&str; 18] = [
    "$schema",
    "$id",
    "$comment",
    "$defs",
    "$anchor",
    "if",
    "then",
    "else",
    "contains",
    "minContains",
    "maxContains",
    "propertyNames",
    "dependentSchemas",
    "dependentRequired",
    "unevaluatedItems",
    "unevaluatedProperties",
    "contentSchema",
    "contentEncoding",
];

/// Converts a document of 3.1.
pub(super) fn convert(document: &mut Json) {
    document["openapi"] = json!("3.0.3");
    operations::convert(document);
    components::remove_unused(document);
    if let Some(schemas) = document["components"]["schemas"].as_object_mut() {
        let filters = schemas.iter_mut().filter(|(name, _)| name.ends_with("Filter"));
        filters.for_each(|(_, filter)| retain_unique(filter));
    }
    walk::visit_document(document, &mut convert_schema);
    // A nullable reference repeats the type that it refers to: `nullable` has no effect without one.
    let types = types(document);
    walk::visit_document(document, &mut |map| add_missing_type(map, &types));
    if let Some(license) = document["info"].get_mut("license").and_then(Json::as_object_mut) {
        license.shift_remove("identifier");
    }
    let Some(paths) = document["paths"].as_object_mut() else { return };
    for path in paths.values_mut().filter_map(Json::as_object_mut) {
        for operation in path.values_mut() {
            if let Some(security) = operation.get_mut("security").and_then(Json::as_array_mut) {
                convert_security(security);
            }
        }
    }
}

/// Removes members of a filter tree whose names become the identifier of another, as [`operations`] does for
/// parameters.
fn retain_unique(filter: &mut Json) {
    let mut identifiers = HashSet::new();
    let properties = filter.get_mut("properties").and_then(Json::as_object_mut);
    if let Some(properties) = properties.filter(|properties| properties.contains_key("and")) {
        properties.retain(|name, _| identifiers.insert(operations::identifier(name)));
    }
}

/// The type of each schema of the components.
fn types(document: &Json) -> BTreeMap<String, Json> {
    let schemas = document["components"]["schemas"].as_object().into_iter().flatten();
    let of = |(name, schema): (&String, &Json)| {
        Some((format!("#/components/schemas/{name}"), schema.get("type")?.clone()))
    };
    schemas.filter_map(of).collect()
}

fn add_missing_type(map: &mut Map<String, Json>, types: &BTreeMap<String, Json>) {
    if map.contains_key("type") || !map.contains_key("nullable") {
        return;
    }
    let Some(Json::Array(parts)) = map.get("allOf") else { return };
    let of = |part: &Json| {
        let named = part.get("$ref").and_then(Json::as_str).and_then(|name| types.get(name));
        part.get("type").or(named).cloned()
    };
    if let Some(name) = parts.iter().find_map(of) {
        map.insert("type".to_owned(), name);
    }
}

/// Removes the scopes of requirements: in 3.0 only OAuth 2 and OpenID Connect have them (4.7.30), and no scheme here is
/// one of these.
fn convert_security(security: &mut Vec<Json>) {
    let mut distinct: Vec<Json> = Vec::new();
    for mut requirement in security.drain(..) {
        if let Some(schemes) = requirement.as_object_mut() {
            schemes.values_mut().for_each(|rights| *rights = json!([]));
        }
        if !distinct.contains(&requirement) {
            distinct.push(requirement);
        }
    }
    *security = distinct;
}

fn convert_schema(map: &mut Map<String, Json>) {
    convert_members(map);
    convert_null(map);
    convert_bounds(map);
    if let Some(value) = map.shift_remove("const") {
        map.insert("enum".to_owned(), json!([value]));
    }
    if let Some(Json::Array(examples)) = map.shift_remove("examples")
        && let Some(example) = examples.into_iter().next()
    {
        map.insert("example".to_owned(), example);
    }
    if map.shift_remove("contentMediaType").is_some() && !map.contains_key("format") {
        map.insert("format".to_owned(), json!("json"));
    }
    for keyword in UNSUPPORTED_KEYWORDS {
        map.shift_remove(keyword);
    }
    if map.len() > 1
        && let Some(reference) = map.shift_remove("$ref")
    {
        map.insert("allOf".to_owned(), json!([{"$ref": reference}]));
    }
}

/// Describes tuples as arrays of anything, patterns of names as objects of anything, and boolean schemas as objects.
fn convert_members(map: &mut Map<String, Json>) {
    if map.shift_remove("prefixItems").is_some() {
        map.insert("items".to_owned(), json!({}));
    }
    if map.shift_remove("patternProperties").is_some() {
        map.insert("additionalProperties".to_owned(), json!(true));
    }
    let object = |schema: &mut Json| match schema {
        Json::Bool(true) => *schema = json!({}),
        Json::Bool(false) => *schema = json!({"not": {}}),
        _ => {}
    };
    for keyword in ["items", "not"] {
        if let Some(schema) = map.get_mut(keyword) {
            object(schema);
        }
    }
    for keyword in ["properties", "allOf", "anyOf", "oneOf"] {
        match map.get_mut(keyword) {
            Some(Json::Object(schemas)) => schemas.values_mut().for_each(object),
            Some(Json::Array(schemas)) => schemas.iter_mut().for_each(object),
            _ => {}
        }
    }
    if map.get("type").is_some_and(|name| name == "array") && !map.contains_key("items") {
        map.insert("items".to_owned(), json!({}));
    }
}

/// Replaces the type `null` by `nullable`.
fn convert_null(map: &mut Map<String, Json>) {
    if let Some(Json::Array(types)) = map.get("type") {
        let others: Vec<_> = types.iter().filter(|name| *name != "null").cloned().collect();
        let is_nullable = others.len() < types.len();
        map.shift_remove("type");
        if let [only] = others.as_slice() {
            map.insert("type".to_owned(), only.clone());
        } else {
            let any = others.iter().map(|name| match name == "array" {
                true => json!({"type": name, "items": {}}),
                false => json!({"type": name}),
            });
            map.insert("anyOf".to_owned(), any.collect());
        }
        if is_nullable {
            map.insert("nullable".to_owned(), json!(true));
        }
    } else if map.get("type").is_some_and(|name| name == "null") {
        map.insert("type".to_owned(), json!("string"));
        map.insert("nullable".to_owned(), json!(true));
        map.insert("enum".to_owned(), json!([null]));
    }
    for keyword in ["anyOf", "oneOf"] {
        // The alternatives are converted already.
        let is_null = |schema: &Json| *schema == json!({"type": "string", "nullable": true, "enum": [null]});
        let Some(Json::Array(alternatives)) = map.get_mut(keyword) else { continue };
        let before = alternatives.len();
        alternatives.retain(|schema| !is_null(schema));
        if alternatives.len() == before {
            continue;
        }
        if alternatives.len() == 1 {
            let only = map.shift_remove(keyword).unwrap_or_default();
            map.insert("allOf".to_owned(), only);
        }
        map.insert("nullable".to_owned(), json!(true));
    }
}

/// Replaces exclusive bounds by bounds with a flag.
fn convert_bounds(map: &mut Map<String, Json>) {
    for (bound, exclusive) in [("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")] {
        if let Some(value) = map.shift_remove(exclusive) {
            map.insert(bound.to_owned(), value);
            map.insert(exclusive.to_owned(), json!(true));
        }
    }
}
