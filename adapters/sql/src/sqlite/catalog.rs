//! Reads SQLite's catalog.

use resourceful_contract::{FieldType, Schema, StorageError};
use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Executor as _, Row as _};

use crate::catalog::Column;
use crate::column_overrides::ColumnOverride;
use crate::dialect::{Dialect as _, TypeMismatch};
use crate::schema_check::{quoted, quoted_table};

/// `table_xinfo` lists generated columns too (hidden 2 and 3). An `INTEGER PRIMARY KEY` is the rowid, unless the key has an
/// index of its own (as `INTEGER PRIMARY KEY DESC` has).
pub(super) const COLUMNS: &str = "SELECT c.name, c.type, c.type, \
     CASE WHEN c.\"notnull\" <> 0 THEN 'yes' ELSE 'no' END, \
     CASE WHEN c.dflt_value IS NOT NULL OR c.hidden <> 0 THEN 'yes' ELSE 'no' END, \
     CASE WHEN c.hidden IN (2, 3) THEN 'yes' ELSE 'no' END, \
     CASE WHEN c.pk = 1 AND lower(c.type) = 'integer' \
       AND (SELECT count(*) FROM pragma_table_xinfo(?1) AS k WHERE k.pk > 0) = 1 \
       AND NOT EXISTS (SELECT 1 FROM pragma_index_list(?1) AS l WHERE l.origin = 'pk') \
     THEN 'yes' ELSE 'no' END, \
     CAST(c.pk AS TEXT), 'no', '', \
     CASE WHEN c.hidden = 0 THEN coalesce(c.dflt_value, '') ELSE '' END \
     FROM pragma_table_xinfo(?1) AS c ORDER BY c.cid";

/// A column of an index on an expression has no name.
pub(super) const INDEXES: &str = "SELECT l.name, coalesce(i.name, ''), \
     CASE WHEN l.\"unique\" <> 0 THEN 'yes' ELSE 'no' END, \
     CASE WHEN l.partial <> 0 THEN 'is partial' \
       WHEN EXISTS (SELECT 1 FROM pragma_index_info(l.name) AS e WHERE e.name IS NULL) \
       THEN 'is on an expression' ELSE '' END \
     FROM pragma_index_list(?1) AS l, pragma_index_info(l.name) AS i ORDER BY l.seq, i.seqno";

/// SQLite compares names case-insensitively.
pub(super) const NAME_TAKEN: &str =
    "SELECT 1 FROM sqlite_schema WHERE lower(name) = lower(?2) AND ?1 IS NOT NULL";

/// Checks for each text column whether UNION, which compares by the collation of its first part's column, treats texts that
/// differ in case or in trailing spaces as equal.
pub(super) async fn detect_collations(
    connection: &mut SqliteConnection,
    schema: &Schema,
    columns: &mut [Column],
) -> Result<(), StorageError> {
    let is_text = |column: &&mut Column| {
        let field = schema.fields.iter().find(|field| field.column == column.name);
        field.is_some_and(|field| field.field_type == FieldType::Text)
    };
    let table = quoted_table(&schema.table);
    // One column per statement: SQLite limits the width of a compound SELECT and the depth of an expression.
    for column in columns.iter_mut().filter(is_text) {
        let name = quoted(&column.name);
        let statement = format!(
            "SELECT count(*) FROM (SELECT {name} FROM {table} WHERE 0 \
             UNION SELECT 'a' UNION SELECT 'A' UNION SELECT 'a ')"
        );
        let failed = |error| super::SqliteDialect::map_error(error, schema);
        let row = connection.fetch_one(sqlx::raw_sql(AssertSqlSafe(statement))).await.map_err(failed)?;
        column.is_nondeterministic = row.try_get::<i64, _>(0).map_err(failed)? < 3;
    }
    Ok(())
}

/// Why a column cannot hold a field's values, by its affinity (<https://www.sqlite.org/datatype3.html>, 3.1): a column whose
/// declared type is not a text type converts text that looks like a number into a number.
pub(super) fn type_mismatch(column: &Column, field_type: FieldType) -> Option<TypeMismatch> {
    let name = column.type_name.as_str();
    let holds = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
    let integer = holds(&["int", "bool"]);
    let text = !name.contains("int") && holds(&["char", "clob", "text"]);
    let numeric = !integer && holds(&["json", "uuid", "date", "time", "decimal", "numeric"]);
    match field_type {
        FieldType::Boolean | FieldType::Integer => (!integer).then_some(TypeMismatch::Incompatible),
        FieldType::Float | FieldType::Float32 => {
            let fits = holds(&["real", "floa", "doub", "numeric", "decimal"]) || integer;
            (!fits).then_some(TypeMismatch::Incompatible)
        }
        _ if text => None,
        FieldType::Text if numeric => {
            Some(TypeMismatch::AltersValues("turns text that looks like a number into one"))
        }
        FieldType::Decimal if numeric => Some(TypeMismatch::LosesPrecision("keeps 15 digits of a decimal")),
        _ if numeric => None,
        _ => Some(TypeMismatch::Incompatible),
    }
}

pub(super) fn column_override(column: &Column, field_type: FieldType) -> ColumnOverride {
    let is_nondeterministic = column.is_nondeterministic && field_type == FieldType::Text;
    let by_bytes = is_nondeterministic.then_some("$1 COLLATE BINARY");
    ColumnOverride { is_generated: column.is_generated, column: by_bytes, ..ColumnOverride::default() }
}
