//! Writes rows as JSON.

use resourceful_contract::{Cardinality, Filter, Include, Schema, StorageError, Value, Version, json};

use crate::filter;
use crate::state::State;
use crate::table::Row;

/// Writes a row's fields, without the closing brace.
pub(crate) fn write_fields(
    out: &mut Vec<u8>,
    schema: &Schema,
    columns: &[usize],
    row: &Row,
    fields: &[usize],
) {
    out.push(b'{');
    for (position, field) in fields.iter().enumerate() {
        if position > 0 {
            out.push(b',');
        }
        json::text(out, &schema.fields[*field].name);
        out.push(b':');
        json::value(out, &row[columns[*field]]);
    }
}

/// Writes a row's fields as an object.
pub(crate) fn write_object(
    out: &mut Vec<u8>,
    schema: &Schema,
    columns: &[usize],
    row: &Row,
    fields: &[usize],
) {
    write_fields(out, schema, columns, row, fields);
    out.push(b'}');
}

/// Writes related rows as further members of an object that is not closed yet.
pub(crate) fn write_includes(
    out: &mut Vec<u8>,
    state: &State,
    columns: &[usize],
    row: &Row,
    includes: &[Include],
    mut first: bool,
) -> Result<(), StorageError> {
    for include in includes {
        if !first {
            out.push(b',');
        }
        first = false;
        json::text(out, &include.link.name);
        out.push(b':');
        write_related(out, state, &row[columns[include.link.local]], include)?;
    }
    Ok(())
}

fn write_related(
    out: &mut Vec<u8>,
    state: &State,
    key: &Value,
    include: &Include,
) -> Result<(), StorageError> {
    let target = &include.link.target;
    let table = state.table(&target.table)?;
    let columns = filter::columns(target, table)?;
    let mut found = Vec::new();
    if !key.is_null() {
        for row in table.rows_with_value(columns[include.link.remote], key) {
            if include.filter.is_everything() || matches(state, &columns, row, &include.filter)? {
                found.push(row);
            }
        }
    }
    found.sort_by(|a, b| a[columns[target.id]].compare(&b[columns[target.id]]));
    match include.link.cardinality {
        Cardinality::One => match found.first() {
            Some(row) => write_object(out, target, &columns, row, &include.fields),
            None => out.extend_from_slice(b"null"),
        },
        Cardinality::Many => {
            out.push(b'[');
            for (position, row) in found.into_iter().take(include.limit as usize).enumerate() {
                if position > 0 {
                    out.push(b',');
                }
                write_object(out, target, &columns, row, &include.fields);
            }
            out.push(b']');
        }
    }
    Ok(())
}

fn matches(state: &State, columns: &[usize], row: &Row, filter: &Filter) -> Result<bool, StorageError> {
    filter::matches(state, columns, row, filter)
}

/// The row's version counter, or the digest of all its fields.
pub(crate) fn row_version(schema: &Schema, columns: &[usize], row: &Row) -> Version {
    if let Some(position) = schema.version
        && let Value::Integer(counter) = row[columns[position]]
    {
        return Version::Counter(counter);
    }
    let all: Vec<usize> = (0..schema.fields.len()).collect();
    let mut content = Vec::new();
    write_object(&mut content, schema, columns, row, &all);
    Version::of_content(&content)
}
