//! Creates a table from a declaration.

use std::sync::Arc;

use resourceful_contract::{IdSource, Index, Schema, StorageError};
use sea_query::{ColumnDef, ForeignKey, IntoIden as _, Table};
use sqlx::AssertSqlSafe;

use super::error_mapping;
use crate::args::Arg;
use crate::catalog::columns;
use crate::dialect::Dialect;
use crate::schema_check::{overlong_names, quoted, quoted_table};
use crate::select::table;
use crate::storage::{Arguments, Connection, Database, bind, unprepared_query};

pub(crate) async fn create<D: Dialect>(
    database: &Database<D>,
    schema: &Arc<Schema>,
) -> Result<(), StorageError> {
    if !overlong_names::<D>(schema).is_empty() {
        // The comparison with the table reports it.
        return Ok(());
    }
    let mut connection = database.writer().await?;
    let mut transaction = connection.begin().await.map_err(error_mapping::connection_error)?;
    if let Some(lock) = D::creation_lock(schema) {
        execute::<D>(&mut transaction, schema, lock).await?;
    }
    if columns::<D>(&mut transaction, schema).await?.is_empty() {
        execute::<D>(&mut transaction, schema, create_table::<D>(schema)).await?;
        for index in &schema.indexes {
            let name = unused_index_name::<D>(&mut transaction, schema, index).await?;
            execute::<D>(&mut transaction, schema, create_index::<D>(schema, index, &name)).await?;
        }
    }
    transaction.commit().await.map_err(|error| D::map_error(error, schema))?;
    connection.release();
    Ok(())
}

async fn execute<D: Dialect>(
    connection: &mut Connection<D>,
    schema: &Schema,
    statement: String,
) -> Result<(), StorageError> {
    D::rows(connection, unprepared_query(AssertSqlSafe(statement), Arguments::<D>::default()))
        .await
        .map(drop)
        .map_err(|error| D::map_error(error, schema))
}

pub(crate) fn create_table<D: Dialect>(schema: &Schema) -> String {
    let mut statement = Table::create();
    statement.table(table(&schema.table)).if_not_exists();
    for (position, field) in schema.fields.iter().enumerate() {
        let mut column = ColumnDef::new(field.column.clone().into_iden());
        if position == schema.id && schema.id_source == IdSource::Storage {
            let (column_type, extra) = D::identity_column();
            column.custom(column_type).extra(extra);
        } else {
            column.custom(D::column_type(field.field_type));
            if position == schema.id {
                column.not_null().primary_key();
            } else if !field.nullable {
                column.not_null();
            }
            if schema.version == Some(position) {
                column.extra("DEFAULT 1");
            }
        }
        statement.col(column);
    }
    for reference in &schema.references {
        let mut key = ForeignKey::create();
        key.from(table(&schema.table), schema.fields[reference.field].column.clone().into_iden())
            .to(table(&reference.table), reference.column.clone().into_iden());
        statement.foreign_key(&mut key);
    }
    statement.to_string(D::Builder::default())
}

/// The CREATE INDEX statement for a schema's index.
pub(crate) fn create_index<D: Dialect>(schema: &Schema, index: &Index, name: &str) -> String {
    let columns = D::index_columns(schema, index);
    let columns: Vec<_> = columns.into_iter().map(|field| quoted(&schema.fields[field].column)).collect();
    let unique = if index.unique { "UNIQUE " } else { "" };
    let (name, table) = (quoted(name), quoted_table(&schema.table));
    format!("CREATE {unique}INDEX {name} ON {table} ({})", columns.join(", "))
}

/// An index name within the 63 bytes that PostgreSQL keeps: it names the table and columns as far as there is room, and ends
/// with a digest of both. Without the digest, `order` with `line_code` and `order_line` with `code` would get the same name.
pub(crate) fn index_name(schema: &Schema, index: &Index) -> String {
    let fields: Vec<_> = index.fields.iter().map(|field| schema.fields[*field].column.as_str()).collect();
    let kind = if index.unique { "key" } else { "idx" };
    let mut readable = format!("{}_{}", schema.table.replace('.', "_"), fields.join("_"));
    // FNV-1a, for a digest that is the same on every node; each name is followed by a zero byte, which no name contains.
    let parts = std::iter::once(schema.table.as_str()).chain(fields).chain([kind]);
    let input = parts.flat_map(|part| part.bytes().chain([0]));
    let digest = input.fold(0xcbf2_9ce4_8422_2325_u64, |digest, byte| {
        (digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut prefix_length = readable.len().min(40);
    while !readable.is_char_boundary(prefix_length) {
        prefix_length -= 1;
    }
    readable.truncate(prefix_length);
    format!("{readable}_{digest:016x}_{kind}")
}

/// The index's name, or the first numbered variant that is free in the table's database schema: a renamed table keeps the
/// names of its indexes.
async fn unused_index_name<D: Dialect>(
    connection: &mut Connection<D>,
    schema: &Schema,
    index: &Index,
) -> Result<String, StorageError> {
    let first = index_name(schema, index);
    let mut name = first.clone();
    for number in 2.. {
        let args = bind::<D>(&[0, 1], &[Arg::Text(&schema.table), Arg::Text(&name)]);
        let args = args.map_err(|error| error_mapping::bind_error(schema, error))?;
        let existing = D::rows(connection, unprepared_query(D::NAME_TAKEN, args)).await;
        if existing.map_err(|error| D::map_error(error, schema))?.is_empty() {
            break;
        }
        name = format!("{first}{number}");
    }
    Ok(name)
}
