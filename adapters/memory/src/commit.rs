//! Applies a change set to a snapshot of the state.

use std::sync::Arc;

use resourceful_contract::{
    Change, ChangeSet, Committed, ErrorKind, Filter, Guard, Query, RowOutcome, Schema, StorageError, Value,
    Write,
};

use crate::state::State;
use crate::table::Row;
use crate::{fetch, filter, render};

/// The number of changes between two calls of the progress callback.
const PROGRESS_INTERVAL: usize = 500;

pub(crate) fn apply(state: &mut State, set: &ChangeSet) -> Result<Committed, StorageError> {
    let mut rows = Vec::with_capacity(set.changes.len());
    let progress = |rows: usize| {
        if let Some(progress) = &set.progress
            && (rows.is_multiple_of(PROGRESS_INTERVAL) || rows == set.changes.len())
        {
            progress(rows);
        }
    };
    apply_all(state, &set.changes, &mut rows, &progress)?;
    if let Some(then) = &set.then {
        let follow_ups = then(&rows);
        apply_all(state, &follow_ups, &mut rows, &|_| {})?;
    }
    Ok(Committed::new(rows))
}

fn apply_all(
    state: &mut State,
    changes: &[Change],
    rows: &mut Vec<RowOutcome>,
    progress: &dyn Fn(usize),
) -> Result<(), StorageError> {
    for change in changes {
        let position = rows.len();
        rows.push(apply_one(state, change).map_err(|error| error.at_change(position))?);
        progress(rows.len());
    }
    Ok(())
}

fn apply_one(state: &mut State, change: &Change) -> Result<RowOutcome, StorageError> {
    let schema = &change.schema;
    let row = match &change.write {
        Write::Insert { values } => insert(state, schema, values)?,
        Write::Update { id, set, guard } => update(state, schema, id, set, guard)?,
        Write::Delete { id, guard } => {
            delete(state, schema, id, guard)?;
            return Ok(RowOutcome { id: id.clone(), ..RowOutcome::all(1) });
        }
        Write::UpdateAll { filter, set } => {
            let ids = matching_ids(state, schema, filter)?;
            for id in &ids {
                update(state, schema, id, set, &Guard::none())?;
            }
            return Ok(RowOutcome::all(ids.len() as u64));
        }
        Write::DeleteAll { filter } => {
            let ids = matching_ids(state, schema, filter)?;
            for id in &ids {
                delete(state, schema, id, &Guard::none())?;
            }
            return Ok(RowOutcome::all(ids.len() as u64));
        }
    };
    let columns = filter::columns(schema, state.table(&schema.table)?)?;
    let mut json = Vec::new();
    if let Some(fields) = &change.answer {
        render::write_object(&mut json, schema, &columns, &row, fields);
    }
    Ok(RowOutcome {
        id: row[columns[schema.id]].clone(),
        version: Some(render::row_version(schema, &columns, &row)),
        json,
        rows: 1,
    })
}

/// The ids of the matching rows.
fn matching_ids(state: &State, schema: &Arc<Schema>, filter: &Filter) -> Result<Vec<Value>, StorageError> {
    let query = Query {
        filter: filter.clone(),
        fields: Vec::new(),
        keys: vec![schema.id],
        limit: u32::MAX,
        ..Query::all(schema.clone())
    };
    let rows = fetch::fetch(state, &query, &mut Vec::new())?;
    Ok(rows.keys.into_iter().flatten().collect())
}

fn insert(state: &mut State, schema: &Schema, values: &[Value]) -> Result<Row, StorageError> {
    let table = state.table_mut(&schema.table)?;
    let columns = filter::columns(schema, table)?;
    let mut row = vec![Value::Null; table.layout().columns.len()];
    for (value, column) in values.iter().zip(&columns) {
        row[*column] = value.clone();
    }
    if row[columns[schema.id]].is_null() {
        row[columns[schema.id]] = table.generate_id();
    }
    if let (Some(field), Some(version)) = (schema.version, schema.first_version(values)) {
        row[columns[field]] = Value::Integer(version);
    }
    let row: Row = row.into();
    if table.get(&row[columns[schema.id]]).is_some() {
        let id = schema.id_field().name.clone();
        return Err(StorageError::new(ErrorKind::UniqueViolation).with_fields(vec![id]));
    }
    store_row(state, schema, &columns, row)
}

fn update(
    state: &mut State,
    schema: &Schema,
    id: &Value,
    set: &[(usize, Value)],
    guard: &Guard,
) -> Result<Row, StorageError> {
    let (columns, before) = check_guard(state, schema, id, guard)?;
    let mut row = before.to_vec();
    for (field, value) in set {
        row[columns[*field]] = value.clone();
    }
    if let Some(version) = schema.version
        && let Value::Integer(counter) = &mut row[columns[version]]
    {
        *counter += 1;
    }
    for (referring, column, target) in state.references_to(&schema.table) {
        let Some(target) = state.table(&schema.table)?.layout().column(target) else {
            continue;
        };
        if row[target] != before[target] && referring.contains_value(column, &before[target]) {
            return Err(StorageError::new(ErrorKind::ForeignKeyViolation));
        }
    }
    store_row(state, schema, &columns, row.into())
}

fn delete(state: &mut State, schema: &Schema, id: &Value, guard: &Guard) -> Result<(), StorageError> {
    let (_, row) = check_guard(state, schema, id, guard)?;
    // The row is removed first, so that a row that references itself can be deleted.
    state.table_mut(&schema.table)?.remove(id);
    for (referring, column, target) in state.references_to(&schema.table) {
        let target = state.table(&schema.table)?.layout().column(target);
        if target
            .is_some_and(|target| !row[target].is_null() && referring.contains_value(column, &row[target]))
        {
            return Err(StorageError::new(ErrorKind::ForeignKeyViolation));
        }
    }
    Ok(())
}

/// The row before the change, if the guard admits the change.
fn check_guard(
    state: &State,
    schema: &Schema,
    id: &Value,
    guard: &Guard,
) -> Result<(Vec<usize>, Row), StorageError> {
    let table = state.table(&schema.table)?;
    let columns = filter::columns(schema, table)?;
    let row = table.get(id).ok_or_else(|| StorageError::new(ErrorKind::NotFound))?;
    if !filter::matches(state, &columns, row, &guard.filter)? {
        return Err(StorageError::new(ErrorKind::NotFound));
    }
    if guard.version.is_some_and(|version| version != render::row_version(schema, &columns, row)) {
        return Err(StorageError::new(ErrorKind::VersionMismatch));
    }
    let row = Arc::clone(row);
    Ok((columns, row))
}

/// Stores a row, if it violates no unique index and the rows that it references exist.
fn store_row(state: &mut State, schema: &Schema, columns: &[usize], row: Row) -> Result<Row, StorageError> {
    for (field, column) in schema.fields.iter().zip(columns) {
        if !field.nullable && row[*column].is_null() {
            let error = StorageError::new(ErrorKind::Rejected).with_fields(vec![field.name.clone()]);
            return Err(error.with_context("null in", field.name.clone()));
        }
    }
    let table = state.table_mut(&schema.table)?;
    if let Some(index_columns) = table.violated_index(&row) {
        let fields = table.layout().field_names(index_columns);
        return Err(StorageError::new(ErrorKind::UniqueViolation).with_fields(fields));
    }
    table.put(row.clone());
    let layout = table.layout().clone();
    for reference in &layout.references {
        let value = &row[reference.column];
        let target = state.table(&reference.table)?;
        let has_target = target
            .layout()
            .column(&reference.target)
            .is_some_and(|column| target.contains_value(column, value));
        if !value.is_null() && !has_target {
            let fields = layout.field_names(&[reference.column]);
            return Err(StorageError::new(ErrorKind::ForeignKeyViolation).with_fields(fields));
        }
    }
    Ok(row)
}
