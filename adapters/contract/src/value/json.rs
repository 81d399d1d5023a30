//! Writes values as JSON text, in one canonical form for all storages.
//!
//! A storage that writes rows straight from its columns uses these functions (or writes the same bytes), so that a row and
//! its content digest are the same from memory, SQLite and PostgreSQL.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use chrono::{DateTime, NaiveDate, SecondsFormat, Utc};
use rust_decimal::Decimal;
use uuid::Uuid;

use crate::Value;

pub use super::number::{from_float, is_number, respelled};

/// Appends a value as JSON text.
pub fn value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Boolean(flag) => boolean(out, *flag),
        Value::Integer(number) => integer(out, *number),
        Value::Float(number) => float(out, *number),
        Value::Float32(number) => float32(out, *number),
        Value::Decimal(number) => decimal(out, *number),
        Value::Text(content) => text(out, content),
        Value::Uuid(id) => uuid(out, *id),
        Value::DateTime(instant) => datetime(out, *instant),
        Value::Date(day) => date(out, *day),
        Value::Json(json) => {
            // Writing to a Vec cannot fail, and a Value holds nothing that JSON cannot express.
            let _ = serde_json::to_writer(out, json);
        }
        Value::Array(items) => array(out, items),
        Value::Opaque(bytes) => text(out, &format!("\0{}", STANDARD_NO_PAD.encode(bytes))),
    }
}

/// Appends values as a JSON array.
pub fn array(out: &mut Vec<u8>, items: &[Value]) {
    out.push(b'[');
    for (position, item) in items.iter().enumerate() {
        if position > 0 {
            out.push(b',');
        }
        value(out, item);
    }
    out.push(b']');
}

/// Decodes an opaque value from its text, as [`value`] writes it; other texts do not contain U+0000.
#[must_use]
pub fn opaque(text: &str) -> Option<Value> {
    STANDARD_NO_PAD.decode(text.strip_prefix('\0')?).ok().map(Value::Opaque)
}

/// Appends `true` or `false`.
pub fn boolean(out: &mut Vec<u8>, flag: bool) {
    out.extend_from_slice(if flag { b"true" } else { b"false" });
}

/// Appends an integer.
pub fn integer(out: &mut Vec<u8>, number: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends the shortest number that parses to the same double; `null` for what JSON cannot express.
pub fn float(out: &mut Vec<u8>, number: f64) {
    if number.is_finite() {
        out.extend_from_slice(ryu::Buffer::new().format_finite(number).as_bytes());
    } else {
        out.extend_from_slice(b"null");
    }
}

/// Appends the shortest number that parses to the same single-precision number; `null` for what JSON cannot express.
pub fn float32(out: &mut Vec<u8>, number: f32) {
    if number.is_finite() {
        out.extend_from_slice(ryu::Buffer::new().format_finite(number).as_bytes());
    } else {
        out.extend_from_slice(b"null");
    }
}

/// Appends a decimal as a JSON string without trailing zeros: a JSON number would lose digits in most parsers.
pub fn decimal(out: &mut Vec<u8>, number: Decimal) {
    use std::io::Write as _;
    let _ = write!(out, "\"{}\"", number.normalize());
}

/// Appends a hyphenated UUID as a JSON string.
pub fn uuid(out: &mut Vec<u8>, id: Uuid) {
    out.push(b'"');
    out.extend_from_slice(id.hyphenated().encode_lower(&mut Uuid::encode_buffer()).as_bytes());
    out.push(b'"');
}

/// Appends an instant as RFC 3339 in UTC, as in `"2026-11-21T05:00:00Z"`, with 0, 3 or 6 fractional digits.
pub fn datetime(out: &mut Vec<u8>, instant: DateTime<Utc>) {
    out.push(b'"');
    out.extend_from_slice(instant.to_rfc3339_opts(SecondsFormat::AutoSi, true).as_bytes());
    out.push(b'"');
}

/// Appends a date as in `"2026-11-21"`.
pub fn date(out: &mut Vec<u8>, day: NaiveDate) {
    use std::io::Write as _;
    let _ = write!(out, "\"{day}\"");
}

/// Appends text as a JSON string (RFC 8259), escaping only what must be.
pub fn text(out: &mut Vec<u8>, content: &str) {
    let bytes = content.as_bytes();
    out.reserve(bytes.len() + 2);
    out.push(b'"');
    let mut written = 0;
    for (position, &byte) in bytes.iter().enumerate() {
        let escape: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            0x08 => b"\\b",
            0x0c => b"\\f",
            0x00..=0x1f => b"",
            _ => continue,
        };
        out.extend_from_slice(&bytes[written..position]);
        if escape.is_empty() {
            const HEX: &[u8; 16] = b"0123456789abcdef";
            out.extend_from_slice(b"\\u00");
            out.push(HEX[usize::from(byte >> 4)]);
            out.push(HEX[usize::from(byte & 15)]);
        } else {
            out.extend_from_slice(escape);
        }
        written = position + 1;
    }
    out.extend_from_slice(&bytes[written..]);
    out.push(b'"');
}
