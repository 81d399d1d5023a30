//! The SQLite dialect.

mod catalog;
mod connect_error;
mod connection_test;
mod readiness;
mod search_pattern;
mod time_limit;
mod value;
mod violated_fields;

use std::str::FromStr as _;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use resourceful_contract::{Capabilities, ErrorKind, FieldType, Index, Schema, StorageError, Value};
use sea_query::{Expr, SelectStatement, SqliteQueryBuilder};
use sqlx::sqlite::{
    SqliteArguments, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePoolOptions, SqliteRow,
    SqliteSynchronous,
};
use sqlx::{Executor as _, Row as _, SqlStr, Sqlite, ValueRef as _};

use super::error_mapping;
use crate::args::Arg;
use crate::catalog::Column;
use crate::column_overrides::ColumnOverride;
use crate::connect::SqlOptions;
use crate::dialect::{CodecError, Dialect, TypeMismatch};
use crate::error_mapping::Transient;
use crate::session_mode::SessionMode;
use crate::storage::{Database, SqlQuery};

/// The collation that compares decimals, which are stored as text.
const DECIMAL_COLLATION: &str = "resourceful_decimal";
/// The number of prepared statements that a connection keeps.
const STATEMENT_CACHE_CAPACITY: usize = 512;

pub(crate) async fn open(options: &SqlOptions) -> Result<Database<SqliteDialect>, StorageError> {
    let connect = SqliteConnectOptions::from_str(&options.url).map_err(connect_error::url_error)?;
    let path = connect.get_filename().display().to_string();
    let open_error = |error: sqlx::Error| connect_error::to_storage_error(error, &path);
    let is_read_only = is_read_only_url(&options.url);
    let connect = connect
        .create_if_missing(!is_read_only)
        .foreign_keys(true)
        .busy_timeout(options.busy_timeout)
        .statement_cache_capacity(STATEMENT_CACHE_CAPACITY)
        .collation(DECIMAL_COLLATION, value::compare_decimals);
    if options.url.contains(":memory:") || options.url.contains("mode=memory") {
        // An in-memory database exists only on its connection, so there is exactly one, and it is never closed.
        let only = SqlitePoolOptions::new()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .acquire_timeout(options.acquire_timeout)
            .after_release(|connection, _| connection_test::repair(connection).boxed())
            .connect_with(connect)
            .await
            .map_err(open_error)?;
        let sessions = SessionMode { is_replaceable: false, ..SessionMode::direct::<SqliteDialect>() };
        return Ok(Database::with_one_pool(only, sessions, options.limits()));
    }
    // In WAL mode, NORMAL keeps a commit through a crash of the process; FULL keeps it through a loss of power too.
    let connect = connect.synchronous(SqliteSynchronous::Full);
    let connect = if is_read_only { connect } else { connect.journal_mode(SqliteJournalMode::Wal) };
    let pool = |connections: u32| {
        SqlitePoolOptions::new()
            .max_connections(connections)
            .idle_timeout(Some(Duration::from_secs(600)))
            .max_lifetime(None)
            .test_before_acquire(false)
            .acquire_timeout(options.acquire_timeout)
            .after_release(|connection, _| connection_test::is_usable(connection).boxed())
    };
    let end = Instant::now() + options.busy_timeout;
    let writer = loop {
        match pool(1).connect_with(connect.clone()).await {
            // Changing to WAL mode needs exclusive access, and SQLite's busy timeout does not apply to it.
            Err(error) if is_busy(&error) && Instant::now() < end => {
                tokio::time::sleep(OPEN_RETRY_DELAY).await;
            }
            outcome => break outcome.map_err(open_error)?,
        }
    };
    let readers = pool(options.max_connections.unwrap_or(4)).connect_with(connect);
    Ok(Database::new(readers.await.map_err(open_error)?, writer, options.limits()))
}

/// Whether a URL opens a database read-only, which is then neither created nor changed to WAL mode.
fn is_read_only_url(url: &str) -> bool {
    let (_, query) = url.split_once('?').unwrap_or_default();
    query.split('&').any(|pair| matches!(pair, "mode=ro" | "immutable=true" | "immutable=1"))
}

/// How long to wait before retrying to open a database that another process has locked.
const OPEN_RETRY_DELAY: Duration = Duration::from_millis(10);

/// Whether another connection has locked the database or the table (SQLITE_BUSY, SQLITE_LOCKED).
fn is_busy(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|database| matches!(primary_code(database), 5 | 6))
}

/// The primary result code, which is in the low byte.
fn primary_code(error: &dyn sqlx::error::DatabaseError) -> u32 {
    error.code().and_then(|code| code.parse::<u32>().ok()).unwrap_or(0) & 0xff
}

#[derive(Debug)]
pub(crate) struct SqliteDialect;

impl Dialect for SqliteDialect {
    type Db = Sqlite;
    type Builder = SqliteQueryBuilder;

    const NAME: &'static str = "sqlite";
    const DIALECT: resourceful_contract::SqlDialect = resourceful_contract::SqlDialect::Sqlite;
    const BEGIN: &'static str = "BEGIN IMMEDIATE";
    const FOR_UPDATE: bool = false;
    const EXPLICIT_NULLS: bool = true;
    const RUNS_AFTER_DROP: bool = false;

    fn max_insert_rows(columns: usize) -> usize {
        // SQLite allows 32,766 parameters (SQLITE_MAX_VARIABLE_NUMBER).
        (32_766 / columns.max(1)).clamp(1, 100)
    }

    fn capabilities() -> Capabilities {
        let mut capabilities = Capabilities::core();
        capabilities.durable = true;
        capabilities.relations = true;
        capabilities.foreign_keys = true;
        capabilities
    }

    fn rows<'c>(
        connection: &'c mut SqliteConnection,
        query: SqlQuery<'c, Self>,
    ) -> BoxFuture<'c, Result<Vec<SqliteRow>, sqlx::Error>> {
        connection.fetch_all(query).boxed()
    }

    fn row<'c>(
        connection: &'c mut SqliteConnection,
        query: SqlQuery<'c, Self>,
    ) -> BoxFuture<'c, Result<Option<SqliteRow>, sqlx::Error>> {
        connection.fetch_optional(query).boxed()
    }

    fn rows_within<'c>(
        connection: &'c mut SqliteConnection,
        query: SqlQuery<'c, Self>,
        limit: Duration,
    ) -> BoxFuture<'c, Result<Vec<SqliteRow>, sqlx::Error>> {
        time_limit::fetch_within(connection, query, limit).boxed()
    }

    fn execute<'c>(
        connection: &'c mut SqliteConnection,
        query: SqlQuery<'c, Self>,
    ) -> BoxFuture<'c, Result<u64, sqlx::Error>> {
        let done = connection.execute(query);
        done.map(|done| done.map(|done| done.rows_affected())).boxed()
    }

    fn execute_script<'c>(
        connection: &'c mut SqliteConnection,
        text: SqlStr,
    ) -> BoxFuture<'c, Result<(), sqlx::Error>> {
        connection.execute(sqlx::raw_sql(text)).map(|done| done.map(drop)).boxed()
    }

    fn bind(args: &mut SqliteArguments, arg: &Arg<'_>) -> Result<(), CodecError> {
        value::bind(args, arg)
    }

    fn write(
        out: &mut Vec<u8>,
        row: &SqliteRow,
        column: usize,
        field_type: FieldType,
    ) -> Result<(), CodecError> {
        value::write(out, row, column, field_type)
    }

    fn read(row: &SqliteRow, column: usize, field_type: FieldType) -> Result<Value, CodecError> {
        value::read(row, column, field_type)
    }

    fn cursor_value(row: &SqliteRow, column: usize, field_type: FieldType) -> Result<Value, CodecError> {
        value::cursor_value(row, column, field_type)
    }

    fn opaque(row: &SqliteRow, column: usize) -> Result<Value, CodecError> {
        value::opaque(row, column)
    }

    fn is_null(row: &SqliteRow, column: usize) -> Result<bool, CodecError> {
        Ok(row.try_get_raw(column)?.is_null())
    }

    fn text(row: &SqliteRow, column: usize) -> Result<Option<&str>, CodecError> {
        Ok(row.try_get(column)?)
    }

    fn finish_sql(text: String) -> String {
        // When a LIMIT is a bare parameter, SQLite plans by its value, and so prepares the statement again each time that
        // one is bound. An expression around the parameter keeps the plan.
        text.replace("LIMIT ?", "LIMIT ? + 0").replace("OFFSET ?", "OFFSET ? + 0")
    }

    fn template(template: &str, parts: impl IntoIterator<Item = Expr>) -> Expr {
        let parts: Vec<_> = parts.into_iter().collect();
        let mut text = template.to_owned();
        for number in (1..=parts.len()).rev() {
            text = text.replace(&format!("${number}"), "?");
        }
        Expr::cust_with_exprs(text, parts)
    }

    fn comparable(column: Expr, field_type: FieldType) -> Expr {
        match field_type {
            FieldType::Decimal => Self::template("$1 COLLATE resourceful_decimal", [column]),
            _ => column,
        }
    }

    fn is_in(column: Expr, list: Expr, _: FieldType) -> Expr {
        Self::template("$1 IN (SELECT value FROM json_each($2))", [column, list])
    }

    fn contains(column: Expr, part: Expr) -> Expr {
        Self::template("instr($1, $2) > 0", [column, part])
    }

    fn starts_with(column: Expr, part: Expr) -> Expr {
        Self::template("substr($1, 1, length($2)) = $3", [column, part.clone(), part])
    }

    fn ends_with(column: Expr, part: Expr) -> Expr {
        // The start of the suffix is computed from both lengths: counted from the end, an empty part would take the whole
        // text.
        Self::template(
            "(length($1) >= length($2) AND substr($3, length($4) - length($5) + 1) = $6)",
            [column.clone(), part.clone(), column.clone(), column, part.clone(), part],
        )
    }

    fn matches_search(column: Expr, pattern: Expr, _: Expr) -> Expr {
        Self::template("$1 GLOB $2", [column, pattern])
    }

    fn overlaps(column: Expr, elements: Expr) -> Expr {
        // See `exists`: in a join, a row would be returned once for each duplicate element.
        Self::template(
            "(EXISTS (SELECT 1 FROM json_each($1) AS one WHERE one.value IN (SELECT value FROM json_each($2)))) \
             IS TRUE",
            [column, elements],
        )
    }

    fn exists(related: SelectStatement) -> Expr {
        // SQLite would turn a bare EXISTS term into a join, and several of them into a product of tables; inside another
        // expression it stays a subquery for each row.
        Self::template("($1) IS TRUE", [Expr::exists(related)])
    }

    fn is_not_distinct(column: Expr, other: Expr) -> Expr {
        Self::template("$1 IS $2", [column, other])
    }

    fn tuple(columns: Vec<(Expr, FieldType)>) -> Expr {
        let expressions = columns.into_iter().map(|(column, field_type)| match field_type {
            // JSON functions write doubles with 15 digits; quote() writes enough digits to tell any two apart.
            FieldType::Float | FieldType::Float32 => Self::template("quote($1)", [column]),
            // JSON functions refuse blobs.
            _ => Self::template("iif(typeof($1) = 'blob', NULL, $2)", [column.clone(), column]),
        });
        let expressions: Vec<_> = expressions.collect();
        let placeholders = vec!["?"; expressions.len()].join(", ");
        Expr::cust_with_exprs(format!("json_array({placeholders})"), expressions)
    }

    fn aggregate(tuple: Expr) -> Expr {
        Self::template("json_group_array($1)", [tuple])
    }

    fn estimate(_: &Schema) -> Option<String> {
        None
    }

    fn column_type(field_type: FieldType) -> String {
        match field_type {
            FieldType::Boolean | FieldType::Integer => "INTEGER",
            FieldType::Float | FieldType::Float32 => "REAL",
            _ => "TEXT",
        }
        .to_owned()
    }

    fn identity_column() -> (&'static str, &'static str) {
        // With AUTOINCREMENT an id is never reused, not even after a delete.
        ("INTEGER", "PRIMARY KEY AUTOINCREMENT")
    }

    fn creation_lock(_: &Schema) -> Option<String> {
        None
    }

    fn advance_id_sequence(_: &Schema) -> Option<String> {
        None
    }

    fn index_columns(schema: &Schema, index: &Index) -> Vec<usize> {
        let mut columns = index.fields.clone();
        if !index.unique && !columns.contains(&schema.id) {
            columns.push(schema.id);
        }
        columns
    }

    const COLUMNS: &'static str = catalog::COLUMNS;
    const INDEXES: &'static str = catalog::INDEXES;
    const NAME_TAKEN: &'static str = catalog::NAME_TAKEN;
    const CAN_ALTER_COLUMNS: bool = false;

    fn detect_collations<'a>(
        connection: &'a mut SqliteConnection,
        schema: &'a Schema,
        columns: &'a mut [Column],
    ) -> BoxFuture<'a, Result<(), StorageError>> {
        catalog::detect_collations(connection, schema, columns).boxed()
    }

    fn type_mismatch(column: &Column, field_type: FieldType) -> Option<TypeMismatch> {
        catalog::type_mismatch(column, field_type)
    }

    fn column_override(column: &Column, field_type: FieldType) -> ColumnOverride {
        catalog::column_override(column, field_type)
    }

    fn is_writable(connection: &mut SqliteConnection) -> BoxFuture<'_, Result<bool, sqlx::Error>> {
        readiness::is_writable(connection).boxed()
    }

    fn is_read_only(error: &sqlx::Error) -> bool {
        // SQLITE_READONLY.
        error.as_database_error().is_some_and(|database| primary_code(database) == 8)
    }

    fn transient(error: &sqlx::Error) -> Option<Transient> {
        is_busy(error).then_some(Transient::Contended)
    }

    fn rejected_fields<'c>(
        connection: &'c mut SqliteConnection,
        schema: &'c Schema,
        error: &'c sqlx::Error,
        written: &'c [(usize, &'c Value)],
    ) -> BoxFuture<'c, Result<Vec<usize>, sqlx::Error>> {
        violated_fields::rejected_fields(connection, schema, error, written).boxed()
    }

    fn map_error(error: sqlx::Error, schema: &Schema) -> StorageError {
        let mut kind = error_mapping::error_kind(&error);
        let mut fields = Vec::new();
        if let sqlx::Error::Database(database) = &error {
            kind = match primary_code(database.as_ref()) {
                // SQLITE_BUSY, SQLITE_LOCKED.
                5 | 6 => ErrorKind::Contended,
                // SQLITE_INTERRUPT, then SQLITE_READONLY and SQLITE_FULL.
                9 => ErrorKind::TimedOut,
                8 | 13 => ErrorKind::Unavailable,
                // SQLITE_TOOBIG, SQLITE_MISMATCH, and SQLITE_CONSTRAINT of any other kind: an error raised by a trigger, or
                // a type that a strict table refuses.
                18 | 20 => ErrorKind::Rejected,
                19 if kind == ErrorKind::Internal => ErrorKind::Rejected,
                _ => kind,
            };
            if database.message().starts_with("cannot store ") {
                // `cannot store TEXT value in INTEGER column t.c`
                fields = error_mapping::field_names(schema, database.message().rsplit(['.', ' ']).take(1));
            } else if let Some((_, columns)) = database.message().split_once("constraint failed: ") {
                let names = columns.split(", ").filter_map(|column| column.rsplit('.').next());
                fields = error_mapping::field_names(schema, names);
            }
        }
        let refused = if Self::is_read_only(&error) {
            error_mapping::read_only_error(kind)
        } else {
            StorageError::new(kind)
        };
        refused.with_fields(fields).with_context("table", schema.table.clone()).with_source(error)
    }
}
