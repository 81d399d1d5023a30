//! Schemas of decimals in the document: as text, with as many digits as are stored.
//!
//! A body may contain a decimal as a JSON number too, if that loses no digit; but client generators make a double of
//! such a schema, which loses digits.

use resourceful_contract::Schema;
use serde_json::{Map, Value as Json, json};

/// Pattern of decimals in responses.
const ANSWERED: &str = "^-?[0-9]{1,29}(\\.[0-9]{1,28})?$";
/// Pattern of decimals in requests: with the length, at most the 28 digits that are always stored.
const ASKED: &str = "^-?[0-9]{1,28}(\\.[0-9]{1,28})?$";
const MAX_LENGTH: usize = 29;

/// Describes the decimals inside a schema; in request schemas (`asked`) with the limits of what is always stored.
pub(super) fn spell(schema: &mut Json, asked: bool) {
    match schema {
        Json::Object(map) => {
            for (name, inner) in map.iter_mut() {
                // The first hold values, not schemas; definitions are shared with responses.
                if !matches!(name.as_str(), "const" | "enum" | "default" | "examples") {
                    spell(inner, asked && name != "$defs");
                }
            }
            if Schema::describes_decimal(map) {
                describe(map, asked);
            }
        }
        Json::Array(items) => items.iter_mut().for_each(|item| spell(item, asked)),
        _ => {}
    }
}

/// A decimal that a filter compares with.
pub(super) fn value() -> Json {
    json!({"type": "string", "format": "decimal", "pattern": ASKED, "maxLength": MAX_LENGTH})
}

fn describe(map: &mut Map<String, Json>, asked: bool) {
    let nullable = match map.get("type") {
        Some(Json::Array(types)) => types.iter().any(|one| one == "null"),
        _ => false,
    };
    // A pattern next to the format is the model's own.
    let is_own = map.contains_key("format") && map.contains_key("pattern");
    map.insert("type".to_owned(), if nullable { json!(["string", "null"]) } else { json!("string") });
    map.insert("format".to_owned(), json!("decimal"));
    if !is_own {
        map.insert("pattern".to_owned(), json!(if asked { ASKED } else { ANSWERED }));
    }
    if asked && !map.contains_key("maxLength") {
        map.insert("maxLength".to_owned(), json!(MAX_LENGTH));
    }
}
