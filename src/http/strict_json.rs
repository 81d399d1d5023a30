//! Strict parsing of JSON: no duplicate members, and every number as it is written.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value as Json};

use super::exact_numbers;
use crate::error::Fault;

/// The prefix of names with a special meaning to the parser itself: text below them would be parsed as JSON again,
/// however deep, on the stack.
const PRIVATE_PREFIX: &str = "$serde_json::private::";

/// Why a text is not accepted.
#[derive(Debug)]
pub(super) enum ParseFailure {
    /// It is not JSON, or names a member twice.
    Json(serde_json::Error),
    /// It has numbers that would not be kept as they are written.
    Numbers(Vec<Fault>),
}

/// Reads JSON in which no object names a member twice and every number is kept as it is written.
///
/// # Errors
/// If it is not JSON, names a member twice, or has a number that would not be kept.
pub(super) fn parse(bytes: &[u8]) -> Result<Json, ParseFailure> {
    let has_floats = Cell::new(false);
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let read = Strict(&has_floats).deserialize(&mut reader).and_then(|json| reader.end().map(|()| json));
    let may_be_inexact = match &read {
        Ok(_) => has_floats.get(),
        Err(error) => error.to_string().starts_with("number out of range"),
    };
    let faults = if may_be_inexact { exact_numbers::inexact_numbers(bytes) } else { Vec::new() };
    if faults.is_empty() { read.map_err(ParseFailure::Json) } else { Err(ParseFailure::Numbers(faults)) }
}

/// Refuses duplicate members: one of two values would be ignored, and parsers disagree which. Records whether there is
/// a number that is read as a double.
#[derive(Clone, Copy)]
struct Strict<'a>(&'a Cell<bool>);

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Json;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::from(value))
    }

    /// JSON has one kind of number, so `3.0` is 3 (JSON Schema 2020-12, 6.1.1).
    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        self.0.set(true);
        Ok(resourceful_contract::json::from_float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::from(value))
    }

    fn visit_string<E>(self, value: String) -> Result<Json, E> {
        Ok(Json::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            array.push(item);
        }
        Ok(Json::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(self)?;
            if name.starts_with(PRIVATE_PREFIX) {
                return Err(serde::de::Error::custom(format_args!("`{name}` cannot be a name")));
            }
            if object.contains_key(&name) {
                return Err(serde::de::Error::custom(format_args!("`{name}` occurs twice in one object")));
            }
            object.insert(name, value);
        }
        Ok(Json::Object(object))
    }
}
