//! Numbers that a model's type would round: single precision, doubles and decimals, at any depth.
//!
//! JSON Schema has no keyword for precision, and types round without an error: `f32` and `f64` by IEEE 754,
//! `rust_decimal` beyond 28 digits. The schemas for validation therefore have a keyword of their own, which no
//! published document contains.

use jsonschema::{Keyword, ValidationError};
use resourceful_contract::{ScalarType, Schema};
use serde_json::{Map, Value as Json, json};

/// The largest single-precision number, in its shortest form.
pub(super) const MAX_FLOAT32: f64 = 3.402_823_5e38;

/// The keyword of the validator's schemas for numbers that must not be rounded.
pub(super) const KEYWORD: &str = "x-exact";

/// Adds the keyword wherever a schema describes such numbers.
pub(super) fn add_keyword(schema: &mut Json) {
    match schema {
        Json::Object(map) => {
            let precision = precision(map);
            for (name, inner) in map.iter_mut() {
                // These keywords hold values, not schemas.
                if !matches!(name.as_str(), "const" | "enum" | "default" | "examples") {
                    add_keyword(inner);
                }
            }
            if let Some(precision) = precision {
                map.insert(KEYWORD.to_owned(), json!(precision));
            }
        }
        Json::Array(items) => items.iter_mut().for_each(add_keyword),
        _ => {}
    }
}

fn precision(map: &Map<String, Json>) -> Option<&'static str> {
    if Schema::describes_decimal(map) {
        return Some("decimal");
    }
    let is_number = match map.get("type")? {
        Json::String(only) => only == "number",
        Json::Array(several) => several.iter().any(|one| one == "number"),
        _ => false,
    };
    match map.get("format").and_then(Json::as_str) {
        _ if !is_number => None,
        Some("float") => Some("float"),
        _ => Some("double"),
    }
}

/// The validator of the keyword.
pub(super) fn keyword(precision: &Json) -> Box<dyn for<'i> Keyword<'i>> {
    Box::new(ExactNumber(match precision.as_str() {
        Some("float") => ScalarType::Float32,
        Some("double") => ScalarType::Float,
        _ => ScalarType::Decimal,
    }))
}

struct ExactNumber(ScalarType);

impl ExactNumber {
    /// The message for a value that would be rounded; values of other types are left to other keywords.
    fn fault(&self, json: &Json) -> Option<String> {
        let is_applicable = match json {
            // A number beyond single precision violates the schema's own bounds.
            Json::Number(number) if self.0 == ScalarType::Float32 => {
                number.as_f64().is_some_and(|number| number.abs() <= MAX_FLOAT32)
            }
            Json::Number(_) => true,
            Json::String(text) => {
                self.0 == ScalarType::Decimal && resourceful_contract::json::is_number(text)
            }
            _ => false,
        };
        let parsed = is_applicable.then(|| self.0.read_json(json))?;
        parsed.err().map(|malformed| format!("Would be rounded: {malformed}."))
    }
}

impl<'i> Keyword<'i> for ExactNumber {
    fn validate(&self, json: &'i Json) -> Result<(), ValidationError<'i>> {
        self.fault(json).map_or(Ok(()), |fault| Err(ValidationError::custom(fault)))
    }

    fn is_valid(&self, json: &'i Json) -> bool {
        self.fault(json).is_none()
    }
}
