//! What differs between databases.

use std::fmt::Debug;
use std::time::Duration;

use futures::future::BoxFuture;
use resourceful_contract::{Capabilities, FieldType, Index, NotificationStream, Schema, StorageError, Value};
use sea_query::{Expr, QueryBuilder, SchemaBuilder, SelectStatement};
use sqlx::database::HasStatementCache;
use sqlx::{Database, IntoArguments, SqlStr};

use crate::args::Arg;
use crate::catalog::Column;
use crate::failure::Transient;
use crate::overrides::ColumnOverride;
use crate::storage::{ConnectOptions, SqlQuery};

/// What a value that cannot be read or bound says for itself.
pub(crate) type Unreadable = Box<dyn std::error::Error + Send + Sync>;

/// Why a column does not keep every value of a field's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Misfit {
    /// It keeps none, or statements fail.
    Cannot,
    /// It changes some when they are stored, in this way.
    Changes(&'static str),
    /// It keeps fewer digits than the type has.
    #[cfg_attr(not(feature = "sqlite"), expect(dead_code, reason = "PostgreSQL's columns say their digits"))]
    Rounds(&'static str),
}

/// A stored number in single precision, of which the column may hold more digits.
pub(crate) fn single(number: f64) -> Result<f32, Unreadable> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a number of single precision that is kept as a double"
    )]
    let single = number as f32;
    if single.is_finite() { Ok(single) } else { Err("a number beyond single precision".into()) }
}

/// A kind of database.
pub(crate) trait Dialect: Debug + Send + Sync + Sized + 'static {
    /// Its driver.
    type Db: Database<Row: Send, Arguments: Send + Default + IntoArguments<Self::Db>> + HasStatementCache;
    /// Its spelling of statements.
    type Builder: QueryBuilder + SchemaBuilder + Default;

    const NAME: &'static str;
    /// How a writing transaction begins.
    const BEGIN: &'static str;
    /// What locks a row that is read in order to be changed.
    const FOR_UPDATE: bool;
    /// Whether an index or a sort has to be told where nulls come, for them to come after every value.
    const SAY_NULLS: bool;
    /// How many rows one INSERT may carry at most, for a number of columns.
    fn most_rows(columns: usize) -> usize;

    fn capabilities() -> Capabilities;

    /// Runs a statement and answers its rows, all of them.
    fn rows<'c>(
        connection: &'c mut <Self::Db as Database>::Connection,
        query: SqlQuery<'c, Self>,
    ) -> BoxFuture<'c, Result<Vec<<Self::Db as Database>::Row>, sqlx::Error>>;

    /// The same for a statement that answers one row at most.
    fn row<'c>(
        connection: &'c mut <Self::Db as Database>::Connection,
        query: SqlQuery<'c, Self>,
    ) -> BoxFuture<'c, Result<Option<<Self::Db as Database>::Row>, sqlx::Error>>;

    /// Whether a statement whose future was dropped goes on until its connection is closed.
    const OUTLIVES_FUTURE: bool;

    /// The same as `rows` for a statement that may take long: it ends after this time, and when the future is dropped
    /// (with its connection, where it [outlives](Self::OUTLIVES_FUTURE) that).
    fn rows_within<'c>(
        connection: &'c mut <Self::Db as Database>::Connection,
        query: SqlQuery<'c, Self>,
        limit: Duration,
    ) -> BoxFuture<'c, Result<Vec<<Self::Db as Database>::Row>, sqlx::Error>>;

    /// Runs a statement and answers how many rows it affected.
    fn run<'c>(
        connection: &'c mut <Self::Db as Database>::Connection,
        query: SqlQuery<'c, Self>,
    ) -> BoxFuture<'c, Result<u64, sqlx::Error>>;

    /// Runs any number of statements, without arguments.
    fn script<'c>(
        connection: &'c mut <Self::Db as Database>::Connection,
        text: SqlStr,
    ) -> BoxFuture<'c, Result<(), sqlx::Error>>;

    /// What lets a transaction take its time, as a migration may.
    fn patience() -> Option<&'static str> {
        None
    }

    /// Whether rows can be inserted inside of WITH.
    const JOINS: bool = false;

    /// What rings a bell, for the bell's name as its only argument; `None` where the database has none.
    fn ring() -> Option<&'static str> {
        None
    }

    /// Listens to a bell on a connection of its own, which is to be made within this time.
    fn hear<'a>(
        options: &'a ConnectOptions<Self>,
        timeout: Duration,
        bell: &'a str,
    ) -> BoxFuture<'a, Result<Option<Box<dyn NotificationStream>>, sqlx::Error>> {
        let _ = (options, timeout, bell);
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Binds an argument as the type of the column it meets.
    fn bind(args: &mut <Self::Db as Database>::Arguments, arg: &Arg<'_>) -> Result<(), Unreadable>;

    /// Appends a column of a row as JSON.
    fn write(
        out: &mut Vec<u8>,
        row: &<Self::Db as Database>::Row,
        column: usize,
        field_type: FieldType,
    ) -> Result<(), Unreadable>;

    /// A column of a row as a value.
    fn read(
        row: &<Self::Db as Database>::Row,
        column: usize,
        field_type: FieldType,
    ) -> Result<Value, Unreadable>;

    /// A column of a row as a value from which a page goes on: equal, to the database, to what is stored.
    fn place(
        row: &<Self::Db as Database>::Row,
        column: usize,
        field_type: FieldType,
    ) -> Result<Value, Unreadable> {
        Self::read(row, column, field_type)
    }

    /// A column of a row as it is stored, whatever it is.
    fn opaque(row: &<Self::Db as Database>::Row, column: usize) -> Result<Value, Unreadable>;

    /// Whether a column of a row is null.
    fn is_null(row: &<Self::Db as Database>::Row, column: usize) -> Result<bool, Unreadable>;

    /// A column of a row as text: for names in catalogs and for aggregated JSON.
    fn text(row: &<Self::Db as Database>::Row, column: usize) -> Result<Option<&str>, Unreadable>;

    /// A built statement as it is prepared.
    fn finished(text: String) -> String {
        text
    }

    /// An expression of this template: `$1`, `$2` … stand for the parts, each once and in order.
    fn template(template: &str, parts: impl IntoIterator<Item = Expr>) -> Expr;

    /// A column as it is compared and sorted by.
    fn comparable(column: Expr, field_type: FieldType) -> Expr;

    /// The column is one of a list.
    fn is_in(column: Expr, list: Expr, field_type: FieldType) -> Expr;

    /// Text tests; an empty part matches every text.
    fn contains(column: Expr, part: Expr) -> Expr;
    fn starts(column: Expr, part: Expr) -> Expr;
    fn ends(column: Expr, part: Expr) -> Expr;

    /// The text matches the pattern of [`Arg::Word`]; where it is ASCII, that is to hold [`Arg::AsciiWord`].
    fn matches(column: Expr, pattern: Expr, in_ascii: Expr) -> Expr;

    /// The array holds one of these elements at least.
    fn overlaps(column: Expr, elements: Expr) -> Expr;

    /// The subquery has a row.
    fn exists(related: SelectStatement) -> Expr {
        Expr::exists(related)
    }

    /// Equal, or both null.
    fn is_same(column: Expr, other: Expr) -> Expr;

    /// A JSON array of these columns' values, inside [`aggregate`](Self::aggregate).
    fn tuple(columns: Vec<(Expr, FieldType)>) -> Expr;

    /// A JSON array of tuples as text.
    fn aggregate(tuple: Expr) -> Expr;

    /// An estimate of a whole table's rows, where the database keeps one.
    fn estimate(schema: &Schema) -> Option<String>;

    /// The type of a column made for a field.
    fn column_type(field_type: FieldType) -> String;

    /// What makes the id column of a table whose ids the database mints.
    fn minted_id() -> (&'static str, &'static str);

    /// What to run first so that two nodes do not create one table at once.
    fn creation_lock(schema: &Schema) -> Option<String>;

    /// What to run after rows came with ids of their own into a table whose ids the database mints.
    fn resume_ids(schema: &Schema) -> Option<String>;

    /// The columns of an index that is made for a schema's index.
    fn index_columns(schema: &Schema, index: &Index) -> Vec<usize>;

    /// The statement that lists a table's columns, each as [`Column`] reads it, for one text argument: the table.
    const COLUMNS: &'static str;

    /// The statement that lists the key columns of a table's indexes in order, for the table: the index, the column,
    /// whether it is unique, and why it does not serve every row at every time.
    const INDEXES: &'static str;

    /// The statement that answers a row where the schema of a table has something of a name already.
    const NAME_TAKEN: &'static str;

    /// What an insert says before its values for an id to be taken that the database would mint.
    const OVERRIDING: &'static str = "";

    /// How many bytes of a name are kept, where that is bounded.
    const NAME_BYTES: Option<usize> = None;

    /// Whether a column can be altered in place.
    const ALTERS: bool;

    /// Finds out which columns have collations that fold, where the catalog does not say so.
    fn collations<'a>(
        connection: &'a mut <Self::Db as Database>::Connection,
        schema: &'a Schema,
        columns: &'a mut [Column],
    ) -> BoxFuture<'a, Result<(), StorageError>> {
        let _ = (connection, schema, columns);
        Box::pin(std::future::ready(Ok(())))
    }

    /// Why a column does not keep the values of a field's type as they are.
    fn misfit(column: &Column, field_type: FieldType) -> Option<Misfit>;

    /// How statements treat a column otherwise than one that is made for a field of this type.
    fn column_override(column: &Column, field_type: FieldType) -> ColumnOverride;

    /// Whether a transaction that has begun may write.
    fn is_writable(
        connection: &mut <Self::Db as Database>::Connection,
    ) -> BoxFuture<'_, Result<bool, sqlx::Error>>;

    /// Whether a statement failed since the database is read-only.
    fn is_read_only(error: &sqlx::Error) -> bool;

    /// Whether a statement that failed like this may succeed when it, or its transaction, runs again.
    fn transient(error: &sqlx::Error) -> Option<Transient>;

    /// The fields that a refused change is about, where the error does not name them: those of a violated constraint,
    /// or those whose values do not fit their columns.
    fn refused_fields<'c>(
        connection: &'c mut <Self::Db as Database>::Connection,
        schema: &'c Schema,
        error: &'c sqlx::Error,
        written: &'c [(usize, &'c Value)],
    ) -> BoxFuture<'c, Result<Vec<usize>, sqlx::Error>>;

    /// What an error of the database means.
    fn failure(error: sqlx::Error, schema: &Schema) -> StorageError;
}
