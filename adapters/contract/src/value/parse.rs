//! Parses text to values, by the field's declared type and never by how the text looks.

use std::fmt;

use chrono::{DateTime, NaiveDate, Utc};
use uuid::Uuid;

use super::number;
use crate::{FieldType, ScalarType, Value};

pub(super) const DOUBLE: Malformed =
    Malformed::expected("a number of the digits that a double keeps, 15 or its shortest spelling");
pub(super) const SINGLE: Malformed =
    Malformed::expected("a number of the digits that single precision keeps, 6 or its shortest spelling");
pub(super) const DECIMAL: Malformed =
    Malformed::expected("a decimal of at most 28 digits, as many of them behind the point");

/// Why a text or a JSON value cannot be parsed as a field's type: the expected form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    expected: &'static str,
}

impl Malformed {
    pub(crate) const fn expected(expected: &'static str) -> Self {
        Self { expected }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}", self.expected)
    }
}

impl std::error::Error for Malformed {}

impl FieldType {
    /// Parses text as a value of this type, as given in a query string or a path segment.
    ///
    /// For an array the text is one element. A time without a zone is malformed; a zone other than UTC is converted (RFC
    /// 3339).
    ///
    /// # Errors
    /// [`Malformed`] if the text is not a value of this type.
    ///
    /// ```
    /// use resourceful_contract::{FieldType, Value};
    ///
    /// assert_eq!(FieldType::Text.parse("00123")?, Value::Text("00123".into()));
    /// assert_eq!(FieldType::Integer.parse("123")?, Value::Integer(123));
    /// assert!(FieldType::Integer.parse("12.5").is_err());
    /// # Ok::<(), resourceful_contract::Malformed>(())
    /// ```
    pub fn parse(&self, text: &str) -> Result<Value, Malformed> {
        match self {
            Self::Boolean => ScalarType::Boolean.parse(text),
            Self::Integer => ScalarType::Integer.parse(text),
            Self::Float => ScalarType::Float.parse(text),
            Self::Float32 => ScalarType::Float32.parse(text),
            Self::Decimal => ScalarType::Decimal.parse(text),
            Self::Text => ScalarType::Text.parse(text),
            Self::Uuid => ScalarType::Uuid.parse(text),
            Self::DateTime => ScalarType::DateTime.parse(text),
            Self::Date => ScalarType::Date.parse(text),
            Self::Array(element) => element.parse(text),
            Self::Json => Err(Malformed::expected("no value: a JSON field can only be tested with is_null")),
        }
    }
}

impl ScalarType {
    /// Parses text as a value of this type; see [`FieldType::parse`].
    ///
    /// # Errors
    /// [`Malformed`] if the text is not a value of this type.
    pub fn parse(self, text: &str) -> Result<Value, Malformed> {
        match self {
            Self::Boolean => match text {
                "true" => Ok(Value::Boolean(true)),
                "false" => Ok(Value::Boolean(false)),
                _ => Err(Malformed::expected("true or false")),
            },
            Self::Integer => integer(text).map(Value::Integer).ok_or(Malformed::expected("a 64-bit integer")),
            Self::Float => number::float(text).map(Value::Float).ok_or(DOUBLE),
            Self::Float32 => number::float32(text).map(Value::Float32).ok_or(SINGLE),
            Self::Decimal => number::decimal(text).map(Value::Decimal).ok_or(DECIMAL),
            Self::Text => {
                if text.contains('\0') {
                    Err(Malformed::expected("text without U+0000"))
                } else {
                    Ok(Value::Text(text.to_owned()))
                }
            }
            Self::Uuid => {
                uuid(text).map(Value::Uuid).ok_or(Malformed::expected("a UUID in its hyphenated form"))
            }
            Self::DateTime => {
                datetime(text).map(Value::DateTime).ok_or(Malformed::expected("an RFC 3339 time with a zone"))
            }
            Self::Date => date(text).map(Value::Date).ok_or(Malformed::expected("a date as YYYY-MM-DD")),
        }
    }
}

fn integer(text: &str) -> Option<i64> {
    // `+5` is a number to Rust, and a space with a five in a URL, so only one form is accepted.
    number::is_number(text).then(|| text.parse().ok())?
}

fn uuid(text: &str) -> Option<Uuid> {
    (text.len() == 36).then(|| Uuid::try_parse(text).ok())?
}

fn datetime(text: &str) -> Option<DateTime<Utc>> {
    let instant = DateTime::parse_from_rfc3339(text).ok()?;
    // A leap second is read as the second after it: no clock of the storages counts it.
    let instant = DateTime::<Utc>::from_timestamp_micros(instant.timestamp_micros())?;
    // Four-digit years are what all databases and RFC 3339 agree on.
    let year = chrono::Datelike::year(&instant);
    (1..=9999).contains(&year).then_some(instant)
}

fn date(text: &str) -> Option<NaiveDate> {
    // The length of ten bytes excludes signs and padding that chrono would accept.
    (text.len() == 10 && text.starts_with(|first: char| first.is_ascii_digit()))
        .then(|| NaiveDate::parse_from_str(text, "%Y-%m-%d").ok())?
        .filter(|date| chrono::Datelike::year(date) >= 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rust_decimal::Decimal;
    use serde_json::json;

    use super::*;

    fn read(field_type: FieldType, text: &str) -> Option<Value> {
        field_type.parse(text).ok()
    }

    #[test]
    fn numbers_follow_json_grammar() {
        for text in
            ["1_000", ".5", "-.5", "1.", "+1", " 1", "1 ", "0x10", "inf", "NaN", "", "-", "1e", "1e+", "--1"]
        {
            for field_type in [FieldType::Integer, FieldType::Float, FieldType::Decimal] {
                assert_eq!(read(field_type, text), None, "{text:?} as {field_type:?}");
            }
        }
        assert_eq!(read(FieldType::Float, "-1.5e3"), Some(Value::Float(-1500.0)));
        assert_eq!(read(FieldType::Decimal, "-1.50"), Some(Value::Decimal(Decimal::new(-15, 1))));
        assert_eq!(read(FieldType::Decimal, "1e3"), Some(Value::Decimal(Decimal::new(1000, 0))));
        assert_eq!(read(FieldType::Float, "1e400"), None);
        assert_eq!(read(FieldType::Integer, "9223372036854775807"), Some(Value::Integer(i64::MAX)));
        assert_eq!(read(FieldType::Integer, "9223372036854775808"), None);
        assert_eq!(read(FieldType::Integer, "1e2"), None);
        for inexact in ["12345678901234567890123456789.5", "0.12345678901234567890123456789", "1e-30", "1e29"]
        {
            assert_eq!(read(FieldType::Decimal, inexact), None, "{inexact}");
        }
        assert_eq!(read(FieldType::Decimal, "1e-28"), Some(Value::Decimal(Decimal::new(1, 28))));
        assert_eq!(
            read(FieldType::Decimal, "1.0000000000000000000000000000000"),
            Some(Value::Decimal(Decimal::ONE))
        );
        assert_eq!(read(FieldType::Float32, "0.1"), Some(Value::Float32(0.1)));
        assert_eq!(read(FieldType::Float32, "0.10000000149011612"), Some(Value::Float32(0.1)));
        for inexact in ["16777217", "0.1000000015", "3.5e38", "1e-60"] {
            assert_eq!(read(FieldType::Float32, inexact), None, "{inexact}");
        }
    }

    #[test]
    fn negative_zero_becomes_positive() {
        for zero in
            [read(FieldType::Float, "-0.0").unwrap(), FieldType::Float.read_json(&json!(-0.0)).unwrap()]
        {
            assert!(matches!(zero, Value::Float(number) if number.is_sign_positive()), "{zero:?}");
        }
    }

    #[test]
    fn times_are_utc_with_microseconds() {
        let utc = |text: &str| read(FieldType::DateTime, text);
        assert_eq!(utc("2026-01-01T01:30:00+01:30"), utc("2026-01-01T00:00:00Z"));
        assert_eq!(utc("2026-01-01T00:00:00.0000019Z"), utc("2026-01-01T00:00:00.000001Z"));
        assert_eq!(utc("2016-12-31T23:59:60Z"), utc("2017-01-01T00:00:00Z"));
        for text in
            ["2026-01-01", "2026-01-01T00:00:00", "2026-02-30T00:00:00Z", "0000-01-01T00:00:00Z", "now"]
        {
            assert_eq!(utc(text), None, "{text}");
        }
    }

    #[test]
    fn dates_must_be_valid_iso_dates() {
        assert!(read(FieldType::Date, "2024-02-29").is_some());
        for text in ["2023-02-29", "0000-01-01", "2024-2-29", "+2024-02-29", "20240229", "2024-02-29Z"] {
            assert_eq!(read(FieldType::Date, text), None, "{text}");
        }
    }

    proptest! {
        /// Written values parse back to the same values, in URLs and in JSON alike.
        #[test]
        fn values_round_trip_through_json(
            integer in any::<i64>(),
            float in any::<f64>().prop_filter("finite", |float| float.is_finite()),
            single in any::<f32>().prop_filter("finite", |single| single.is_finite()),
            mantissa in any::<i64>(),
            scale in 0..28_u32,
            micros in -62_135_596_800_000_000_i64..253_402_300_800_000_000,
            text in "[^\0]*",
        ) {
            let values = [
                (FieldType::Integer, Value::Integer(integer)),
                (FieldType::Float, Value::Float(float + 0.0)),
                (FieldType::Float32, Value::Float32(single + 0.0)),
                (FieldType::Decimal, Value::Decimal(Decimal::new(mantissa, scale).normalize())),
                (FieldType::DateTime, Value::DateTime(DateTime::from_timestamp_micros(micros).unwrap())),
                (FieldType::Text, Value::Text(text)),
            ];
            for (field_type, value) in values {
                let mut written = Vec::new();
                super::super::json::value(&mut written, &value);
                let json: serde_json::Value = serde_json::from_slice(&written).unwrap();
                prop_assert_eq!(&field_type.read_json(&json).unwrap(), &value);
                let rendered = json.as_str().map_or_else(|| json.to_string(), str::to_owned);
                prop_assert_eq!(&field_type.parse(&rendered).unwrap(), &value);
            }
        }

        /// No text makes a parser panic.
        #[test]
        fn parsers_never_panic(text in any::<String>()) {
            for field_type in [
                FieldType::Boolean, FieldType::Integer, FieldType::Float, FieldType::Float32, FieldType::Decimal, FieldType::Text,
                FieldType::Uuid, FieldType::DateTime, FieldType::Date, FieldType::Json,
            ] {
                let _ = field_type.parse(&text);
                let _ = field_type.read_json(&serde_json::Value::String(text.clone()));
            }
        }
    }
}
