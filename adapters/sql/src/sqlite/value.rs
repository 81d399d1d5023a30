//! Values in SQLite's columns: integers, doubles and text.
//!
//! Booleans are 0 and 1; UUIDs are hyphenated text; times are text in UTC with the offset written `+00:00`, so that
//! they sort as text does; decimals are text, compared by a collation; objects and arrays are JSON text.

use std::cmp::Ordering;

use chrono::{DateTime, NaiveDate, SecondsFormat, Utc};
use resourceful_contract::{FieldType, Value, json};
use rust_decimal::Decimal;
use serde::de::IgnoredAny;
use sqlx::sqlite::{SqliteArguments, SqliteRow, SqliteValueRef};
use sqlx::{Arguments as _, Decode, Row as _, Sqlite, Type, TypeInfo as _, ValueRef as _};
use uuid::Uuid;

use super::search_pattern;
use crate::args::Arg;
use crate::dialect::{CodecError, to_float32};

pub(super) fn bind(args: &mut SqliteArguments, arg: &Arg<'_>) -> Result<(), CodecError> {
    match arg {
        Arg::Number(number) => args.add(*number),
        Arg::Text(text) => args.add(*text),
        Arg::SearchTerm(word) | Arg::AsciiSearchTerm(word) => args.add(search_pattern::search_glob(word)),
        Arg::Elements(_, values) => {
            // Written as in the column, where an array is JSON.
            let mut list = Vec::with_capacity(64);
            json::value(&mut list, &Value::Array(values.to_vec()));
            args.add(String::from_utf8(list)?)
        }
        Arg::Many(_, values) => {
            let mut list = Vec::with_capacity(values.len() * 16);
            list.push(b'[');
            for (position, value) in values.iter().enumerate() {
                if position > 0 {
                    list.push(b',');
                }
                match value {
                    Value::Boolean(flag) => list.push(if *flag { b'1' } else { b'0' }),
                    Value::DateTime(at) => json::text(&mut list, &format_datetime(*at)),
                    other => json::value(&mut list, other),
                }
            }
            list.push(b']');
            args.add(String::from_utf8(list)?)
        }
        Arg::One(_, value) => match value {
            Value::Null => args.add(None::<&str>),
            Value::Boolean(flag) => args.add(i64::from(*flag)),
            Value::Integer(number) => args.add(*number),
            Value::Float(number) => args.add(*number),
            Value::Float32(number) => args.add(f64::from(*number)),
            Value::Decimal(number) => args.add(number.normalize().to_string()),
            Value::Text(text) => args.add(text.as_str()),
            Value::Uuid(id) => args.add(id.hyphenated().to_string()),
            Value::DateTime(at) => args.add(format_datetime(*at)),
            Value::Date(day) => args.add(day.to_string()),
            Value::Json(json) => args.add(json.to_string()),
            Value::Opaque(bytes) => bind_raw(args, bytes),
            Value::Array(_) => {
                let mut text = Vec::with_capacity(64);
                json::value(&mut text, value);
                args.add(String::from_utf8(text)?)
            }
        },
    }
}

/// An instant in its stored form: that of sqlx, in which `+` sorts before the `.` of a fraction.
fn format_datetime(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::AutoSi, false)
}

pub(super) fn write(
    out: &mut Vec<u8>,
    row: &SqliteRow,
    column: usize,
    field_type: FieldType,
) -> Result<(), CodecError> {
    let value = row.try_get_raw(column)?;
    if value.is_null() {
        out.extend_from_slice(b"null");
        return Ok(());
    }
    match field_type {
        FieldType::Integer => json::integer(out, integer(value)?),
        FieldType::Text => json::text(out, text(value)?),
        FieldType::Boolean => json::boolean(out, integer(value)? != 0),
        FieldType::Float => json::float(out, float(value)?),
        FieldType::Float32 => json::float32(out, to_float32(float(value)?)?),
        FieldType::Uuid => json::uuid(out, Uuid::try_parse(text(value)?)?),
        FieldType::DateTime => write_datetime(out, text(value)?)?,
        FieldType::Json => {
            let text = text(value)?;
            // Other programs may have written here; invalid JSON must not become part of a response.
            serde_json::from_str::<IgnoredAny>(text)?;
            out.extend_from_slice(text.as_bytes());
        }
        FieldType::Date | FieldType::Decimal | _ => {
            json::value(out, &parse_text(text(value)?, field_type)?);
        }
    }
    Ok(())
}

pub(super) fn read(row: &SqliteRow, column: usize, field_type: FieldType) -> Result<Value, CodecError> {
    let value = row.try_get_raw(column)?;
    if value.is_null() {
        return Ok(Value::Null);
    }
    Ok(match field_type {
        FieldType::Integer => Value::Integer(integer(value)?),
        FieldType::Boolean => Value::Boolean(integer(value)? != 0),
        FieldType::Float => Value::Float(float(value)?),
        FieldType::Float32 => Value::Float32(to_float32(float(value)?)?),
        _ => parse_text(text(value)?, field_type)?,
    })
}

/// The first byte of an opaque value: its storage class.
const INTEGER: u8 = b'i';
const REAL: u8 = b'r';
const TEXT: u8 = b't';
const BLOB: u8 = b'b';

/// A column's value as stored: its storage class and its content.
pub(super) fn opaque(row: &SqliteRow, column: usize) -> Result<Value, CodecError> {
    let value = row.try_get_raw(column)?;
    if value.is_null() {
        return Ok(Value::Null);
    }
    let (class, content) = match value.type_info().name() {
        "INTEGER" => (INTEGER, <i64 as Decode<Sqlite>>::decode(value)?.to_be_bytes().to_vec()),
        "REAL" => (REAL, <f64 as Decode<Sqlite>>::decode(value)?.to_be_bytes().to_vec()),
        "BLOB" => (BLOB, <&[u8] as Decode<Sqlite>>::decode(value)?.to_vec()),
        _ => (TEXT, <&[u8] as Decode<Sqlite>>::decode(value)?.to_vec()),
    };
    Ok(Value::Opaque([vec![class], content].concat()))
}

fn bind_raw(args: &mut SqliteArguments, bytes: &[u8]) -> Result<(), CodecError> {
    let (class, content) = bytes.split_first().ok_or("a value without a storage class")?;
    match *class {
        INTEGER => args.add(i64::from_be_bytes(content.try_into()?)),
        REAL => args.add(f64::from_be_bytes(content.try_into()?)),
        TEXT => args.add(String::from_utf8(content.to_vec())?),
        _ => args.add(content.to_vec()),
    }
}

/// A value for a cursor: in its stored form, where the same value may be stored in another form that is sorted elsewhere.
pub(super) fn cursor_value(
    row: &SqliteRow,
    column: usize,
    field_type: FieldType,
) -> Result<Value, CodecError> {
    let value = read(row, column, field_type)?;
    let stored = row.try_get_raw(column)?;
    let is_canonical = match (&value, stored.type_info().name()) {
        (Value::DateTime(at), _) => text(stored)? == self::format_datetime(*at),
        (Value::Date(day), _) => text(stored)? == day.to_string(),
        (Value::Uuid(id), _) => text(stored)? == id.hyphenated().to_string(),
        (Value::Boolean(flag), _) => integer(stored)? == i64::from(*flag),
        (Value::Float(_), class) => class == "REAL",
        (Value::Text(_), class) => class == "TEXT",
        _ => true,
    };
    if is_canonical { Ok(value) } else { opaque(row, column) }
}

fn parse_text(text: &str, field_type: FieldType) -> Result<Value, CodecError> {
    Ok(match field_type {
        FieldType::Text => Value::Text(text.to_owned()),
        FieldType::Date => Value::Date(NaiveDate::parse_from_str(text, "%Y-%m-%d")?),
        FieldType::DateTime => Value::DateTime(DateTime::parse_from_rfc3339(text)?.with_timezone(&Utc)),
        FieldType::Json => Value::Json(serde_json::from_str(text)?),
        FieldType::Array(_) => field_type.read_json(&serde_json::from_str(text)?)?,
        other => other.parse(text)?,
    })
}

/// SQLite converts any stored value to the requested type, `abc` to 0; so the stored type is checked first.
fn integer(value: SqliteValueRef<'_>) -> Result<i64, CodecError> {
    check_type::<i64>(&value, &["INTEGER", "BOOLEAN"])?;
    <i64 as Decode<Sqlite>>::decode(value)
}

fn float(value: SqliteValueRef<'_>) -> Result<f64, CodecError> {
    check_type::<f64>(&value, &["REAL", "INTEGER"])?;
    let number = <f64 as Decode<Sqlite>>::decode(value)?;
    if number.is_finite() { Ok(number) } else { Err("a number that JSON cannot represent".into()) }
}

fn check_type<T: Type<Sqlite>>(value: &SqliteValueRef<'_>, names: &[&str]) -> Result<(), CodecError> {
    let found = value.type_info();
    if *found == T::type_info() || names.contains(&found.name()) {
        return Ok(());
    }
    Err(format!("expected {}, found {}", names[0], found.name()).into())
}

fn text(value: SqliteValueRef<'_>) -> Result<&str, CodecError> {
    <&str as Decode<Sqlite>>::decode(value)
}

/// A value stored as `…+00:00` only needs another zone suffix; any other form is parsed and formatted again.
fn write_datetime(out: &mut Vec<u8>, text: &str) -> Result<(), CodecError> {
    match text.strip_suffix("+00:00") {
        Some(local) if is_canonical_datetime(local.as_bytes()) => {
            out.push(b'"');
            out.extend_from_slice(local.as_bytes());
            out.extend_from_slice(b"Z\"");
        }
        _ => json::datetime(out, DateTime::parse_from_rfc3339(text)?.with_timezone(&Utc)),
    }
    Ok(())
}

/// Whether a text is `YYYY-MM-DDTHH:MM:SS`, with a fraction of 3 or 6 digits or none, and every number within its range. A
/// day that its month does not have is left to the general parser.
fn is_canonical_datetime(local: &[u8]) -> bool {
    let well_formed = matches!(local.len(), 19 | 23 | 26)
        && local.iter().enumerate().all(|(position, byte)| match position {
            4 | 7 => *byte == b'-',
            10 => *byte == b'T',
            13 | 16 => *byte == b':',
            19 => *byte == b'.',
            _ => byte.is_ascii_digit(),
        });
    let within = |at: usize, from: &[u8], to: &[u8]| local[at..at + 2] >= *from && local[at..at + 2] <= *to;
    well_formed
        && within(5, b"01", b"12")
        && within(8, b"01", b"28")
        && within(11, b"00", b"23")
        && within(14, b"00", b"59")
        && within(17, b"00", b"59")
}

/// Compares decimals by value; a text that is not a decimal sorts before them, by its bytes.
pub(super) fn compare_decimals(one: &str, other: &str) -> Ordering {
    let number = |text: &str| text.parse::<Decimal>().ok();
    match (number(one), number(other)) {
        (Some(a), Some(b)) => a.cmp(&b),
        (None, Some(_)) => Ordering::Less,
        (Some(_), None) => Ordering::Greater,
        (None, None) => one.cmp(other),
    }
}
