//! A table's columns and indexes, read from the database's catalog.

use resourceful_contract::{Schema, StorageError};

use crate::args::Arg;
use crate::dialect::{Dialect, Unreadable};
use crate::failure;
use crate::plan::Row;
use crate::storage::{Connection, bind, once};

/// A column as the database's catalog describes it.
#[derive(Debug)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// The base type below all domains, in lower case.
    pub(crate) type_name: String,
    /// The type as declared.
    pub(crate) declared: String,
    pub(crate) not_null: bool,
    pub(crate) has_default: bool,
    /// Whether the column is generated: the database computes it and refuses any given value.
    pub(crate) generated: bool,
    /// Whether the database generates a value for each new row.
    pub(crate) mints: bool,
    /// Its one-based position in the primary key, where the catalog lists that key here rather than as an index.
    pub(crate) key: usize,
    /// Whether its collation treats texts with different bytes as equal.
    pub(crate) folds: bool,
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
    fn of<D: Dialect>(row: &Row<D>) -> Result<Self, Unreadable> {
        let text = |column| D::text(row, column).map(Option::unwrap_or_default);
        let is = |column| text(column).map(|text| text == "yes");
        Ok(Self {
            name: text(0)?.to_owned(),
            type_name: text(1)?.to_lowercase(),
            declared: text(2)?.to_lowercase(),
            not_null: is(3)?,
            has_default: is(4)?,
            generated: is(5)?,
            mints: is(6)?,
            key: text(7)?.parse()?,
            folds: is(8)?,
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
    pub(crate) flaw: String,
}

/// The columns of a schema's table; empty if the table does not exist.
pub(crate) async fn columns<D: Dialect>(
    connection: &mut Connection<D>,
    schema: &Schema,
) -> Result<Vec<Column>, StorageError> {
    let rows = rows::<D>(connection, schema, D::COLUMNS).await?;
    rows.iter().map(|row| Column::of::<D>(row).map_err(|error| failure::corrupt(schema, error))).collect()
}

/// The indexes of a schema's table.
pub(crate) async fn indexes<D: Dialect>(
    connection: &mut Connection<D>,
    schema: &Schema,
) -> Result<Vec<TableIndex>, StorageError> {
    let rows = rows::<D>(connection, schema, D::INDEXES).await?;
    let mut indexes: Vec<TableIndex> = Vec::new();
    for row in &rows {
        let text = |column| {
            let text = D::text(row, column).map_err(|error| failure::corrupt(schema, error))?;
            Ok::<_, StorageError>(text.unwrap_or_default().to_owned())
        };
        let (name, column) = (text(0)?, text(1)?);
        match indexes.last_mut().filter(|index| index.name == name) {
            Some(index) => index.columns.push(column),
            None => indexes.push(TableIndex {
                name,
                columns: vec![column],
                unique: text(2)? == "yes",
                flaw: text(3)?,
            }),
        }
    }
    Ok(indexes)
}

async fn rows<D: Dialect>(
    connection: &mut Connection<D>,
    schema: &Schema,
    statement: &'static str,
) -> Result<Vec<Row<D>>, StorageError> {
    let args =
        bind::<D>(&[0], &[Arg::Text(&schema.table)]).map_err(|error| failure::unbound(schema, error))?;
    D::rows(connection, once(statement, args)).await.map_err(|error| D::failure(error, schema))
}
