//! Stored values that do not read as their field's type: other programs write them, and a database keeps more than JSON
//! can say (a time without end, a number that is none).
//!
//! One such value does not take the whole answer down. It is answered as null, and a line of the log names the table, the
//! column and the row, at most once a minute for each column. Where a version is made of the row's content, the value
//! itself is part of it; where a page ends with it, it is the place from which the next one goes on.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use resourceful_contract::{FieldType, Schema, Value, json};

use crate::dialect::{Dialect, Unreadable};
use crate::plan::{Output, Row};

/// How long a column's next bad value is not logged.
const PAUSE: Duration = Duration::from_secs(60);

/// Where a row came from: its schema, and the column of its id where the answer has one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin<'a> {
    pub(crate) schema: &'a Schema,
    pub(crate) id: Option<usize>,
}

/// Appends a field's value as JSON; null where it does not read as its type.
#[inline]
pub(crate) fn write<D: Dialect>(out: &mut Vec<u8>, row: &Row<D>, output: &Output, origin: Origin<'_>) {
    let before = out.len();
    if let Err(error) = D::write(out, row, output.column, output.field_type) {
        out.truncate(before);
        out.extend_from_slice(b"null");
        let id = || {
            let read = D::read(row, origin.id?, origin.schema.id_field().field_type).ok()?;
            let mut spelled = Vec::new();
            json::value(&mut spelled, &read);
            String::from_utf8(spelled).ok()
        };
        report(origin.schema, output.field, id, &error);
    }
}

/// A value for a digest of its row.
pub(crate) fn digested<D: Dialect>(out: &mut Vec<u8>, row: &Row<D>, output: &Output) {
    let before = out.len();
    if D::write(out, row, output.column, output.field_type).is_err() {
        out.truncate(before);
        json::value(out, &D::opaque(row, output.column).unwrap_or(Value::Null));
    }
}

/// A value to go on from.
pub(crate) fn place<D: Dialect>(row: &Row<D>, column: usize, field_type: FieldType) -> Value {
    D::place(row, column, field_type).or_else(|_| D::opaque(row, column)).unwrap_or(Value::Null)
}

/// Logs a value that does not read, now and then.
pub(crate) fn report(schema: &Schema, field: usize, id: impl FnOnce() -> Option<String>, error: &Unreadable) {
    /// When a column was named last. There are as many as are declared.
    static LAST: LazyLock<Mutex<HashMap<(String, String), Instant>>> = LazyLock::new(Mutex::default);
    let (table, column) = (&schema.table, &schema.fields[field].column);
    let now = Instant::now();
    {
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        let known = last.entry((table.clone(), column.clone()));
        let mut is_new = false;
        let at = known.or_insert_with(|| {
            is_new = true;
            now
        });
        if !is_new && now.duration_since(*at) < PAUSE {
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
