//! Schemas of decimals in the document: as text, with as many digits as are stored.
//!
//! A body may contain a decimal as a JSON number too, if that loses no digit; but client generators make a double of
//! such a schema, which loses digits.

use resourceful_contract::Schema;
use serde_json::{Map, Value as Json, json};

/// Pattern of decimals in responses.
const RESPONSE_PATTERN: &str = "^-?[0-9]{1,29}(\\.[0-9]{1,28})?$";
/// Pattern of decimals in requests: with the length, at most the 28 digits that are always stored.
const REQUEST_PATTERN: &str = "^-?[0-9]{1,28}(\\.[0-9]{1,28})?$";
const MAX_LENGTH: usize = 29;

/// Describes the decimals inside a schema; in request schemas (`asked`) with the limits of what is always stored.
pub(super) fn describe_decimals(schema: &mut Json, is_request: bool) {
    match schema {
        Json::Object(map) => {
            for (name, inner) in map.iter_mut() {
                // The first hold values, not schemas; definitions are shared with responses.
                if !matches!(name.as_str(), "const" | "enum" | "default" | "examples") {
                    describe_decimals(inner, is_request && name != "$defs");
                }
            }
            if Schema::describes_decimal(map) {
                describe(map, is_request);
            }
        }
        Json::Array(items) => items.iter_mut().for_each(|item| describe_decimals(item, is_request)),
        _ => {}
    }
}

/// A decimal that a filter compares with.
pub(super) fn value() -> Json {
    json!({"type": "string", "format": "decimal", "pattern": REQUEST_PATTERN, "maxLength": MAX_LENGTH})
}

fn describe(map: &mut Map<String, Json>, is_request: bool) {
    let is_nullable = match map.get("type") {
        Some(Json::Array(types)) => types.iter().any(|one| one == "null"),
        _ => false,
    };
    // A pattern next to the format is the model's own.
    let has_pattern = map.contains_key("format") && map.contains_key("pattern");
    map.insert("type".to_owned(), if is_nullable { json!(["string", "null"]) } else { json!("string") });
    map.insert("format".to_owned(), json!("decimal"));
    if !has_pattern {
        map.insert("pattern".to_owned(), json!(if is_request { REQUEST_PATTERN } else { RESPONSE_PATTERN }));
    }
    if is_request && !map.contains_key("maxLength") {
        map.insert("maxLength".to_owned(), json!(MAX_LENGTH));
    }
}
