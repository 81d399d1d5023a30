//! The differences between databases.

use std::fmt::Debug;
use std::time::Duration;

use futures::future::BoxFuture;
use resourceful_contract::{Capabilities, FieldType, Index, NotificationStream, Schema, StorageError, Value};
use sea_query::{Expr, QueryBuilder, SchemaBuilder, SelectStatement};
use sqlx::database::HasStatementCache;
use sqlx::{Database, IntoArguments, SqlStr};

use crate::args::Arg;
use crate::catalog::Column;
use crate::column_overrides::ColumnOverride;
use crate::error_mapping::Transient;
use crate::storage::{ConnectOptions, SqlQuery};

/// The error of a value that cannot be decoded or bound.
pub(crate) type CodecError = Box<dyn std::error::Error + Send + Sync>;

/// Why a column cannot hold every value of a field's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TypeMismatch {
    /// It holds none, or statements fail.
    Incompatible,
    /// It changes some values when they are stored, as described.
    AltersValues(&'static str),
    /// It keeps fewer digits than the type has.
    #[cfg_attr(not(feature = "sqlite"), expect(dead_code, reason = "PostgreSQL's columns say their digits"))]
    LosesPrecision(&'static str),
}

/// A stored number in single precision; the column may hold more digits.
pub(crate) fn to_float32(number: f64) -> Result<f32, CodecError> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a number of single precision that is kept as a double"
    )]
    let single = number as f32;
    if single.is_finite() { Ok(single) } else { Err("a number beyond single precision".into()) }
}

/// A database system: its driver and its SQL.
pub(crate) trait Dialect: Debug + Send + Sync + Sized + 'static {
    /// Its sqlx driver.
    type Db: Database<Row: Send, Arguments: Send + Default + IntoArguments<Self::Db>> + HasStatementCache;
    /// Its sea-query builder.
    type Builder: QueryBuilder + SchemaBuilder + Default;

    const NAME: &'static str;
    /// The dialect of its migrations.
    const DIALECT: resourceful_contract::SqlDialect;
    /// The statement that begins a writing transaction.
    const BEGIN: &'static str;
    /// Whether rows that are read in order to be changed are locked (`FOR UPDATE`).
    const FOR_UPDATE: bool;
    /// Whether an index or a sort must state the position of nulls explicitly, for nulls to come after every value.
    const EXPLICIT_NULLS: bool;
    /// The maximum number of rows in one INSERT, for a number of columns.
    fn max_insert_rows(columns: usize) -> usize;

    fn capabilities() -> Capabilities;

    /// Runs a statement and returns all its rows.
    fn rows<'c>(
        connection: &'c mut <Self::Db as Database>::Connection,
        query: SqlQuery<'c, Self>,
    ) -> BoxFuture<'c, Result<Vec<<Self::Db as Database>::Row>, sqlx::Error>>;

    /// Runs a statement that returns at most one row.
    fn row<'c>(
        connection: &'c mut <Self::Db as Database>::Connection,
        query: SqlQuery<'c, Self>,
    ) -> BoxFuture<'c, Result<Option<<Self::Db as Database>::Row>, sqlx::Error>>;

    /// Whether a statement whose future was dropped runs on until its connection is closed.
    const RUNS_AFTER_DROP: bool;

    /// Runs a statement that may take long, as `rows` does: it ends after this time, and when the future is dropped (with
    /// its connection, where it [outlives](Self::OUTLIVES_FUTURE) that).
    fn rows_within<'c>(
        connection: &'c mut <Self::Db as Database>::Connection,
        query: SqlQuery<'c, Self>,
        limit: Duration,
    ) -> BoxFuture<'c, Result<Vec<<Self::Db as Database>::Row>, sqlx::Error>>;

    /// Runs a statement and returns the number of affected rows.
    fn execute<'c>(
        connection: &'c mut <Self::Db as Database>::Connection,
        query: SqlQuery<'c, Self>,
    ) -> BoxFuture<'c, Result<u64, sqlx::Error>>;

    /// Runs any number of statements without arguments.
    fn execute_script<'c>(
        connection: &'c mut <Self::Db as Database>::Connection,
        text: SqlStr,
    ) -> BoxFuture<'c, Result<(), sqlx::Error>>;

    /// The statement that lifts time limits for a transaction, such as one of a migration.
    fn lift_timeout_statement() -> Option<&'static str> {
        None
    }

    /// Whether INSERT is allowed inside WITH.
    const INSERT_IN_WITH: bool = false;

    /// The statement that sends a notification, with the channel as its only argument; `None` where the database has none.
    fn notify_statement() -> Option<&'static str> {
        None
    }

    /// Listens to a channel on a connection of its own, which must be opened within this time.
    fn listen<'a>(
        options: &'a ConnectOptions<Self>,
        timeout: Duration,
        channel: &'a str,
    ) -> BoxFuture<'a, Result<Option<Box<dyn NotificationStream>>, sqlx::Error>> {
        let _ = (options, timeout, channel);
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Binds an argument as the type of the column that it is compared with or stored in.
    fn bind(args: &mut <Self::Db as Database>::Arguments, arg: &Arg<'_>) -> Result<(), CodecError>;

    /// Appends a column of a row as JSON.
    fn write(
        out: &mut Vec<u8>,
        row: &<Self::Db as Database>::Row,
        column: usize,
        field_type: FieldType,
    ) -> Result<(), CodecError>;

    /// A column of a row, decoded as a value.
    fn read(
        row: &<Self::Db as Database>::Row,
        column: usize,
        field_type: FieldType,
    ) -> Result<Value, CodecError>;

    /// A column of a row as the value of a cursor: equal, to the database, to the stored one.
    fn cursor_value(
        row: &<Self::Db as Database>::Row,
        column: usize,
        field_type: FieldType,
    ) -> Result<Value, CodecError> {
        Self::read(row, column, field_type)
    }

    /// A column of a row as stored, whatever its type.
    fn opaque(row: &<Self::Db as Database>::Row, column: usize) -> Result<Value, CodecError>;

    /// Whether a column of a row is null.
    fn is_null(row: &<Self::Db as Database>::Row, column: usize) -> Result<bool, CodecError>;

    /// A column of a row as text: for names from catalogs and for aggregated JSON.
    fn text(row: &<Self::Db as Database>::Row, column: usize) -> Result<Option<&str>, CodecError>;

    /// The final text of a built statement, as it is prepared.
    fn finish_sql(text: String) -> String {
        text
    }

    /// An expression from a template: `$1`, `$2` … are replaced by the parts, each once and in order.
    fn template(template: &str, parts: impl IntoIterator<Item = Expr>) -> Expr;

    /// A column in the form in which it is compared and sorted.
    fn comparable(column: Expr, field_type: FieldType) -> Expr;

    /// The condition that a column's value is in a list.
    fn is_in(column: Expr, list: Expr, field_type: FieldType) -> Expr;

    /// Substring, prefix and suffix tests; an empty part matches every text.
    fn contains(column: Expr, part: Expr) -> Expr;
    fn starts_with(column: Expr, part: Expr) -> Expr;
    fn ends_with(column: Expr, part: Expr) -> Expr;

    /// The condition that a text matches the pattern of [`Arg::Word`], or, if it is ASCII, contains [`Arg::AsciiWord`].
    fn matches_search(column: Expr, pattern: Expr, ascii_term: Expr) -> Expr;

    /// The condition that an array contains at least one of these elements.
    fn overlaps(column: Expr, elements: Expr) -> Expr;

    /// The condition that a subquery has a row.
    fn exists(related: SelectStatement) -> Expr {
        Expr::exists(related)
    }

    /// The condition that two values are equal, or both null.
    fn is_not_distinct(column: Expr, other: Expr) -> Expr;

    /// A JSON array of these columns' values, inside [`aggregate`](Self::aggregate).
    fn tuple(columns: Vec<(Expr, FieldType)>) -> Expr;

    /// A JSON array of tuples, as text.
    fn aggregate(tuple: Expr) -> Expr;

    /// An estimate of a table's row count, where the database keeps one.
    fn estimate(schema: &Schema) -> Option<String>;

    /// The column type for a field.
    fn column_type(field_type: FieldType) -> String;

    /// The type and constraint of an id column whose values the database generates.
    fn identity_column() -> (&'static str, &'static str);

    /// The statement that keeps two nodes from creating one table at the same time.
    fn creation_lock(schema: &Schema) -> Option<String>;

    /// The statement to run after rows with explicit ids were inserted into a table whose ids the database generates.
    fn advance_id_sequence(schema: &Schema) -> Option<String>;

    /// The columns of the database index for a schema's index.
    fn index_columns(schema: &Schema, index: &Index) -> Vec<usize>;

    /// The statement that lists a table's columns, each as [`Column`] reads it; its one text argument is the table.
    const COLUMNS: &'static str;

    /// The statement that lists the key columns of a table's indexes in order; its argument is the table. Columns: the
    /// index, the column, whether it is unique, and why it does not cover every row at all times.
    const INDEXES: &'static str;

    /// The statement that returns a row if a name is already taken in the table's database schema.
    const NAME_TAKEN: &'static str;

    /// The clause before the values of an INSERT that makes the database accept a given id instead of generating one.
    const OVERRIDING_CLAUSE: &'static str = "";

    /// The maximum length of a name in bytes, where it is limited.
    const MAX_NAME_BYTES: Option<usize> = None;

    /// Whether a column can be altered in place.
    const CAN_ALTER_COLUMNS: bool;

    /// Finds out which columns have collations that fold texts, where the catalog does not tell.
    fn detect_collations<'a>(
        connection: &'a mut <Self::Db as Database>::Connection,
        schema: &'a Schema,
        columns: &'a mut [Column],
    ) -> BoxFuture<'a, Result<(), StorageError>> {
        let _ = (connection, schema, columns);
        Box::pin(std::future::ready(Ok(())))
    }

    /// Why a column cannot hold the values of a field's type unchanged.
    fn type_mismatch(column: &Column, field_type: FieldType) -> Option<TypeMismatch>;

    /// How statements treat a column differently from one that is created for a field of this type.
    fn column_override(column: &Column, field_type: FieldType) -> ColumnOverride;

    /// Whether the current transaction may write.
    fn is_writable(
        connection: &mut <Self::Db as Database>::Connection,
    ) -> BoxFuture<'_, Result<bool, sqlx::Error>>;

    /// Whether a statement failed because the database is read-only.
    fn is_read_only(error: &sqlx::Error) -> bool;

    /// Whether a statement with this error may succeed when it, or its transaction, is retried.
    fn transient(error: &sqlx::Error) -> Option<Transient>;

    /// The fields that caused a refused change, where the error does not name them: those of a violated constraint, or those
    /// whose values do not fit their columns.
    fn rejected_fields<'c>(
        connection: &'c mut <Self::Db as Database>::Connection,
        schema: &'c Schema,
        error: &'c sqlx::Error,
        written: &'c [(usize, &'c Value)],
    ) -> BoxFuture<'c, Result<Vec<usize>, sqlx::Error>>;

    /// Maps a database error to the contract's error.
    fn map_error(error: sqlx::Error, schema: &Schema) -> StorageError;
}
