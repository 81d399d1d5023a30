//! Decimals as a specification invites them: as text, of as many digits as are kept.
//!
//! A body may spell a decimal as a JSON number too, where no digit is lost by that; what a client's generator makes of such
//! a schema is a double, which loses some.

use resourceful_contract::Schema;
use serde_json::{Map, Value as Json, json};

/// What answers hold.
const ANSWERED: &str = "^-?[0-9]{1,29}(\\.[0-9]{1,28})?$";
/// What is asked for: with the length, the 28 digits that are always kept, or fewer.
const ASKED: &str = "^-?[0-9]{1,28}(\\.[0-9]{1,28})?$";
const MAX_LENGTH: usize = 29;

/// Describes the decimals inside a schema; where they are `asked` for, within what is always kept.
pub(super) fn spell(schema: &mut Json, asked: bool) {
    match schema {
        Json::Object(map) => {
            for (name, inner) in map.iter_mut() {
                // The first hold values and no schemas; definitions are shared with answers.
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
