//! Whether a row matches a filter.

use resourceful_contract::{Filter, Schema, StorageError, Test, Value};

use crate::state::State;
use crate::table::{Row, Table};

/// A schema's fields as columns of its table.
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

/// Whether a row matches; `columns` are those of the schema's fields.
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
        Filter::Compare(field, test) => passes(&row[columns[*field]], test),
        Filter::Related(by, inner) => {
            let link = &by.0;
            let local = &row[columns[link.local]];
            if local.is_null() {
                return Ok(false);
            }
            let table = state.table(&link.target.table)?;
            let theirs = self::columns(&link.target, table)?;
            for related in table.equal(theirs[link.remote], local) {
                if matches(state, &theirs, related, inner)? {
                    return Ok(true);
                }
            }
            false
        }
        Filter::Search(fields, word) => {
            let word = word.to_lowercase();
            fields.iter().any(|field| {
                matches!(&row[columns[*field]], Value::Text(text) if text.to_lowercase().contains(&word))
            })
        }
    })
}

fn passes(value: &Value, test: &Test) -> bool {
    let equal = |other: &Value| value.compare(other).is_eq();
    let is_in = |others: &[Value]| !value.is_null() && others.iter().any(equal);
    let text = |test: &dyn Fn(&str) -> bool| matches!(value, Value::Text(text) if test(text));
    let holds = |element: &Value| matches!(value, Value::Array(items) if items.iter().any(|item| item.compare(element).is_eq()));
    match test {
        Test::Ne(other) => !equal(other),
        Test::NotIn(others) => !is_in(others),
        Test::IsNull(null) => value.is_null() == *null,
        _ if value.is_null() => false,
        Test::Eq(other) => equal(other),
        Test::Gt(other) => value.compare(other).is_gt(),
        Test::Gte(other) => value.compare(other).is_ge(),
        Test::Lt(other) => value.compare(other).is_lt(),
        Test::Lte(other) => value.compare(other).is_le(),
        Test::Between(from, to) => value.compare(from).is_ge() && value.compare(to).is_le(),
        Test::In(others) => is_in(others),
        Test::Contains(part) => text(&|text| text.contains(part.as_str())),
        Test::Starts(part) => text(&|text| text.starts_with(part.as_str())),
        Test::Ends(part) => text(&|text| text.ends_with(part.as_str())),
        Test::Has(element) => holds(element),
        Test::Overlaps(elements) => elements.iter().any(holds),
    }
}
