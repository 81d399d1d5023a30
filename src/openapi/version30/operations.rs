//! Converts operations for older generators, which support neither `deepObject`, nor several media types of one body,
//! nor success responses that differ. The socket's path is left out, since they do not accept its 101 response.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Map, Value as Json, json};

const PARAMETERS: &str = "#/components/parameters/";
const JSON_MEDIA_TYPE: &str = "application/json";

/// Converts the operations of a document, and the parameters that they share.
pub(super) fn convert(document: &mut Json) {
    let flattened = flatten(document);
    let parameters = document["components"]["parameters"].clone();
    let mut unions = BTreeMap::new();
    if let Some(paths) = document["paths"].as_object_mut() {
        paths.retain(|_, path| path.pointer("/get/responses/101").is_none());
    }
    let paths = document["paths"].as_object_mut().into_iter().flat_map(Map::values_mut);
    for operation in paths.filter_map(Json::as_object_mut).flat_map(Map::values_mut) {
        if let Some(list) = operation.get_mut("parameters").and_then(Json::as_array_mut) {
            *list = distinct(list, &flattened, &parameters);
        }
        if let Some(content) = operation.pointer_mut("/requestBody/content").and_then(Json::as_object_mut)
            && content.contains_key(JSON_MEDIA_TYPE)
        {
            content.retain(|media_type, _| media_type == JSON_MEDIA_TYPE);
        }
        merge_successes(operation, &mut unions);
    }
    for (name, union) in unions {
        document["components"]["schemas"][name] = union;
    }
}

/// Replaces each parameter of the style `deepObject` by one for each operator; returns the new names by the original
/// name.
fn flatten(document: &mut Json) -> BTreeMap<String, Vec<String>> {
    let Json::Object(parameters) = document["components"]["parameters"].take() else {
        return BTreeMap::new();
    };
    let mut flattened = BTreeMap::new();
    let mut retained = Map::new();
    for (name, parameter) in parameters {
        if parameter["style"] != "deepObject" {
            retained.insert(name, parameter);
            continue;
        }
        let schema = parameter["schema"]["$ref"].as_str().and_then(|to| to.strip_prefix('#'));
        let schema = schema.and_then(|to| document.pointer(to)).cloned().unwrap_or_default();
        let mut names = Vec::new();
        for (suffix, operator, mut schema) in operators(&schema) {
            let name = format!("{name}{suffix}");
            let path = parameter["name"].as_str().unwrap_or_default();
            let about = schema.as_object_mut().and_then(|map| map.shift_remove("description"));
            let about = about.as_ref().and_then(Json::as_str).unwrap_or("Equal to this.");
            let about = format!("`{path}`: {about}");
            let one = json!({
                "name": format!("{path}{operator}"),
                "in": "query",
                "description": about,
                "required": false,
                "schema": schema,
            });
            retained.insert(name.clone(), one);
            names.push(name);
        }
        flattened.insert(name, names);
    }
    document["components"]["parameters"] = Json::Object(retained);
    flattened
}

/// The operators of a filter, each with the suffix of its component's name, the suffix of its own name, and its schema.
fn operators(schema: &Json) -> Vec<(String, String, Json)> {
    let alternatives = schema.get("anyOf").and_then(Json::as_array).map(Vec::as_slice);
    let (equality, object) = match alternatives {
        Some([value, object]) => (Some(value), object),
        _ => (None, schema),
    };
    let plain = equality.map(|value| (String::new(), String::new(), value.clone()));
    let members = object["properties"].as_object().into_iter().flatten();
    let others = members.filter(|(operator, _)| equality.is_none() || *operator != "eq");
    let others =
        others.map(|(operator, schema)| (format!(".{operator}"), format!("[{operator}]"), schema.clone()));
    plain.into_iter().chain(others).collect()
}

/// The parameters of an operation. Of several whose names become one identifier the first is kept: `country_code` of a
/// city, and not `country.code`, which generators cannot distinguish from it.
fn distinct(list: &[Json], flattened: &BTreeMap<String, Vec<String>>, parameters: &Json) -> Vec<Json> {
    let mut identifiers = HashSet::new();
    let mut retained = Vec::new();
    for parameter in list {
        let name = parameter["$ref"].as_str().and_then(|to| to.strip_prefix(PARAMETERS)).unwrap_or_default();
        let names = flattened.get(name).cloned().unwrap_or_else(|| vec![name.to_owned()]);
        for name in names {
            let parameter_name = parameters[&name]["name"].as_str().unwrap_or_default();
            if identifiers.insert(identifier(parameter_name)) {
                retained.push(json!({"$ref": format!("{PARAMETERS}{name}")}));
            }
        }
    }
    retained
}

/// A name reduced to an identifier, as in most programming languages.
pub(super) fn identifier(name: &str) -> String {
    let words = name.split(|character: char| !character.is_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("_").to_lowercase()
}

/// Unites success responses with different JSON schemas under one `oneOf`.
fn merge_successes(operation: &mut Json, unions: &mut BTreeMap<String, Json>) {
    let Some(responses) = operation.get_mut("responses").and_then(Json::as_object_mut) else { return };
    let mut schemas: Vec<Json> = Vec::new();
    for response in
        responses.iter().filter(|(status, _)| status.starts_with('2')).map(|(_, response)| response)
    {
        let schema = &response["content"][JSON_MEDIA_TYPE]["schema"];
        if !schema.is_null() && !schemas.contains(schema) {
            schemas.push(schema.clone());
        }
    }
    if schemas.len() < 2 {
        return;
    }
    let names = schemas.iter().filter_map(|schema| schema["$ref"].as_str()?.rsplit('/').next());
    let name = names.collect::<Vec<_>>().join("Or");
    for (_, response) in responses.iter_mut().filter(|(status, _)| status.starts_with('2')) {
        if let Some(schema) = response.pointer_mut("/content/application~1json/schema") {
            *schema = json!({"$ref": format!("#/components/schemas/{name}")});
        }
    }
    unions.insert(name, json!({"oneOf": schemas}));
}
