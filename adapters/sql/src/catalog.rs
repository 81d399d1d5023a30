//! A table's columns and indexes, read from the database's catalog.

use resourceful_contract::{Schema, StorageError};

use super::error_mapping;
use crate::args::Arg;
use crate::dialect::{CodecError, Dialect};
use crate::plan::Row;
use crate::storage::{Connection, bind, unprepared_query};

/// A column as the database's catalog describes it.
#[derive(Debug)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// The base type below all domains, in lower case.
    pub(crate) type_name: String,
    /// The type as declared.
    pub(crate) declared_type: String,
    pub(crate) not_null: bool,
    pub(crate) has_default: bool,
    /// Whether the column is generated: the database computes it and refuses any given value.
    pub(crate) is_generated: bool,
    /// Whether the database generates a value for each new row.
    pub(crate) is_identity: bool,
    /// Its one-based position in the primary key, where the catalog lists that key here rather than as an index.
    pub(crate) primary_key_position: usize,
    /// Whether its collation treats texts with different bytes as equal.
    pub(crate) is_nondeterministic: bool,
    /// Its collation, as written in a statement; empty if it has none.
    #[cfg_attr(
        not(feature = "postgres"),
        expect(dead_code, reason = "SQLite's statements name collations of their own")
    )]
    pub(crate) collation: String,
    /// The expression of its default; empty if it has none.
    pub(crate) default: String,
}

impl Column {
    /// Reads a row of [`Dialect::COLUMNS`].
    fn from_row<D: Dialect>(row: &Row<D>) -> Result<Self, CodecError> {
        let text = |column| D::text(row, column).map(Option::unwrap_or_default);
        let is = |column| text(column).map(|text| text == "yes");
        Ok(Self {
            name: text(0)?.to_owned(),
            type_name: text(1)?.to_lowercase(),
            declared_type: text(2)?.to_lowercase(),
            not_null: is(3)?,
            has_default: is(4)?,
            is_generated: is(5)?,
            is_identity: is(6)?,
            primary_key_position: text(7)?.parse()?,
            is_nondeterministic: is(8)?,
            collation: text(9)?.to_owned(),
            default: text(10)?.to_owned(),
        })
    }
}

/// An index as the database's catalog describes it.
#[derive(Debug)]
pub(crate) struct TableIndex {
    pub(crate) name: String,
    /// The names of its key columns, in order.
    pub(crate) columns: Vec<String>,
    pub(crate) unique: bool,
    /// Why the index does not cover every row at all times (a partial index, for example); empty if it does.
    pub(crate) limitation: String,
}

/// The columns of a schema's table; empty if the table does not exist.
pub(crate) async fn columns<D: Dialect>(
    connection: &mut Connection<D>,
    schema: &Schema,
) -> Result<Vec<Column>, StorageError> {
    let rows = catalog_rows::<D>(connection, schema, D::COLUMNS).await?;
    rows.iter()
        .map(|row| Column::from_row::<D>(row).map_err(|error| error_mapping::corrupt_value(schema, error)))
        .collect()
}

/// The indexes of a schema's table.
pub(crate) async fn indexes<D: Dialect>(
    connection: &mut Connection<D>,
    schema: &Schema,
) -> Result<Vec<TableIndex>, StorageError> {
    let rows = catalog_rows::<D>(connection, schema, D::INDEXES).await?;
    let mut indexes: Vec<TableIndex> = Vec::new();
    for row in &rows {
        let text = |column| {
            let text = D::text(row, column).map_err(|error| error_mapping::corrupt_value(schema, error))?;
            Ok::<_, StorageError>(text.unwrap_or_default().to_owned())
        };
        let (name, column) = (text(0)?, text(1)?);
        match indexes.last_mut().filter(|index| index.name == name) {
            Some(index) => index.columns.push(column),
            None => indexes.push(TableIndex {
                name,
                columns: vec![column],
                unique: text(2)? == "yes",
                limitation: text(3)?,
            }),
        }
    }
    Ok(indexes)
}

async fn catalog_rows<D: Dialect>(
    connection: &mut Connection<D>,
    schema: &Schema,
    statement: &'static str,
) -> Result<Vec<Row<D>>, StorageError> {
    let args = bind::<D>(&[0], &[Arg::Text(&schema.table)])
        .map_err(|error| error_mapping::bind_error(schema, error))?;
    D::rows(connection, unprepared_query(statement, args)).await.map_err(|error| D::map_error(error, schema))
}
