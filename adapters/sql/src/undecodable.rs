//! Stored values that cannot be decoded as their field's type: other programs write them, and a database stores more than
//! JSON can express (an infinite timestamp, NaN).
//!
//! One such value does not fail the whole response. It is returned as null, and a log line names the table, the column and
//! the row, at most once a minute for each column. Where a version is a digest of the row's content, the stored value is
//! part of it; where a page ends with it, it is the cursor from which the next page continues.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use resourceful_contract::{FieldType, Schema, Value, json};

use crate::dialect::{CodecError, Dialect};
use crate::plan::{OutputField, Row};

/// How long further bad values of a column are not logged.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Where a row came from: its schema, and the result column of its id, if there is one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin<'a> {
    pub(crate) schema: &'a Schema,
    pub(crate) id: Option<usize>,
}

/// Appends a field's value as JSON; null if it cannot be decoded as its type.
#[inline]
pub(crate) fn write_value<D: Dialect>(
    out: &mut Vec<u8>,
    row: &Row<D>,
    output: &OutputField,
    origin: Origin<'_>,
) {
    let before = out.len();
    if let Err(error) = D::write(out, row, output.column, output.field_type) {
        out.truncate(before);
        out.extend_from_slice(b"null");
        let id = || {
            let read = D::read(row, origin.id?, origin.schema.id_field().field_type).ok()?;
            let mut rendered = Vec::new();
            json::value(&mut rendered, &read);
            String::from_utf8(rendered).ok()
        };
        log_undecodable(origin.schema, output.field, id, &error);
    }
}

/// Appends a value to the content that a row's digest is made of.
pub(crate) fn write_digest_input<D: Dialect>(out: &mut Vec<u8>, row: &Row<D>, output: &OutputField) {
    let before = out.len();
    if D::write(out, row, output.column, output.field_type).is_err() {
        out.truncate(before);
        json::value(out, &D::opaque(row, output.column).unwrap_or(Value::Null));
    }
}

/// A value as part of a cursor.
pub(crate) fn cursor_value<D: Dialect>(row: &Row<D>, column: usize, field_type: FieldType) -> Value {
    D::cursor_value(row, column, field_type).or_else(|_| D::opaque(row, column)).unwrap_or(Value::Null)
}

/// Logs a value that cannot be decoded, at limited intervals.
pub(crate) fn log_undecodable(
    schema: &Schema,
    field: usize,
    id: impl FnOnce() -> Option<String>,
    error: &CodecError,
) {
    /// When a column was last logged. Its size is bounded by the number of declared columns.
    static LAST: LazyLock<Mutex<HashMap<(String, String), Instant>>> = LazyLock::new(Mutex::default);
    let (table, column) = (&schema.table, &schema.fields[field].column);
    let now = Instant::now();
    {
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        let last_logged = last.entry((table.clone(), column.clone()));
        let mut is_new = false;
        let at = last_logged.or_insert_with(|| {
            is_new = true;
            now
        });
        if !is_new && now.duration_since(*at) < LOG_INTERVAL {
            return;
        }
        *at = now;
    }
    let id = id().unwrap_or_default();
    tracing::warn!(
        table,
        column,
        id,
        error = %error,
        "a stored value does not read as its field's type, and is answered as null"
    );
}
