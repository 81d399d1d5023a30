//! Evaluates filters on rows.

use resourceful_contract::{Filter, Schema, StorageError, Value, fold};

use crate::state::State;
use crate::table::{Row, Table};

/// The column positions of a schema's fields.
pub(crate) fn columns(schema: &Schema, table: &Table) -> Result<Vec<usize>, StorageError> {
    schema
        .fields
        .iter()
        .map(|field| {
            table.layout().column(&field.column).ok_or_else(|| {
                StorageError::new(resourceful_contract::ErrorKind::Internal)
                    .with_context("absent column", format!("{}.{}", schema.table, field.column))
            })
        })
        .collect()
}

/// Whether a row matches; `columns` are the column positions of the schema's fields.
pub(crate) fn matches(
    state: &State,
    columns: &[usize],
    row: &Row,
    filter: &Filter,
) -> Result<bool, StorageError> {
    Ok(match filter {
        Filter::All(filters) => {
            for filter in filters {
                if !matches(state, columns, row, filter)? {
                    return Ok(false);
                }
            }
            true
        }
        Filter::Any(filters) => {
            for filter in filters {
                if matches(state, columns, row, filter)? {
                    return Ok(true);
                }
            }
            false
        }
        Filter::Not(inner) => !matches(state, columns, row, inner)?,
        Filter::Compare(field, test) => test.passes(&row[columns[*field]]),
        Filter::Related(by, inner) => {
            let link = &by.0;
            let local = &row[columns[link.local]];
            if local.is_null() {
                return Ok(false);
            }
            let table = state.table(&link.target.table)?;
            let target_columns = self::columns(&link.target, table)?;
            for related in table.rows_with_value(target_columns[link.remote], local) {
                if matches(state, &target_columns, related, inner)? {
                    return Ok(true);
                }
            }
            false
        }
        Filter::Search(fields, word) => fields
            .iter()
            .any(|field| matches!(&row[columns[*field]], Value::Text(text) if fold::contains(text, word))),
    })
}
