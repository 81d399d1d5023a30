//! Row locks, acquired in one global order: two transactions that change the same rows wait for each other but never
//! deadlock, whatever the order of their changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use resourceful_contract::{Change, FieldType, Schema, StorageError, Value, Write};
use sea_query::{Expr, IntoIden as _, Order, Query};

use super::error_mapping;
use crate::args;
use crate::args::{Arg, Numbering};
use crate::dialect::Dialect;
use crate::select::table;
use crate::storage::{Connection, Database, bind};
use crate::write;

/// The alias of the table whose rows are locked.
const TABLE_ALIAS: &str = "t";

/// The rows of one table that a transaction changes.
struct Targets<'a> {
    schema: &'a Arc<Schema>,
    ids: Vec<Value>,
    is_deleting: bool,
}

/// Locks the rows that these changes name, ordered by table and then by id. A single row needs no order; its own statement
/// locks it.
pub(crate) async fn lock_rows<D: Dialect>(
    database: &Database<D>,
    connection: &mut Connection<D>,
    changes: &[Change],
) -> Result<(), StorageError> {
    if !D::FOR_UPDATE || changes.len() < 2 {
        return Ok(());
    }
    let mut tables: BTreeMap<&str, Targets<'_>> = BTreeMap::new();
    for change in changes {
        let (id, is_deleting) = match &change.write {
            Write::Update { id, .. } => (id, false),
            Write::Delete { id, .. } => (id, true),
            Write::Insert { .. } | Write::UpdateAll { .. } | Write::DeleteAll { .. } => continue,
        };
        let schema = &change.schema;
        let targets = tables.entry(&schema.table);
        let targets = targets.or_insert_with(|| Targets { schema, ids: Vec::new(), is_deleting: false });
        targets.ids.push(id.clone());
        targets.is_deleting |= is_deleting;
    }
    if tables.values().map(|targets| targets.ids.len()).sum::<usize>() < 2 {
        return Ok(());
    }
    for targets in tables.values() {
        lock_table_rows(database, connection, targets).await?;
    }
    Ok(())
}

async fn lock_table_rows<D: Dialect>(
    database: &Database<D>,
    connection: &mut Connection<D>,
    targets: &Targets<'_>,
) -> Result<(), StorageError> {
    let (schema, overrides) = (targets.schema, database.overrides.snapshot());
    let id = overrides.comparable::<D>(schema, TABLE_ALIAS, schema.id);
    let list = overrides.comparable_list::<D>(schema, schema.id, Numbering::default().next());
    let mut statement = Query::select();
    statement
        .expr(Expr::cust("1"))
        .from_as(table(&schema.table), TABLE_ALIAS.into_iden())
        .and_where(D::is_in(id.clone(), list, schema.id_field().field_type))
        .order_by_expr(id, Order::Asc);
    // While the rows themselves stay, rows that reference them may still be written.
    let strength = if targets.is_deleting { "FOR UPDATE" } else { "FOR NO KEY UPDATE" };
    let arg = Arg::Many(schema.id_field().field_type, &targets.ids);
    execute_lock(database, connection, schema, statement.build(D::Builder::default()), strength, arg).await
}

/// Locks a row against changes by other transactions until this transaction ends.
pub(crate) async fn lock_row<D: Dialect>(
    database: &Database<D>,
    connection: &mut Connection<D>,
    schema: &Schema,
    id: &Value,
) -> Result<(), StorageError> {
    if !D::FOR_UPDATE {
        return Ok(());
    }
    let reference = resourceful_contract::Reference {
        field: schema.id,
        table: schema.table.clone(),
        column: schema.id_field().column.clone(),
        target_field: schema.id_field().name.clone(),
    };
    let field_type: FieldType = schema.id_field().field_type;
    let lookup = write::reference_lookup::<D>(&reference, &database.overrides.snapshot());
    execute_lock(database, connection, schema, lookup, "FOR UPDATE", Arg::One(field_type, id)).await
}

async fn execute_lock<D: Dialect>(
    database: &Database<D>,
    connection: &mut Connection<D>,
    schema: &Schema,
    (text, values): (String, sea_query::Values),
    strength: &str,
    arg: Arg<'_>,
) -> Result<(), StorageError> {
    let args = bind::<D>(&args::argument_order(&values), &[arg])
        .map_err(|error| error_mapping::bind_error(schema, error))?;
    let query = database.query(format!("{text} {strength}"), args);
    D::rows(connection, query).await.map(drop).map_err(|error| D::map_error(error, schema))
}
