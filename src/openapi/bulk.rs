//! The request and response schemas of bulk requests.

use serde_json::{Map, Value as Json, json};

use super::components::reference;
use super::parameters;
use crate::catalog::Entry;
use crate::resource::Bulk;

/// Adds the components of a resource's bulk routes.
pub(super) fn add(schemas: &mut Map<String, Json>, title: &str, entry: &Entry, bulk: &Bulk) {
    let several =
        |items: Json| json!({"type": "array", "items": items, "minItems": 1, "maxItems": bulk.max_items});
    let object = |properties: Json, required: &[&str]| json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false});
    let field = entry.schema.id_field();
    let id = field.field_type.json_schema();
    let mut filter = reference(&format!("{title}Filter"));
    filter["minProperties"] = json!(1);
    let max_affected = json!({"type": "integer", "minimum": 1, "maximum": bulk.max_affected});
    let mut patch =
        schemas.get(&format!("{title}Patch")).cloned().unwrap_or_else(|| json!({"type": "object"}));
    patch["properties"][&field.name] = id.clone();
    patch["properties"]["if_match"] = parameters::entity_tag_schema();
    patch["required"] = json!([field.name]);
    let new = reference(&format!("{title}Create"));
    schemas.insert(format!("{title}_BulkCreate"), object(json!({"items": several(new)}), &["items"]));
    let by_filter = |mut properties: Json, required: &[&str]| {
        properties["filter"] = filter.clone();
        properties["max_affected"] = max_affected.clone();
        object(properties, required)
    };
    // Each alternative is a component, because generators name their types by it.
    let mut add = |suffix: &str, schema: Json| {
        let name = format!("{title}_Bulk{suffix}");
        schemas.insert(name.clone(), schema);
        reference(&name)
    };
    let item = add("PatchItem", patch);
    let patch = reference(&format!("{title}Patch"));
    let patches = [
        add("PatchOfItems", object(json!({"items": several(item)}), &["items"])),
        add("PatchByFilter", by_filter(json!({"patch": patch}), &["filter", "patch", "max_affected"])),
    ];
    add("Patch", json!({"oneOf": patches}));
    let deletes = [
        add("DeleteOfItems", object(json!({"ids": several(id)}), &["ids"])),
        add("DeleteByFilter", by_filter(json!({}), &["filter", "max_affected"])),
    ];
    add("Delete", json!({"oneOf": deletes}));
    let items = json!({"type": "array", "items": reference(title)});
    schemas.insert(format!("{title}_BulkItems"), object(json!({"items": items}), &["items"]));
    let affected = object(json!({"affected": {"type": "integer", "minimum": 0}}), &["affected"]);
    schemas.insert("BulkAffected".to_owned(), affected);
    let result = json!({
        "type": "object",
        "properties": {
            "index": {"type": "integer"},
            "status": {"type": "integer"},
            "etag": {"type": "string"},
            "location": {"type": "string"},
            "body": {"type": "object"},
            "problem": reference("Problem"),
        },
        "required": ["index", "status"],
        "additionalProperties": false,
    });
    let results = object(json!({"results": {"type": "array", "items": result}}), &["results"]);
    schemas.insert("BulkResults".to_owned(), results);
}
