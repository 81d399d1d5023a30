//! A declaration next to the table that is really there.

use std::sync::Arc;

use resourceful_contract::{IdSource, Mismatch, Schema, StorageError};
use sqlx::SqlSafeStr as _;

use crate::args::Arg;
use crate::dialect::{Dialect, Unreadable};
use crate::failure;
use crate::plan::Row;
use crate::storage::{Connection, Database, bind};

/// A column as the database's catalog has it.
#[derive(Debug)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// In lower case.
    pub(crate) type_name: String,
    pub(crate) not_null: bool,
    pub(crate) has_default: bool,
    /// Whether it is the whole primary key, or unique by itself.
    pub(crate) unique: bool,
}

impl Column {
    /// Reads a row of [`Dialect::catalog`]: name, type, and three flags as text.
    fn of<D: Dialect>(row: &Row<D>) -> Result<Self, Unreadable> {
        let text = |column| D::text(row, column).map(Option::unwrap_or_default);
        Ok(Self {
            name: text(0)?.to_owned(),
            type_name: text(1)?.to_lowercase(),
            not_null: text(2)? == "yes",
            has_default: text(3)? == "yes",
            unique: text(4)? == "yes",
        })
    }
}

/// The columns of a schema's table; none where there is no such table.
pub(crate) async fn columns<D: Dialect>(
    connection: &mut Connection<D>,
    schema: &Schema,
) -> Result<Vec<Column>, StorageError> {
    let args =
        bind::<D>(&[0], &[Arg::Text(&schema.table)]).map_err(|error| failure::unbound(schema, error))?;
    let rows = D::rows(connection, D::catalog().into_sql_str(), args)
        .await
        .map_err(|error| D::failure(error, schema))?;
    rows.iter().map(|row| Column::of::<D>(row).map_err(|error| failure::corrupt(schema, error))).collect()
}

pub(crate) async fn check<D: Dialect>(
    database: &Database<D>,
    schema: &Arc<Schema>,
) -> Result<Vec<Mismatch>, StorageError> {
    let mut connection = database.reader().await?;
    let columns = columns::<D>(&mut connection, schema).await?;
    connection.hand_on();
    if columns.is_empty() {
        return Ok(vec![Mismatch {
            field: None,
            message: format!(
                "there is no table `{}`: create it, or let .create_table_if_missing() do so",
                schema.table
            ),
        }]);
    }
    let mut mismatches = Vec::new();
    for (position, field) in schema.fields.iter().enumerate() {
        let mut say = |message: String| {
            mismatches.push(Mismatch { field: Some(field.name.clone()), message });
        };
        let Some(column) = columns.iter().find(|column| column.name == field.column) else {
            say(format!("the table `{}` has no column `{}`", schema.table, field.column));
            continue;
        };
        if !D::keeps(column, field.field_type) {
            say(format!(
                "the column `{}` is of type {}, and the field needs {}",
                field.column,
                column.type_name,
                D::column_type(field.field_type)
            ));
        }
        if position == schema.id && !column.unique {
            say(format!("the column `{}` is the id, and nothing makes it unique", field.column));
        }
        if position == schema.id && schema.id_source == IdSource::Storage && !mints::<D>(column) {
            say(format!("the column `{}` mints no ids: make it an identity", field.column));
        }
    }
    for column in &columns {
        let known = schema.fields.iter().any(|field| field.column == column.name);
        if !known && column.not_null && !column.has_default {
            mismatches.push(Mismatch {
                field: None,
                message: format!(
                    "the column `{}` is NOT NULL without a default, and no field fills it",
                    column.name
                ),
            });
        }
    }
    Ok(mismatches)
}

fn mints<D: Dialect>(column: &Column) -> bool {
    // On SQLite any INTEGER PRIMARY KEY does.
    column.has_default || !D::FOR_UPDATE
}
