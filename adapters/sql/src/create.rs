//! A table made from a declaration.

use std::sync::Arc;

use resourceful_contract::{IdSource, Index, Schema, StorageError};
use sea_query::{ColumnDef, ForeignKey, IntoIden as _, Table};
use sqlx::{AssertSqlSafe, Connection as _, SqlSafeStr as _};

use crate::check::columns;
use crate::dialect::Dialect;
use crate::failure;
use crate::select::table;
use crate::storage::{Arguments, Database};

pub(crate) async fn create<D: Dialect>(
    database: &Database<D>,
    schema: &Arc<Schema>,
) -> Result<(), StorageError> {
    let mut connection = database.writer().await?;
    let mut transaction = connection.begin_with(D::BEGIN).await.map_err(failure::connection)?;
    if let Some(lock) = D::creation_lock(schema) {
        run::<D>(&mut transaction, schema, lock).await?;
    }
    if columns::<D>(&mut transaction, schema).await?.is_empty() {
        run::<D>(&mut transaction, schema, create_table::<D>(schema)).await?;
        for index in &schema.indexes {
            run::<D>(&mut transaction, schema, create_index::<D>(schema, index)).await?;
        }
    }
    transaction.commit().await.map_err(|error| D::failure(error, schema))?;
    connection.hand_on();
    Ok(())
}

async fn run<D: Dialect>(
    connection: &mut crate::storage::Connection<D>,
    schema: &Schema,
    statement: String,
) -> Result<(), StorageError> {
    let statement = AssertSqlSafe(statement).into_sql_str();
    D::rows(connection, statement, Arguments::<D>::default())
        .await
        .map(drop)
        .map_err(|error| D::failure(error, schema))
}

pub(crate) fn create_table<D: Dialect>(schema: &Schema) -> String {
    let mut statement = Table::create();
    statement.table(table(&schema.table)).if_not_exists();
    for (position, field) in schema.fields.iter().enumerate() {
        let mut column = ColumnDef::new(field.column.clone().into_iden());
        if position == schema.id && schema.id_source == IdSource::Storage {
            let (column_type, extra) = D::minted_id();
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

fn create_index<D: Dialect>(schema: &Schema, index: &Index) -> String {
    let columns = D::index_columns(schema, index);
    let mut statement = sea_query::Index::create();
    statement.if_not_exists().name(index_name(schema, index)).table(table(&schema.table));
    for field in columns {
        statement.col(schema.fields[field].column.clone().into_iden());
    }
    if index.unique {
        statement.unique();
    }
    statement.to_string(D::Builder::default())
}

/// A name that says what it indexes, within the 63 bytes that PostgreSQL keeps of one.
fn index_name(schema: &Schema, index: &Index) -> String {
    let fields: Vec<_> = index.fields.iter().map(|field| schema.fields[*field].column.as_str()).collect();
    let kind = if index.unique { "key" } else { "idx" };
    let name = format!("{}_{}_{kind}", schema.table.replace('.', "_"), fields.join("_"));
    if name.len() <= 63 {
        return name;
    }
    // FNV-1a, for it to be the same on every node; two indexes of one table that share it do not build.
    let digest = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |digest, byte| {
        (digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut kept = 40;
    while !name.is_char_boundary(kept) {
        kept -= 1;
    }
    format!("{}_{digest:016x}_{kind}", &name[..kept])
}
