//! Visits every schema of a document, and normalizes them for client generators.

use serde_json::{Map, Value as Json};

/// Keywords whose value is one schema.
const SINGLE_KEYWORDS: [&str; 11] = [
    "items",
    "additionalProperties",
    "not",
    "if",
    "then",
    "else",
    "contains",
    "propertyNames",
    "unevaluatedItems",
    "unevaluatedProperties",
    "contentSchema",
];
/// Keywords whose value is an array of schemas.
const ARRAY_KEYWORDS: [&str; 4] = ["allOf", "anyOf", "oneOf", "prefixItems"];
/// Keywords whose value is an object of schemas.
const OBJECT_KEYWORDS: [&str; 4] = ["properties", "patternProperties", "$defs", "dependentSchemas"];

/// Visits a schema and the schemas inside it, the inner ones first.
pub(super) fn schema(json: &mut Json, visit: &mut impl FnMut(&mut Map<String, Json>)) {
    let Json::Object(map) = json else { return };
    for (keyword, value) in map.iter_mut() {
        match value {
            Json::Object(inner) if OBJECT_KEYWORDS.contains(&keyword.as_str()) => {
                inner.values_mut().for_each(|value| schema(value, visit));
            }
            Json::Array(inner) if ARRAY_KEYWORDS.contains(&keyword.as_str()) => {
                inner.iter_mut().for_each(|value| schema(value, visit));
            }
            value if SINGLE_KEYWORDS.contains(&keyword.as_str()) => schema(value, visit),
            _ => {}
        }
    }
    visit(map);
}

/// Visits every schema of a document: the components, and those inside parameters, headers and media types.
pub(super) fn visit_document(document: &mut Json, visit: &mut impl FnMut(&mut Map<String, Json>)) {
    if let Some(components) = document["components"].as_object_mut() {
        for (section, members) in components.iter_mut() {
            match members.as_object_mut() {
                Some(schemas) if section == "schemas" => {
                    schemas.values_mut().for_each(|value| schema(value, visit));
                }
                _ => visit_embedded(members, visit),
            }
        }
    }
    visit_embedded(&mut document["paths"], visit);
}

fn visit_embedded(json: &mut Json, visit: &mut impl FnMut(&mut Map<String, Json>)) {
    match json {
        Json::Object(map) => {
            for (key, value) in map.iter_mut() {
                match key.as_str() {
                    "schema" | "itemSchema" => schema(value, visit),
                    _ => visit_embedded(value, visit),
                }
            }
        }
        Json::Array(items) => items.iter_mut().for_each(|item| visit_embedded(item, visit)),
        _ => {}
    }
}

/// Normalizes a schema for client generators. Titles are left out, because several generators name their types by them
/// and those of Rust types repeat. The bounds of 64 bits are the format `int64`, because JavaScript cannot represent
/// the numbers. U+0000 in a pattern is `\x00`, which every regular expression dialect has.
pub(super) fn normalize(map: &mut Map<String, Json>) {
    if map.get("title").is_some_and(Json::is_string) {
        map.shift_remove("title");
    }
    if let Some(Json::String(pattern)) = map.get_mut("pattern") {
        *pattern = pattern.replace("\\u0000", "\\x00");
    }
    let has_i64_min = map.get("minimum").is_some_and(|bound| bound.as_i64() == Some(i64::MIN));
    let has_i64_max = map.get("maximum").is_some_and(|bound| bound.as_i64() == Some(i64::MAX));
    if has_i64_min {
        map.shift_remove("minimum");
    }
    if has_i64_max {
        map.shift_remove("maximum");
    }
    if has_i64_max && map.get("format").is_none_or(|format| format == "uint64" || format == "uint") {
        map.insert("format".to_owned(), Json::from("int64"));
    }
}
