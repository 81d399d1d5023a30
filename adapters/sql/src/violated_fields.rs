//! Finds the fields that caused a refused change, where the database's error does not name them.

use std::error::Error as _;

use resourceful_contract::{Change, ChangeSet, ErrorKind, StorageError, Value, Write};

use super::error_mapping;
use crate::connections::PooledConnection;
use crate::dialect::Dialect;

/// Adds the fields that caused an error, as far as the catalog shows them. The failed transaction must have ended.
pub(crate) async fn add_rejected_fields<D: Dialect>(
    connection: &mut PooledConnection<'_, D::Db>,
    set: &ChangeSet,
    error: StorageError,
) -> StorageError {
    if error.kind() != ErrorKind::Rejected || !error.fields().is_empty() {
        return error;
    }
    let Some(change) = error.change().and_then(|position| set.changes.get(position)) else { return error };
    let Some(cause) = error.source().and_then(|source| source.downcast_ref()) else { return error };
    let written = written_fields(change);
    let found = match connection.scope().await {
        Ok(mut scope) => {
            let found = D::rejected_fields(&mut scope, &change.schema, cause, &written).await;
            scope.end(found.map_err(error_mapping::connection_error), error_mapping::connection_error).await
        }
        Err(error) => Err(error_mapping::connection_error(error)),
    };
    let fields = found.unwrap_or_default();
    let names = fields.into_iter().map(|field| change.schema.fields[field].name.clone()).collect();
    error.with_fields(names)
}

/// The fields that a change writes, with their values.
fn written_fields(change: &Change) -> Vec<(usize, &Value)> {
    match &change.write {
        Write::Insert { values } => values.iter().enumerate().collect(),
        Write::Update { set, .. } | Write::UpdateAll { set, .. } => {
            set.iter().map(|(field, value)| (*field, value)).collect()
        }
        Write::Delete { .. } | Write::DeleteAll { .. } => Vec::new(),
    }
}

/// The fields of a constraint that a change writes, or all its fields if the change writes none: other fields then violate
/// it.
pub(crate) fn constraint_fields(constraint: Vec<usize>, written: &[(usize, &Value)]) -> Vec<usize> {
    let is_written = |field: &usize| written.iter().any(|(written, _)| written == field);
    match constraint.iter().any(is_written) {
        true => constraint.into_iter().filter(|field| is_written(field)).collect(),
        false => constraint,
    }
}

/// The error of a statement that changed fewer rows than it should: a trigger skipped some without an error.
pub(crate) fn skipped_row_error() -> StorageError {
    StorageError::new(ErrorKind::Rejected).with_context("change", "the database left it out")
}

/// The words of an expression that may be column names: all except those in single quotes.
pub(crate) fn identifiers(expression: &str) -> Vec<String> {
    let unquoted_parts = expression.split('\'').step_by(2);
    let mut words = Vec::new();
    for part in unquoted_parts {
        for (position, quoted) in part.split(['"', '`']).enumerate() {
            if position % 2 == 1 {
                words.push(quoted.to_owned());
                continue;
            }
            let is_apart = |character: char| !(character.is_alphanumeric() || "_$".contains(character));
            words.extend(quoted.split(is_apart).filter(|word| !word.is_empty()).map(str::to_owned));
        }
    }
    words
}
