//! Runs a query as one statement and writes its rows straight into the response.

use resourceful_contract::{Count, ErrorKind, Filter, Position, Query, Rows, StorageError, Total, Value};

use super::error_mapping;
use crate::connections::PooledConnection;
use crate::dialect::{CodecError, Dialect};
use crate::plan;
use crate::plan::{Cost, IncludedRows, Plan, Row};
use crate::retry::Retry;
use crate::statement_shape::Shape;
use crate::storage::{Connection, Database, bind};
use crate::undecodable;
use crate::undecodable::Origin;
use crate::{include, select};

pub(crate) async fn fetch<D: Dialect>(
    database: &Database<D>,
    query: &Query,
    out: &mut Vec<u8>,
) -> Result<Rows, StorageError> {
    let shape = Shape::of(query);
    let plan = database
        .plans
        .get_or_build(&shape.bytes, || select::build_plan::<D>(query, &database.overrides.snapshot()));
    let mut connection = match plan.cost {
        Cost::Light | Cost::Joined => database.reader().await?,
        Cost::Heavy => database.heavy_reader().await?,
    };
    let start = out.len();
    let mut retry = Retry::default();
    loop {
        // A statement that may take long ends with its connection when the future is dropped.
        connection.set_should_close(D::RUNS_AFTER_DROP && plan.cost != Cost::Light);
        let outcome = if connection.needs_scope() {
            Box::pin(fetch_in_scope(database, &mut connection, query, (&*plan, &shape), out)).await
        } else {
            fetch_with_count(database, &mut connection, query, (&*plan, &shape), out).await
        };
        let is_running = matches!(&outcome, Err(error) if error.kind() == ErrorKind::TimedOut);
        if !is_running {
            connection.set_should_close(false);
        }
        let error = match outcome {
            Ok(rows) => {
                connection.release();
                return Ok(rows);
            }
            Err(error) => error,
        };
        out.truncate(start);
        connection = match retry.next_connection::<D>(&error, connection, true).await? {
            Some(connection) => connection,
            // A read has no changes that could conflict with those of other transactions.
            None if error.kind() == ErrorKind::Contended => {
                return Err(StorageError::new(ErrorKind::Unavailable).with_source(error));
            }
            None => return Err(error),
        };
    }
}

/// Runs a query in a scope of its own. A connection without a pooler needs no scope and pays nothing for it.
async fn fetch_in_scope<D: Dialect>(
    database: &Database<D>,
    connection: &mut PooledConnection<'_, D::Db>,
    query: &Query,
    (plan, shape): (&Plan, &Shape<'_>),
    out: &mut Vec<u8>,
) -> Result<Rows, StorageError> {
    let mut scope = connection.scope().await.map_err(error_mapping::begin_error::<D>)?;
    let rows = fetch_with_count(database, &mut scope, query, (plan, shape), out).await;
    scope.end(rows, |error| D::map_error(error, &query.schema)).await
}

async fn fetch_with_count<D: Dialect>(
    database: &Database<D>,
    connection: &mut Connection<D>,
    query: &Query,
    (plan, shape): (&Plan, &Shape<'_>),
    out: &mut Vec<u8>,
) -> Result<Rows, StorageError> {
    let mut rows = execute_plan(database, connection, query, (plan, shape), out).await?;
    // A statement that returns its count as a column returns no count where there is no row.
    if let (None, Some(_)) = (rows.total, query.count) {
        let counted = Query {
            position: Position::Start,
            limit: 1,
            fields: vec![query.schema.id],
            includes: Vec::new(),
            keys: Vec::new(),
            versions: false,
            count: Some(Count::Exact),
            ..query.clone()
        };
        let first = fetch_on(database, connection, &counted, &mut Vec::new()).await?;
        rows.total = Some(first.total.unwrap_or(Total { rows: 0, exact: true }));
    }
    Ok(rows)
}

/// Runs a query on a given connection, without the separate count for an empty page.
pub(crate) async fn fetch_on<D: Dialect>(
    database: &Database<D>,
    connection: &mut Connection<D>,
    query: &Query,
    out: &mut Vec<u8>,
) -> Result<Rows, StorageError> {
    let shape = Shape::of(query);
    let plan = database
        .plans
        .get_or_build(&shape.bytes, || select::build_plan::<D>(query, &database.overrides.snapshot()));
    execute_plan(database, connection, query, (&*plan, &shape), out).await
}

async fn execute_plan<D: Dialect>(
    database: &Database<D>,
    connection: &mut Connection<D>,
    query: &Query,
    (plan, shape): (&Plan, &Shape<'_>),
    out: &mut Vec<u8>,
) -> Result<Rows, StorageError> {
    let args = bind::<D>(&plan.arg_order, &shape.args)
        .map_err(|error| error_mapping::bind_error(&query.schema, error))?;
    let statement = database.query(plan.text.clone(), args);
    let failed = |error| D::map_error(error, &query.schema);
    let limit = match plan.cost {
        Cost::Light => None,
        Cost::Joined => Some(database.limits.statement),
        Cost::Heavy => Some(database.limits.heavy),
    };
    let written = if let Some(limit) = limit {
        let rows = D::rows_within(connection, statement, limit).await.map_err(failed)?;
        write_page::<D>(query, plan, &rows, out)
    } else if plan.is_single_row {
        let row = D::row(connection, statement).await.map_err(failed)?;
        write_page::<D>(query, plan, row.as_slice(), out)
    } else {
        let rows = D::rows(connection, statement).await.map_err(failed)?;
        write_page::<D>(query, plan, &rows, out)
    };
    written.map_err(|error| error_mapping::corrupt_value(&plan.schema, error))
}

fn write_page<D: Dialect>(
    query: &Query,
    plan: &Plan,
    found: &[Row<D>],
    out: &mut Vec<u8>,
) -> Result<Rows, CodecError> {
    let limit = query.limit as usize;
    let page = &found[..found.len().min(limit)];
    let mut rows = Rows::default();
    rows.len = page.len();
    rows.more = found.len() > limit;
    let mut ends = page.iter();
    let (mut first, mut last) = (ends.next(), ends.next_back());
    last = last.or(first);
    if matches!(query.position, Position::Before(_)) {
        // The rows came in reverse order, nearest to the cursor first.
        std::mem::swap(&mut first, &mut last);
        write_rows::<D>(query, plan, page.iter().rev(), &mut rows, out)?;
    } else {
        write_rows::<D>(query, plan, page.iter(), &mut rows, out)?;
    }
    if !plan.sort.is_empty() {
        rows.first = first.map(|row| cursor_values::<D>(row, plan));
        rows.last = last.map(|row| cursor_values::<D>(row, plan));
    }
    if let (Some((column, exact)), Some(row)) = (plan.total, first)
        && let Value::Integer(total) = D::read(row, column, resourceful_contract::FieldType::Integer)?
    {
        rows.total = Some(Total { rows: u64::try_from(total).unwrap_or(0), exact });
    }
    Ok(rows)
}

fn write_rows<'r, D: Dialect>(
    query: &Query,
    plan: &Plan,
    page: impl Iterator<Item = &'r Row<D>>,
    rows: &mut Rows,
    out: &mut Vec<u8>,
) -> Result<(), CodecError> {
    let needs_ends = query.versions || !query.keys.is_empty();
    for (position, row) in page.enumerate() {
        if position > 0 {
            out.push(b',');
        }
        write_row::<D>(plan, row, out)?;
        if needs_ends {
            rows.ends.push(out.len());
        }
        if query.versions {
            rows.versions.push(plan::row_version::<D>(&plan.schema, row, &plan.versions));
        }
        if !query.keys.is_empty() {
            // A value that cannot be decoded is related to no row.
            let key = |(column, field_type): &(usize, _)| D::read(row, *column, *field_type).ok();
            rows.keys.push(plan.keys.iter().map(|one| key(one).unwrap_or(Value::Null)).collect());
        }
    }
    Ok(())
}

fn write_row<D: Dialect>(plan: &Plan, row: &Row<D>, out: &mut Vec<u8>) -> Result<(), CodecError> {
    let origin = Origin { schema: &plan.schema, id: plan.id };
    for field in &plan.fields {
        out.extend_from_slice(&field.prefix);
        undecodable::write_value::<D>(out, row, field, origin);
    }
    for included in &plan.includes {
        match included {
            IncludedRows::One { name, marker, fields, target } => {
                out.extend_from_slice(name);
                if !D::is_null(row, *marker)? {
                    plan::write_object::<D>(out, row, fields, Origin { schema: target, id: Some(*marker) });
                } else {
                    out.extend_from_slice(b"null");
                }
            }
            IncludedRows::Many { name, column, fields, target } => {
                out.extend_from_slice(name);
                include::write_related(out, D::text(row, *column)?, fields, target)?;
            }
        }
    }
    if plan.fields.is_empty() && plan.includes.is_empty() {
        out.push(b'{');
    }
    out.push(b'}');
    Ok(())
}

fn cursor_values<D: Dialect>(row: &Row<D>, plan: &Plan) -> Vec<Value> {
    plan.sort
        .iter()
        .map(|(column, field_type)| undecodable::cursor_value::<D>(row, *column, *field_type))
        .collect()
}

/// A query for the version of the row with this id, if a guard's filter admits it.
pub(crate) fn guarded_query(
    schema: &std::sync::Arc<resourceful_contract::Schema>,
    id: &Value,
    filter: &Filter,
) -> Query {
    let mut query = Query::one(schema.clone(), id.clone());
    query.filter = query.filter.and(filter.clone());
    query.fields = vec![schema.id];
    query
}
