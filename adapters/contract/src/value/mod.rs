//! Values of fields, and the total order that sorting and cursors rely on.

mod convert;
pub mod fold;
pub mod json;
mod number;
mod parse;

use std::cmp::Ordering;

use chrono::{DateTime, NaiveDate, Utc};
use rust_decimal::Decimal;
use uuid::Uuid;

pub use parse::Malformed;

/// The value of one field.
///
/// Which variant a field holds follows from its [`FieldType`](crate::FieldType) alone; `Null` means absence in any of them.
/// Times are UTC with at most microseconds. Text never contains U+0000, which not every database can store: the engine
/// refuses it beforehand.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// No value.
    Null,
    /// `true` or `false`.
    Boolean(bool),
    /// A signed 64-bit integer.
    Integer(i64),
    /// A finite double; never NaN or infinite.
    Float(f64),
    /// A finite number of single precision; never NaN or infinite.
    Float32(f32),
    /// An exact decimal of up to 28 digits.
    Decimal(Decimal),
    /// Unicode text.
    Text(String),
    /// A UUID of any version.
    Uuid(Uuid),
    /// An instant, in UTC, to the microsecond.
    DateTime(DateTime<Utc>),
    /// A calendar date without a zone.
    Date(NaiveDate),
    /// An object, or any other JSON value; compared only for equality.
    Json(serde_json::Value),
    /// A list of scalars.
    Array(Vec<Value>),
    /// A stored value that the field's type cannot express, such as an infinite timestamp: used only as a sort key of a row
    /// ([`Rows::first`](crate::Rows::first)), for the storage itself to continue from there.
    Opaque(Vec<u8>),
}

impl Value {
    /// Whether this is [`Value::Null`].
    #[must_use]
    pub const fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The sort order: by value within a type, text by its bytes, and null after every value.
    ///
    /// Descending order is the exact reverse, so nulls come first there. Values of different types, which a schema never
    /// mixes in one field, are ordered by the type's position in this enum.
    ///
    /// ```
    /// use resourceful_contract::Value;
    /// use std::cmp::Ordering;
    ///
    /// assert_eq!(Value::Null.compare(&Value::Integer(i64::MAX)), Ordering::Greater);
    /// assert_eq!(Value::Text("Z".into()).compare(&Value::Text("a".into())), Ordering::Less);
    /// ```
    #[must_use]
    pub fn compare(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Null, Self::Null) => Ordering::Equal,
            (Self::Null, _) => Ordering::Greater,
            (_, Self::Null) => Ordering::Less,
            (Self::Boolean(a), Self::Boolean(b)) => a.cmp(b),
            (Self::Integer(a), Self::Integer(b)) => a.cmp(b),
            (Self::Float(a), Self::Float(b)) => {
                // Positive and negative zero are equal.
                if a == b { Ordering::Equal } else { a.total_cmp(b) }
            }
            (Self::Float32(a), Self::Float32(b)) => {
                if a == b {
                    Ordering::Equal
                } else {
                    a.total_cmp(b)
                }
            }
            (Self::Decimal(a), Self::Decimal(b)) => a.cmp(b),
            (Self::Text(a), Self::Text(b)) => a.as_bytes().cmp(b.as_bytes()),
            (Self::Uuid(a), Self::Uuid(b)) => a.cmp(b),
            (Self::DateTime(a), Self::DateTime(b)) => a.cmp(b),
            (Self::Date(a), Self::Date(b)) => a.cmp(b),
            (Self::Opaque(a), Self::Opaque(b)) => a.cmp(b),
            (Self::Array(a), Self::Array(b)) => a
                .iter()
                .zip(b)
                .map(|(a, b)| a.compare(b))
                .find(|order| order.is_ne())
                .unwrap_or_else(|| a.len().cmp(&b.len())),
            // The members of an object are unordered.
            (Self::Json(a), Self::Json(b)) if a == b => Ordering::Equal,
            (Self::Json(a), Self::Json(b)) => a.to_string().cmp(&b.to_string()),
            _ => self.rank().cmp(&other.rank()),
        }
    }

    const fn rank(&self) -> u8 {
        match self {
            Self::Boolean(_) => 0,
            Self::Integer(_) => 1,
            Self::Float(_) => 2,
            Self::Float32(_) => 3,
            Self::Decimal(_) => 4,
            Self::Text(_) => 5,
            Self::Uuid(_) => 6,
            Self::DateTime(_) => 7,
            Self::Date(_) => 8,
            Self::Json(_) => 9,
            Self::Array(_) => 10,
            Self::Opaque(_) => 11,
            Self::Null => 12,
        }
    }
}
