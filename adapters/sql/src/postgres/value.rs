//! Encodes and decodes values in PostgreSQL's binary format.

use chrono::{DateTime, Datelike as _, NaiveDate, Utc};
use resourceful_contract::{FieldType, ScalarType, Value, json};
use rust_decimal::Decimal;
use serde::de::IgnoredAny;
use sqlx::encode::{Encode, IsNull};
use sqlx::postgres::{PgArgumentBuffer, PgArguments, PgHasArrayType, PgRow, PgTypeInfo, PgValueRef};
use sqlx::types::Json;
use sqlx::{Arguments as _, Decode, Postgres, Row as _, Type, ValueRef as _};
use uuid::Uuid;

use super::search_pattern;
use crate::args::Arg;
use crate::dialect::{CodecError, to_float32};

/// From the Unix epoch to PostgreSQL's, 2000-01-01, in microseconds.
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;

/// Binds an argument as its column's type, null too: prepared statements are cached by their text, and a parameter of
/// another type under the same text would be decoded wrongly.
pub(super) fn bind(args: &mut PgArguments, arg: &Arg<'_>) -> Result<(), CodecError> {
    match arg {
        Arg::Number(number) => args.add(*number),
        Arg::Text(text) => args.add(*text),
        Arg::SearchTerm(word) => args.add(search_pattern::search_regex(word)),
        Arg::AsciiSearchTerm(word) => args.add(search_pattern::to_ascii_term(word)),
        Arg::Many(field_type, values) => match field_type.scalar() {
            Some(scalar) => bind_list(args, scalar, Some(values)),
            None => Err("only scalars stand in lists".into()),
        },
        Arg::Elements(element, values) => bind_list(args, *element, Some(values)),
        Arg::One(field_type, Value::Opaque(bytes)) => args.add(RawValue::new(*field_type, bytes)?),
        Arg::One(FieldType::Array(element), value) => match value {
            Value::Array(items) => bind_list(args, *element, Some(items)),
            _ => bind_list(args, *element, None),
        },
        Arg::One(field_type, value) => bind_value(args, *field_type, value),
    }
}

/// The undecoded bytes of a column's value.
struct RawValue<'a>(&'a [u8], PgTypeInfo);

impl<'a> RawValue<'a> {
    fn new(field_type: FieldType, bytes: &'a [u8]) -> Result<Self, CodecError> {
        let type_info = match field_type {
            FieldType::Float | FieldType::Float32 => <f64 as Type<Postgres>>::type_info(),
            FieldType::Decimal => <Decimal as Type<Postgres>>::type_info(),
            FieldType::DateTime => <DateTime<Utc> as Type<Postgres>>::type_info(),
            FieldType::Date => <NaiveDate as Type<Postgres>>::type_info(),
            other => return Err(format!("every stored value reads as {other:?}").into()),
        };
        Ok(Self(bytes, type_info))
    }
}

impl Type<Postgres> for RawValue<'_> {
    fn type_info() -> PgTypeInfo {
        // Each value carries its own type.
        <Vec<u8> as Type<Postgres>>::type_info()
    }
}

impl Encode<'_, Postgres> for RawValue<'_> {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, CodecError> {
        buffer.extend_from_slice(self.0);
        Ok(IsNull::No)
    }

    fn produces(&self) -> Option<PgTypeInfo> {
        Some(self.1.clone())
    }
}

/// A column's undecoded value, with `float4` widened to `float8`: a statement has one type for each of its parameters.
pub(super) fn opaque(row: &PgRow, column: usize) -> Result<Value, CodecError> {
    let value = row.try_get_raw(column)?;
    if value.is_null() {
        return Ok(Value::Null);
    }
    let is_float4 = *value.type_info() == <f32 as Type<Postgres>>::type_info();
    let bytes = value.as_bytes()?;
    Ok(Value::Opaque(match <[u8; 4]>::try_from(bytes) {
        Ok(short) if is_float4 => f64::from(f32::from_be_bytes(short)).to_be_bytes().to_vec(),
        _ => bytes.to_vec(),
    }))
}

fn bind_value(args: &mut PgArguments, field_type: FieldType, value: &Value) -> Result<(), CodecError> {
    match (field_type, value) {
        (FieldType::Boolean, value) => args.add(boolean(value)),
        (FieldType::Integer, value) => args.add(integer(value)),
        // A column of either precision can store it and be compared with it.
        (FieldType::Float | FieldType::Float32, value) => args.add(float(value)),
        (FieldType::Decimal, value) => args.add(decimal(value)),
        (FieldType::Text, value) => args.add(as_text(value)),
        (FieldType::Uuid, value) => args.add(uuid(value)),
        (FieldType::DateTime, value) => args.add(datetime(value)),
        (FieldType::Date, value) => args.add(date(value)),
        (_, Value::Json(json)) => args.add(Json(json)),
        (_, Value::Null) => args.add(None::<Json<serde_json::Value>>),
        (field_type, value) => Err(format!("{value:?} is not of type {field_type:?}").into()),
    }
}

fn bind_list(args: &mut PgArguments, element: ScalarType, items: Option<&[Value]>) -> Result<(), CodecError> {
    fn list<'a, T>(
        args: &mut PgArguments,
        items: Option<&'a [Value]>,
        pick: fn(&'a Value) -> Option<T>,
    ) -> Result<(), CodecError>
    where
        T: for<'q> Encode<'q, Postgres> + Type<Postgres> + PgHasArrayType + 'a,
        Option<T>: for<'q> Encode<'q, Postgres>,
    {
        args.add(items.map(|items| items.iter().map(pick).collect::<Vec<_>>()))
    }
    match element {
        ScalarType::Boolean => list(args, items, boolean),
        ScalarType::Integer => list(args, items, integer),
        ScalarType::Float | ScalarType::Float32 => list(args, items, float),
        ScalarType::Decimal => list(args, items, decimal),
        ScalarType::Text => list(args, items, |value| as_text(value).map(str::to_owned)),
        ScalarType::Uuid => list(args, items, uuid),
        ScalarType::DateTime => list(args, items, datetime),
        ScalarType::Date => list(args, items, date),
    }
}

fn boolean(value: &Value) -> Option<bool> {
    if let Value::Boolean(flag) = value { Some(*flag) } else { None }
}

fn integer(value: &Value) -> Option<i64> {
    if let Value::Integer(number) = value { Some(*number) } else { None }
}

fn float(value: &Value) -> Option<f64> {
    match value {
        Value::Float(number) => Some(*number),
        Value::Float32(number) => Some(f64::from(*number)),
        _ => None,
    }
}

fn decimal(value: &Value) -> Option<Decimal> {
    if let Value::Decimal(number) = value { Some(*number) } else { None }
}

fn as_text(value: &Value) -> Option<&str> {
    if let Value::Text(text) = value { Some(text) } else { None }
}

fn uuid(value: &Value) -> Option<Uuid> {
    if let Value::Uuid(id) = value { Some(*id) } else { None }
}

fn datetime(value: &Value) -> Option<DateTime<Utc>> {
    if let Value::DateTime(at) = value { Some(*at) } else { None }
}

fn date(value: &Value) -> Option<NaiveDate> {
    if let Value::Date(day) = value { Some(*day) } else { None }
}

pub(super) fn write(
    out: &mut Vec<u8>,
    row: &PgRow,
    column: usize,
    field_type: FieldType,
) -> Result<(), CodecError> {
    let value = row.try_get_raw(column)?;
    if value.is_null() {
        out.extend_from_slice(b"null");
        return Ok(());
    }
    match field_type {
        FieldType::Text => json::text(out, value.as_str()?),
        FieldType::Integer => json::integer(out, decode_integer(value.as_bytes()?)?),
        FieldType::Float => json::float(out, decode_float(value.as_bytes()?)?),
        FieldType::Float32 => json::float32(out, to_float32(decode_float(value.as_bytes()?)?)?),
        FieldType::Boolean => json::boolean(out, value.as_bytes()? == [1]),
        FieldType::Uuid => json::uuid(out, Uuid::from_slice(value.as_bytes()?)?),
        FieldType::DateTime => json::datetime(out, decode_timestamp(value.as_bytes()?)?),
        FieldType::Json => {
            let text = json_text(value.as_bytes()?)?;
            // PostgreSQL validates jsonb and json; the check is for what neither type guarantees.
            serde_json::from_str::<IgnoredAny>(text)?;
            if has_long_number(text) {
                json::value(out, &Value::Json(serde_json::from_str(text)?));
            } else {
                out.extend_from_slice(text.as_bytes());
            }
        }
        other => json::value(out, &decode(value, other)?),
    }
    Ok(())
}

pub(super) fn read(row: &PgRow, column: usize, field_type: FieldType) -> Result<Value, CodecError> {
    let value = row.try_get_raw(column)?;
    if value.is_null() { Ok(Value::Null) } else { decode(value, field_type) }
}

pub(super) fn text(row: &PgRow, column: usize) -> Result<Option<&str>, CodecError> {
    let value = row.try_get_raw(column)?;
    if value.is_null() { Ok(None) } else { value.as_str().map(Some) }
}

fn decode(value: PgValueRef<'_>, field_type: FieldType) -> Result<Value, CodecError> {
    Ok(match field_type {
        FieldType::Boolean => Value::Boolean(value.as_bytes()? == [1]),
        FieldType::Integer => Value::Integer(decode_integer(value.as_bytes()?)?),
        FieldType::Float => Value::Float(decode_float(value.as_bytes()?)?),
        FieldType::Float32 => Value::Float32(to_float32(decode_float(value.as_bytes()?)?)?),
        FieldType::Decimal => Value::Decimal(<Decimal as Decode<Postgres>>::decode(value)?.normalize()),
        FieldType::Text => Value::Text(value.as_str()?.to_owned()),
        FieldType::Uuid => Value::Uuid(Uuid::from_slice(value.as_bytes()?)?),
        FieldType::DateTime => Value::DateTime(decode_timestamp(value.as_bytes()?)?),
        FieldType::Date => Value::Date(decode_date(value.as_bytes()?)?),
        FieldType::Array(element) => Value::Array(decode_array(value, element)?),
        _ => Value::Json(serde_json::from_str(json_text(value.as_bytes()?)?)?),
    })
}

/// Decodes a one-dimensional array in binary format: the number of dimensions, whether there are nulls, the type of the
/// elements; the length and the lower bound; and each element after its length, which is negative for null.
fn decode_array(value: PgValueRef<'_>, element: ScalarType) -> Result<Vec<Value>, CodecError> {
    if element == ScalarType::Decimal {
        let items = <Vec<Option<Decimal>> as Decode<'_, Postgres>>::decode(value)?;
        let wrap = |number: Decimal| Value::Decimal(number.normalize());
        return Ok(items.into_iter().map(|item| item.map_or(Value::Null, wrap)).collect());
    }
    let mut bytes = value.as_bytes()?;
    let dimensions = read_i32(&mut bytes)?;
    bytes = bytes.get(8..).ok_or("an array without an end")?;
    if dimensions == 0 {
        return Ok(Vec::new());
    }
    if dimensions != 1 {
        return Err(format!("an array of {dimensions} dimensions").into());
    }
    let length = usize::try_from(read_i32(&mut bytes)?)?;
    bytes = bytes.get(4..).ok_or("an array without an end")?;
    // Each element takes at least four bytes, whatever length the array states.
    let mut items = Vec::with_capacity(length.min(bytes.len() / 4));
    for _ in 0..length {
        items.push(match usize::try_from(read_i32(&mut bytes)?) {
            Err(_) => Value::Null,
            Ok(length) => {
                let (item, rest) = bytes.split_at_checked(length).ok_or("an array without an end")?;
                bytes = rest;
                decode_scalar(item, element)?
            }
        });
    }
    Ok(items)
}

/// The next four bytes as a number.
fn read_i32(bytes: &mut &[u8]) -> Result<i32, CodecError> {
    let (number, rest) = bytes.split_first_chunk().ok_or("an array without an end")?;
    *bytes = rest;
    Ok(i32::from_be_bytes(*number))
}

fn decode_scalar(bytes: &[u8], element: ScalarType) -> Result<Value, CodecError> {
    Ok(match element {
        ScalarType::Boolean => Value::Boolean(bytes == [1]),
        ScalarType::Integer => Value::Integer(decode_integer(bytes)?),
        ScalarType::Float => Value::Float(decode_float(bytes)?),
        ScalarType::Float32 => Value::Float32(to_float32(decode_float(bytes)?)?),
        ScalarType::Text => Value::Text(std::str::from_utf8(bytes)?.to_owned()),
        ScalarType::Uuid => Value::Uuid(Uuid::from_slice(bytes)?),
        ScalarType::DateTime => Value::DateTime(decode_timestamp(bytes)?),
        ScalarType::Date => Value::Date(decode_date(bytes)?),
        ScalarType::Decimal => return Err("a decimal is read by its driver".into()),
    })
}

/// Decodes `int2`, `int4` or `int8`.
fn decode_integer(bytes: &[u8]) -> Result<i64, CodecError> {
    Ok(match bytes.len() {
        8 => i64::from_be_bytes(bytes.try_into()?),
        4 => i64::from(i32::from_be_bytes(bytes.try_into()?)),
        2 => i64::from(i16::from_be_bytes(bytes.try_into()?)),
        length => return Err(format!("an integer of {length} bytes").into()),
    })
}

/// Decodes `float4` or `float8`.
fn decode_float(bytes: &[u8]) -> Result<f64, CodecError> {
    let number = match bytes.len() {
        8 => f64::from_be_bytes(bytes.try_into()?),
        4 => f64::from(f32::from_be_bytes(bytes.try_into()?)),
        length => return Err(format!("a number of {length} bytes").into()),
    };
    if number.is_finite() { Ok(number) } else { Err("a number that JSON cannot represent".into()) }
}

/// Decodes `timestamptz` or `timestamp`: microseconds since 2000-01-01.
fn decode_timestamp(bytes: &[u8]) -> Result<DateTime<Utc>, CodecError> {
    let micros = i64::from_be_bytes(bytes.try_into()?);
    micros
        .checked_add(POSTGRES_EPOCH_MICROS)
        .and_then(DateTime::from_timestamp_micros)
        .filter(|at| (1..=9999).contains(&at.year()))
        .ok_or_else(|| "a time beyond what JSON's times can say".into())
}

/// Decodes `date`: days since 2000-01-01; the two infinities are no calendar date.
fn decode_date(bytes: &[u8]) -> Result<NaiveDate, CodecError> {
    let days = i64::from(i32::from_be_bytes(bytes.try_into()?));
    chrono::TimeDelta::try_days(days)
        .and_then(|days| NaiveDate::from_ymd_opt(2000, 1, 1)?.checked_add_signed(days))
        .filter(|day| (1..=9999).contains(&day.year()))
        .ok_or_else(|| "a date beyond the years 1 to 9999".into())
}

/// The text of `jsonb`, after its version byte, or of `json`.
fn json_text(bytes: &[u8]) -> Result<&str, CodecError> {
    let text = bytes.strip_prefix(&[1]).unwrap_or(bytes);
    Ok(std::str::from_utf8(text)?)
}

/// Whether a document may contain a number that is written out in full: `jsonb` writes all digits of 1e300 and of 1e-300. A
/// text that merely looks like such a number only causes a needless parse.
fn has_long_number(text: &str) -> bool {
    // The shortest form of a double has up to 17 digits, and changes to an exponent at 1e-5 and 1e16.
    text.contains("0.00000")
        || text.as_bytes().split(|byte| !byte.is_ascii_digit()).any(|digits| digits.len() > 16)
}
