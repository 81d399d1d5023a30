//! Inserts single rows into several tables with one statement, for databases that allow INSERT inside WITH: one round trip
//! instead of one for each row.

use std::fmt::Write as _;
use std::sync::Arc;

use resourceful_contract::{Change, ErrorKind, RowOutcome, Schema, StorageError, Value, Write};
use sea_query::{Expr, IntoIden as _, Query};

use super::error_mapping;
use super::violated_fields;
use crate::args;
use crate::args::Numbering;
use crate::column_overrides::Overrides;
use crate::commit::insert_outcome;
use crate::dialect::Dialect;
use crate::select::table;
use crate::statement_shape::Shape;
use crate::storage::{Connection, Database, bind};
use crate::write;
use crate::write::{Statement, generates_id, is_generated};

/// The longest prefix of changes that one statement can carry: one row each, into different tables, with no row to return.
pub(crate) fn insertable_prefix(changes: &[Change]) -> &[Change] {
    let fits = |change: &Change| match &change.write {
        Write::Insert { values } => {
            let given = change.schema.id_source == resourceful_contract::IdSource::Storage
                && !generates_id(&change.schema, values);
            change.answer.is_none() && !given
        }
        _ => false,
    };
    let mut length = 0;
    while let Some(change) = changes.get(length) {
        let is_new = changes[..length].iter().all(|other| !Arc::ptr_eq(&other.schema, &change.schema));
        if !fits(change) || !is_new {
            break;
        }
        length += 1;
    }
    &changes[..length]
}

/// Inserts these changes with one statement.
pub(crate) async fn insert_together<D: Dialect>(
    database: &Database<D>,
    connection: &mut Connection<D>,
    changes: &[Change],
) -> Result<Vec<RowOutcome>, StorageError> {
    let mut shape = Shape { bytes: vec![b'+'], args: Vec::with_capacity(32) };
    for change in changes {
        let one = write::shape(std::slice::from_ref(change));
        shape.bytes.extend_from_slice(&one.bytes);
        shape.args.extend(one.args);
    }
    let statement = database
        .statements
        .get_or_build(&shape.bytes, || build_insert::<D>(changes, &database.overrides.snapshot()));
    let first = &changes[0].schema;
    let args = bind::<D>(&statement.arg_order, &shape.args)
        .map_err(|error| error_mapping::bind_error(first, error))?;
    let rows = D::rows(connection, database.query(statement.text.clone(), args)).await;
    let rows = rows.map_err(|error| D::map_error(error, first))?;
    let row = rows.first();
    let row =
        row.ok_or_else(|| StorageError::new(ErrorKind::Internal).with_context("insert", "answered no row"))?;
    let written = changes.iter().enumerate().map(|(column, change)| {
        let schema = &change.schema;
        let id = D::read(row, column, schema.id_field().field_type);
        let id: Value = id.map_err(|error| error_mapping::corrupt_value(schema, error))?;
        if id.is_null() {
            return Err(violated_fields::skipped_row_error());
        }
        Ok(RowOutcome { id, ..insert_outcome(change) })
    });
    written.collect()
}

fn build_insert<D: Dialect>(changes: &[Change], overrides: &Overrides) -> Statement {
    let mut joined = String::from("WITH ");
    let mut answers = String::new();
    let mut order = Vec::new();
    let mut given = 0;
    for (position, change) in changes.iter().enumerate() {
        let (insert, arg_order, values) = single_insert::<D>(change, overrides);
        let separator = if position == 0 { "" } else { ", " };
        let numbered_insert = renumber_placeholders(&insert, order.len());
        // Writing into a String cannot fail.
        let _ = write!(joined, "{separator}c{position} AS ({numbered_insert})");
        let id = change.schema.id_field().column.replace('"', "\"\"");
        let _ = write!(answers, "{separator}(SELECT \"{id}\" FROM c{position})");
        order.extend(arg_order.into_iter().map(|argument| argument + given));
        given += values;
    }
    let _ = write!(joined, " SELECT {answers}");
    let schemas: Vec<Arc<Schema>> = changes.iter().map(|change| change.schema.clone()).collect();
    Statement::multi_table(joined, order, schemas)
}

/// One INSERT that returns the row's id, the order of its arguments, and the number of arguments of its change.
fn single_insert<D: Dialect>(change: &Change, overrides: &Overrides) -> (String, Vec<usize>, usize) {
    let schema = &change.schema;
    let is_minted = matches!(&change.write, Write::Insert { values } if generates_id(schema, values));
    let mut numbering = Numbering::default();
    let fields = (0..schema.fields.len()).filter(|position| !(is_minted && *position == schema.id));
    let fields: Vec<_> = fields.collect();
    let given = fields.len();
    // See `Builder::insert` in `write`: generated columns take a number but are left out.
    let fields = fields.into_iter().map(|field| (field, numbering.next()));
    let fields: Vec<_> = fields.filter(|(field, _)| !is_generated(schema, *field, overrides)).collect();
    let mut statement = Query::insert();
    let columns = fields.iter().map(|(field, _)| schema.fields[*field].column.clone().into_iden());
    statement.into_table(table(&schema.table)).columns(columns);
    let values: Vec<_> = fields.into_iter().map(|(_, value)| value).collect();
    if values.is_empty() {
        statement.or_default_values();
    } else {
        statement.values_panic(values);
    }
    let id = Expr::col(schema.id_field().column.clone().into_iden());
    statement.returning(Query::returning().exprs([id]));
    let (text, values) = statement.build(D::Builder::default());
    (text, args::argument_order(&values), given)
}

/// Shifts a statement's placeholders (`$1` …) by an offset. Quoted parts are identifiers, and stay.
fn renumber_placeholders(statement: &str, offset: usize) -> String {
    let mut text = String::with_capacity(statement.len() + 8);
    let mut characters = statement.chars().peekable();
    let mut quoted = false;
    while let Some(character) = characters.next() {
        quoted ^= character == '"';
        text.push(character);
        if character != '$' || quoted {
            continue;
        }
        let mut number = 0;
        while let Some(digit) = characters.peek().and_then(|digit| digit.to_digit(10)) {
            number = number * 10 + digit as usize;
            characters.next();
        }
        let _ = write!(text, "{}", number + offset);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::renumber_placeholders;

    #[test]
    fn placeholders_are_renumbered_outside_quotes() {
        let moved = renumber_placeholders(r#"INSERT INTO "a$1" ("x", "y""$2") VALUES ($1, $12)"#, 3);
        assert_eq!(moved, r#"INSERT INTO "a$1" ("x", "y""$2") VALUES ($4, $15)"#);
    }
}
