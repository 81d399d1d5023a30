//! Converts JSON to values, by the field's declared type.

use super::number;
use crate::{FieldType, Malformed, ScalarType, Value};

impl FieldType {
    /// Converts a JSON value to this type; JSON `null` is [`Value::Null`].
    ///
    /// # Errors
    /// [`Malformed`] if the JSON is of another type, or is text that cannot be parsed as this type.
    ///
    /// ```
    /// use resourceful_contract::{FieldType, Value};
    ///
    /// assert_eq!(FieldType::Float.read_json(&serde_json::json!(3))?, Value::Float(3.0));
    /// assert!(FieldType::Integer.read_json(&serde_json::json!("3")).is_err());
    /// # Ok::<(), resourceful_contract::Malformed>(())
    /// ```
    pub fn read_json(&self, json: &serde_json::Value) -> Result<Value, Malformed> {
        if json.is_null() {
            return Ok(Value::Null);
        }
        match self {
            Self::Json => Ok(Value::Json(number::canonical(json))),
            Self::Array(element) => json
                .as_array()
                .ok_or(Malformed::expected("an array"))?
                .iter()
                .map(|item| element.read_json(item))
                .collect::<Result<_, _>>()
                .map(Value::Array),
            scalar => scalar.scalar().ok_or(Malformed::expected("a scalar"))?.read_json(json),
        }
    }
}

impl ScalarType {
    /// Converts a JSON value to this type; see [`FieldType::read_json`].
    ///
    /// # Errors
    /// [`Malformed`] if the JSON is of another type, or is text that cannot be parsed as this type.
    pub fn read_json(self, json: &serde_json::Value) -> Result<Value, Malformed> {
        use serde_json::Value as Json;
        match (self, json) {
            (_, Json::Null) => Ok(Value::Null),
            (Self::Boolean, Json::Bool(flag)) => Ok(Value::Boolean(*flag)),
            (Self::Integer, Json::Number(number)) => {
                to_integer(number).map(Value::Integer).ok_or(Malformed::expected("a 64-bit integer"))
            }
            // The text is more exact than the double for an integer of more than 53 bits, and for single precision.
            (Self::Float, Json::Number(number)) => match number.as_f64() {
                Some(double) if number.is_f64() => Ok(Value::Float(double + 0.0)),
                _ => self.parse(&number.to_string()),
            },
            (Self::Float32 | Self::Decimal, Json::Number(number)) => self.parse(&number.to_string()),
            (Self::Boolean, _) => Err(Malformed::expected("true or false")),
            (Self::Integer, _) => Err(Malformed::expected("a 64-bit integer")),
            (Self::Float | Self::Float32, _) => Err(Malformed::expected("a number")),
            (_, Json::String(text)) => self.parse(text),
            _ => Err(Malformed::expected("text")),
        }
    }
}

/// JSON Schema counts `3.0` as an integer (2020-12, 6.1.1), so it is one here too.
fn to_integer(number: &serde_json::Number) -> Option<i64> {
    number.as_i64().or_else(|| {
        let float = number.as_f64()?;
        // 2^53: beyond it several integers have the same double.
        (float.fract() == 0.0 && float.abs() <= 9_007_199_254_740_992.0).then_some(float as i64)
    })
}
