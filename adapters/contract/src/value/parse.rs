//! Text to value, by the field's declared type and never by how the text looks.

use std::fmt;

use chrono::{DateTime, NaiveDate, SubsecRound, Utc};
use rust_decimal::Decimal;
use uuid::Uuid;

use crate::{FieldType, ScalarType, Value};

/// Why a text or a JSON value is not one of a field's type: what would be right.
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
    /// Reads text as a value of this type, as a query string or a path segment gives it.
    ///
    /// For an array the text is one element. A time without a zone is malformed, a zone other than UTC is
    /// converted (RFC 3339).
    ///
    /// # Errors
    /// [`Malformed`] where the text is not a value of this type.
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
    /// Reads text as a value of this type; see [`FieldType::parse`].
    ///
    /// # Errors
    /// [`Malformed`] where the text is not a value of this type.
    pub fn parse(self, text: &str) -> Result<Value, Malformed> {
        match self {
            Self::Boolean => match text {
                "true" => Ok(Value::Boolean(true)),
                "false" => Ok(Value::Boolean(false)),
                _ => Err(Malformed::expected("true or false")),
            },
            Self::Integer => integer(text).map(Value::Integer).ok_or(Malformed::expected("a 64-bit integer")),
            Self::Float => float(text).map(Value::Float).ok_or(Malformed::expected("a number")),
            Self::Decimal => {
                decimal(text).map(Value::Decimal).ok_or(Malformed::expected("a decimal of at most 28 digits"))
            }
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
    // `+5` is a number to Rust and a space with a five to a URL: one spelling only.
    text.starts_with(|first: char| first == '-' || first.is_ascii_digit()).then(|| text.parse().ok())?
}

fn float(text: &str) -> Option<f64> {
    // Rust also reads `inf`, `NaN` and `.5`; JSON has none of them.
    text.starts_with(|first: char| first == '-' || first.is_ascii_digit())
        .then(|| text.parse().ok())?
        .filter(|number: &f64| number.is_finite())
}

fn decimal(text: &str) -> Option<Decimal> {
    if !text.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
        return None;
    }
    Decimal::from_str_exact(text)
        .or_else(|_| Decimal::from_scientific(text))
        .ok()
        .map(|number| number.normalize())
}

fn uuid(text: &str) -> Option<Uuid> {
    (text.len() == 36).then(|| Uuid::try_parse(text).ok())?
}

fn datetime(text: &str) -> Option<DateTime<Utc>> {
    let instant = DateTime::parse_from_rfc3339(text).ok()?.with_timezone(&Utc);
    // Four-digit years are what every database and RFC 3339 itself agree on.
    let year = chrono::Datelike::year(&instant);
    (1..=9999).contains(&year).then(|| instant.trunc_subsecs(6))
}

fn date(text: &str) -> Option<NaiveDate> {
    // Ten bytes keep out signs and padding that chrono would let pass.
    (text.len() == 10 && text.starts_with(|first: char| first.is_ascii_digit()) && text != "0000")
        .then(|| NaiveDate::parse_from_str(text, "%Y-%m-%d").ok())?
        .filter(|date| chrono::Datelike::year(date) >= 1)
}
