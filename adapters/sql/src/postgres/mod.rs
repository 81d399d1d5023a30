//! The PostgreSQL dialect.

mod catalog;
mod connect_error;
mod direct_url;
mod notifications;
mod open;
mod pooler;
mod search_pattern;
mod settings;
mod url;
mod value;
mod violated_fields;

use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use resourceful_contract::{
    Capabilities, ErrorKind, FieldType, IdSource, Index, ScalarType, Schema, StorageError, Value,
};
use sea_query::{Expr, PostgresQueryBuilder};
use sqlx::postgres::{PgArguments, PgConnectOptions, PgConnection, PgDatabaseError, PgRow};
use sqlx::{Executor as _, Postgres, Row as _, SqlStr, ValueRef as _};

use super::error_mapping;
use crate::args::Arg;
use crate::catalog::Column;
use crate::column_overrides::ColumnOverride;
use crate::dialect::{CodecError, Dialect, TypeMismatch};
use crate::error_mapping::{TimedOut, Transient};
use crate::storage::SqlQuery;
use crate::violated_fields::identifiers;

#[derive(Debug)]
pub(crate) struct PostgresDialect;

pub(crate) use open::open;

/// A table's name as a string literal for `to_regclass`.
fn regclass_literal(schema: &Schema) -> String {
    let quoted: Vec<_> =
        schema.table.splitn(2, '.').map(|part| format!("\"{}\"", part.replace('"', "\"\""))).collect();
    format!("'{}'", quoted.join(".").replace('\'', "''"))
}

impl Dialect for PostgresDialect {
    type Db = Postgres;
    type Builder = PostgresQueryBuilder;

    const NAME: &'static str = "postgres";
    const DIALECT: resourceful_contract::SqlDialect = resourceful_contract::SqlDialect::Postgres;
    const BEGIN: &'static str = "BEGIN";
    const FOR_UPDATE: bool = true;
    const EXPLICIT_NULLS: bool = false;
    const RUNS_AFTER_DROP: bool = true;
    const INSERT_IN_WITH: bool = true;

    fn max_insert_rows(columns: usize) -> usize {
        // The protocol counts parameters in 16 bits.
        (65_535 / columns.max(1)).clamp(1, 100)
    }

    fn capabilities() -> Capabilities {
        let mut capabilities = Capabilities::core();
        capabilities.durable = true;
        capabilities.relations = true;
        capabilities.foreign_keys = true;
        capabilities.estimates = true;
        capabilities
    }

    fn notify_statement() -> Option<&'static str> {
        Some(notifications::NOTIFY)
    }

    fn listen<'a>(
        options: &'a PgConnectOptions,
        timeout: Duration,
        channel: &'a str,
    ) -> BoxFuture<'a, Result<Option<Box<dyn resourceful_contract::NotificationStream>>, sqlx::Error>> {
        Box::pin(notifications::listen(options, timeout, channel))
    }

    fn rows<'c>(
        connection: &'c mut PgConnection,
        query: SqlQuery<'c, Self>,
    ) -> BoxFuture<'c, Result<Vec<PgRow>, sqlx::Error>> {
        connection.fetch_all(query).boxed()
    }

    fn row<'c>(
        connection: &'c mut PgConnection,
        query: SqlQuery<'c, Self>,
    ) -> BoxFuture<'c, Result<Option<PgRow>, sqlx::Error>> {
        // Fetches all rows: after fetching one, the end of the response would be left for the connection's next user to
        // read.
        let rows = connection.fetch_all(query);
        rows.map(|rows| rows.map(|rows| rows.into_iter().next())).boxed()
    }

    fn rows_within<'c>(
        connection: &'c mut PgConnection,
        query: SqlQuery<'c, Self>,
        limit: Duration,
    ) -> BoxFuture<'c, Result<Vec<PgRow>, sqlx::Error>> {
        let rows = tokio::time::timeout(limit, Self::rows(connection, query));
        rows.map(|rows| rows.unwrap_or_else(|_| Err(sqlx::Error::AnyDriverError(Box::new(TimedOut))))).boxed()
    }

    fn execute<'c>(
        connection: &'c mut PgConnection,
        query: SqlQuery<'c, Self>,
    ) -> BoxFuture<'c, Result<u64, sqlx::Error>> {
        let done = connection.execute(query);
        done.map(|done| done.map(|done| done.rows_affected())).boxed()
    }

    fn execute_script<'c>(
        connection: &'c mut PgConnection,
        text: SqlStr,
    ) -> BoxFuture<'c, Result<(), sqlx::Error>> {
        connection.execute(sqlx::raw_sql(text)).map(|done| done.map(drop)).boxed()
    }

    fn lift_timeout_statement() -> Option<&'static str> {
        Some("SET LOCAL statement_timeout = 0")
    }

    fn bind(args: &mut PgArguments, arg: &Arg<'_>) -> Result<(), CodecError> {
        value::bind(args, arg)
    }

    fn write(out: &mut Vec<u8>, row: &PgRow, column: usize, field_type: FieldType) -> Result<(), CodecError> {
        value::write(out, row, column, field_type)
    }

    fn read(row: &PgRow, column: usize, field_type: FieldType) -> Result<Value, CodecError> {
        value::read(row, column, field_type)
    }

    fn opaque(row: &PgRow, column: usize) -> Result<Value, CodecError> {
        value::opaque(row, column)
    }

    fn is_null(row: &PgRow, column: usize) -> Result<bool, CodecError> {
        Ok(row.try_get_raw(column)?.is_null())
    }

    fn text(row: &PgRow, column: usize) -> Result<Option<&str>, CodecError> {
        value::text(row, column)
    }

    fn template(template: &str, parts: impl IntoIterator<Item = Expr>) -> Expr {
        Expr::cust_with_exprs(template.to_owned(), parts)
    }

    fn comparable(column: Expr, _: FieldType) -> Expr {
        column
    }

    fn is_in(column: Expr, list: Expr, _: FieldType) -> Expr {
        Self::template("$1 = ANY($2)", [column, list])
    }

    fn contains(column: Expr, part: Expr) -> Expr {
        Self::template("strpos($1, $2) > 0", [column, part])
    }

    fn starts_with(column: Expr, part: Expr) -> Expr {
        Self::template("starts_with($1, $2)", [column, part])
    }

    fn ends_with(column: Expr, part: Expr) -> Expr {
        Self::template("right($1, length($2)) = $3", [column, part.clone(), part])
    }

    fn matches_search(column: Expr, pattern: Expr, ascii_term: Expr) -> Expr {
        // As text and by bytes: `citext` would fold by the database's locale, and a collation that treats different texts as
        // equal is not supported. In ASCII, which most text is, the plain search takes a third of the time.
        Self::template(
            "CASE WHEN octet_length($1::text) = length($2::text) \
             THEN strpos(lower($3::text COLLATE \"C\"), $4) > 0 ELSE $5::text COLLATE \"C\" ~ $6 END",
            [column.clone(), column.clone(), column.clone(), ascii_term, column, pattern],
        )
    }

    fn overlaps(column: Expr, elements: Expr) -> Expr {
        Self::template("$1 && $2", [column, elements])
    }

    fn is_not_distinct(column: Expr, other: Expr) -> Expr {
        Self::template("$1 IS NOT DISTINCT FROM $2", [column, other])
    }

    fn tuple(columns: Vec<(Expr, FieldType)>) -> Expr {
        let expressions = columns.into_iter().map(|(column, field_type)| match field_type {
            FieldType::Decimal | FieldType::Json => Self::template("$1::text", [column]),
            FieldType::Float | FieldType::Float32 => Self::template("$1::float8::text", [column]),
            FieldType::DateTime => Self::template(
                "to_char($1 AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"AD')",
                [column],
            ),
            _ => column,
        });
        let expressions: Vec<_> = expressions.collect();
        let placeholders: Vec<_> = (1..=expressions.len()).map(|number| format!("${number}")).collect();
        Self::template(&format!("json_build_array({})", placeholders.join(", ")), expressions)
    }

    fn aggregate(tuple: Expr) -> Expr {
        Self::template("json_agg($1)::text", [tuple])
    }

    fn estimate(schema: &Schema) -> Option<String> {
        let name = regclass_literal(schema);
        let table = name.trim_matches('\'').replace("''", "'");
        // A table that was never analyzed has no estimate yet, so its rows are counted.
        Some(format!(
            "(SELECT CASE WHEN reltuples < 0 THEN (SELECT count(*) FROM {table}) ELSE reltuples::bigint END \
             FROM pg_class WHERE oid = to_regclass({name}))"
        ))
    }

    fn column_type(field_type: FieldType) -> String {
        match field_type {
            FieldType::Boolean => "boolean".to_owned(),
            FieldType::Integer => "bigint".to_owned(),
            FieldType::Float => "double precision".to_owned(),
            FieldType::Float32 => "real".to_owned(),
            // Arrays can be compared only with arrays of the same type.
            FieldType::Array(ScalarType::Float32) => "double precision[]".to_owned(),
            FieldType::Decimal => "numeric".to_owned(),
            // By bytes, as on every other storage, whatever the database's own collation.
            FieldType::Text => "text COLLATE \"C\"".to_owned(),
            FieldType::Uuid => "uuid".to_owned(),
            FieldType::DateTime => "timestamptz".to_owned(),
            FieldType::Date => "date".to_owned(),
            FieldType::Array(ScalarType::Text) => "text[]".to_owned(),
            FieldType::Array(element) => format!("{}[]", Self::column_type(element.into())),
            _ => "jsonb".to_owned(),
        }
    }

    fn identity_column() -> (&'static str, &'static str) {
        ("bigint", "GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY")
    }

    fn creation_lock(schema: &Schema) -> Option<String> {
        Some(format!(
            "SELECT 1 FROM pg_advisory_xact_lock(hashtextextended({}, 0))",
            regclass_literal(schema)
        ))
    }

    fn advance_id_sequence(schema: &Schema) -> Option<String> {
        if schema.id_source != IdSource::Storage {
            return None;
        }
        let (table, column) = (regclass_literal(schema), schema.id_field().column.replace('\'', "''"));
        let sequence = format!("pg_get_serial_sequence({table}, '{column}')");
        let quoted = schema.id_field().column.replace('"', "\"\"");
        let from = table.trim_matches('\'').replace("''", "'");
        Some(format!(
            "SELECT setval({sequence}, greatest(nextval({sequence}), (SELECT max(\"{quoted}\") FROM {from})))"
        ))
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
    const OVERRIDING_CLAUSE: &'static str = " OVERRIDING SYSTEM VALUE";
    const MAX_NAME_BYTES: Option<usize> = Some(63);
    const CAN_ALTER_COLUMNS: bool = true;

    fn type_mismatch(column: &Column, field_type: FieldType) -> Option<TypeMismatch> {
        catalog::type_mismatch(column, field_type)
    }

    fn column_override(column: &Column, field_type: FieldType) -> ColumnOverride {
        catalog::column_override(column, field_type)
    }

    fn is_writable(connection: &mut PgConnection) -> BoxFuture<'_, Result<bool, sqlx::Error>> {
        // Also `on` if the server is a standby, or if `default_transaction_read_only` is set.
        let setting = connection.fetch_one(sqlx::raw_sql("SHOW transaction_read_only"));
        setting.map(|row| row?.try_get::<&str, _>(0).map(|read_only| read_only == "off")).boxed()
    }

    fn is_read_only(error: &sqlx::Error) -> bool {
        error
            .as_database_error()
            .and_then(sqlx::error::DatabaseError::code)
            .is_some_and(|code| code == READ_ONLY)
    }

    fn transient(error: &sqlx::Error) -> Option<Transient> {
        let Some(state) = error.as_database_error().and_then(sqlx::error::DatabaseError::code) else {
            return matches!(error, sqlx::Error::Io(_)).then_some(Transient::Disconnected);
        };
        match &*state {
            // The result type of a cached plan has changed; a prepared statement does not exist.
            "0A000" | "26000" => Some(Transient::StaleStatement),
            // The backend was terminated by an administrator, or because another one crashed.
            "57P01" | "57P02" => Some(Transient::Disconnected),
            // Serialization failure, deadlock, lock not available.
            "40001" | "40P01" | "55P03" => Some(Transient::Contended),
            state if state.starts_with("08") => Some(Transient::Disconnected),
            _ => None,
        }
    }

    fn rejected_fields<'c>(
        connection: &'c mut PgConnection,
        schema: &'c Schema,
        error: &'c sqlx::Error,
        written: &'c [(usize, &'c Value)],
    ) -> BoxFuture<'c, Result<Vec<usize>, sqlx::Error>> {
        violated_fields::rejected_fields(connection, schema, error, written).boxed()
    }

    fn map_error(error: sqlx::Error, schema: &Schema) -> StorageError {
        let mut kind = error_mapping::error_kind(&error);
        let mut fields = Vec::new();
        if let sqlx::Error::Database(database) = &error
            && let Some(detail) = database.try_downcast_ref::<PgDatabaseError>()
        {
            kind = kind_by_sqlstate(detail.code(), kind).unwrap_or(kind);
            let own = detail.table().is_none_or(|table| schema.table.rsplit('.').next() == Some(table));
            if let Some(column) = detail.column() {
                fields = error_mapping::field_names(schema, std::iter::once(column));
            } else if own && let Some(columns) = detail.detail().and_then(key_columns) {
                let names = columns.split(", ").map(|column| column.trim_matches('"'));
                fields = error_mapping::field_names(schema, names);
                if fields.is_empty() {
                    // An index on an expression, such as `lower(email)`.
                    fields =
                        error_mapping::field_names(schema, identifiers(columns).iter().map(String::as_str));
                }
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

/// The SQLSTATE of a write in a read-only transaction, as every transaction on a standby is.
const READ_ONLY: &str = "25006";

/// The error kind that follows from the class of an SQLSTATE (PostgreSQL's Appendix A).
fn kind_by_sqlstate(state: &str, kind: ErrorKind) -> Option<ErrorKind> {
    match state {
        // Serialization failure, deadlock, lock not available.
        "40001" | "40P01" | "55P03" => Some(ErrorKind::Contended),
        // Query canceled by its statement timeout.
        "57014" => Some(ErrorKind::TimedOut),
        // Out of memory, connections or disk; shutting down; connection lost.
        _ if ["53", "57", "08"].iter().any(|class| state.starts_with(class)) => Some(ErrorKind::Unavailable),
        READ_ONLY => Some(ErrorKind::Unavailable),
        "23P01" => Some(ErrorKind::ExclusionViolation),
        // RESTRICT, from version 18 on.
        "23001" => Some(ErrorKind::ForeignKeyViolation),
        // A value that an index of its column cannot hold.
        "54000" => Some(ErrorKind::Rejected),
        // A value that its column cannot hold; any other constraint; a row that its view would not show (WITH CHECK OPTION);
        // an exception raised by a trigger, also with a custom SQLSTATE.
        _ if ["22", "23", "44", "P0"].iter().any(|class| state.starts_with(class))
            || is_custom_sqlstate(state) =>
        {
            Some(kind).filter(|kind| *kind != ErrorKind::Internal).or(Some(ErrorKind::Rejected))
        }
        _ => None,
    }
}

/// Whether an SQLSTATE is of a class that the SQL standard leaves to implementations and that PostgreSQL does not use
/// itself.
fn is_custom_sqlstate(state: &str) -> bool {
    let is_free = state.starts_with(|first: char| matches!(first, '6'..='9' | 'I'..='Z'));
    is_free && !["72", "XX"].iter().any(|class| state.starts_with(class))
}

/// The columns in `Key (a, b)=(…) already exists.`, whatever the language of the message.
fn key_columns(detail: &str) -> Option<&str> {
    let (_, rest) = detail.split_once('(')?;
    rest.split_once(")=(").map(|(columns, _)| columns)
}
