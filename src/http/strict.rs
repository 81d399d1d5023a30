//! JSON that says each thing once.

use std::fmt;

use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value as Json};

/// What names begin with that mean something to the reader itself: the text below them would be read as JSON again, however
/// deep, on the stack.
const PRIVATE: &str = "$serde_json::private::";

/// Reads JSON in which no object names a member twice.
///
/// # Errors
/// Where it is none, or does.
pub(super) fn read(bytes: &[u8]) -> serde_json::Result<Json> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let json = Strict.deserialize(&mut reader)?;
    reader.end().map(|()| json)
}

/// Of two values one would be ignored, and readers disagree which.
struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Json;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
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

    /// JSON knows one kind of number, so `3.0` is 3 (JSON Schema 2020-12, 6.1.1); negative zero keeps its sign.
    #[expect(clippy::cast_possible_truncation, reason = "the range is checked before")]
    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        const EXACT: f64 = 9_007_199_254_740_992.0;
        let whole =
            value.fract() == 0.0 && value.abs() <= EXACT && !(value == 0.0 && value.is_sign_negative());
        Ok(if whole { Json::from(value as i64) } else { Json::from(value) })
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::from(value))
    }

    fn visit_string<E>(self, value: String) -> Result<Json, E> {
        Ok(Json::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(Strict)? {
            array.push(item);
        }
        Ok(Json::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(Strict)?;
            if name.starts_with(PRIVATE) {
                return Err(serde::de::Error::custom(format_args!("`{name}` cannot be a name")));
            }
            if object.contains_key(&name) {
                return Err(serde::de::Error::custom(format_args!("`{name}` stands twice in one object")));
            }
            object.insert(name, value);
        }
        Ok(Json::Object(object))
    }
}
