//! Runs a query as one statement and writes its rows straight into the response.

use resourceful_contract::{Count, ErrorKind, Filter, Position, Query, Rows, StorageError, Total, Value};

use crate::connections::Lease;
use crate::dialect::{Dialect, Unreadable};
use crate::plan::{self, Cost, Included, Plan, Row};
use crate::retry::Retry;
use crate::shape::Shape;
use crate::storage::{Connection, Database, bind};
use crate::unreadable::{self, Origin};
use crate::{failure, include, select};

pub(crate) async fn fetch<D: Dialect>(
    database: &Database<D>,
    query: &Query,
    out: &mut Vec<u8>,
) -> Result<Rows, StorageError> {
    let shape = Shape::of(query);
    let plan = database.plans.find(&shape.bytes, || select::plan::<D>(query, &database.overrides.now()));
    let mut connection = match plan.cost {
        Cost::Light | Cost::Joined => database.reader().await?,
        Cost::Heavy => database.heavy_reader().await?,
    };
    let start = out.len();
    let mut retry = Retry::default();
    loop {
        // A statement that may take long ends with its connection when the future is dropped.
        connection.close_with(D::OUTLIVES_FUTURE && plan.cost != Cost::Light);
        let outcome = if connection.is_pooled() {
            Box::pin(scoped(database, &mut connection, query, (&*plan, &shape), out)).await
        } else {
            answer(database, &mut connection, query, (&*plan, &shape), out).await
        };
        let is_running = matches!(&outcome, Err(error) if error.kind() == ErrorKind::TimedOut);
        if !is_running {
            connection.close_with(false);
        }
        let error = match outcome {
            Ok(rows) => {
                connection.hand_on();
                return Ok(rows);
            }
            Err(error) => error,
        };
        out.truncate(start);
        connection = match retry.after::<D>(&error, connection, true).await? {
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
async fn scoped<D: Dialect>(
    database: &Database<D>,
    connection: &mut Lease<'_, D::Db>,
    query: &Query,
    (plan, shape): (&Plan, &Shape<'_>),
    out: &mut Vec<u8>,
) -> Result<Rows, StorageError> {
    let mut scope = connection.scope().await.map_err(failure::begin::<D>)?;
    let rows = answer(database, &mut scope, query, (plan, shape), out).await;
    scope.end(rows, |error| D::failure(error, &query.schema)).await
}

async fn answer<D: Dialect>(
    database: &Database<D>,
    connection: &mut Connection<D>,
    query: &Query,
    (plan, shape): (&Plan, &Shape<'_>),
    out: &mut Vec<u8>,
) -> Result<Rows, StorageError> {
    let mut rows = planned(database, connection, query, (plan, shape), out).await?;
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
    let plan = database.plans.find(&shape.bytes, || select::plan::<D>(query, &database.overrides.now()));
    planned(database, connection, query, (&*plan, &shape), out).await
}

async fn planned<D: Dialect>(
    database: &Database<D>,
    connection: &mut Connection<D>,
    query: &Query,
    (plan, shape): (&Plan, &Shape<'_>),
    out: &mut Vec<u8>,
) -> Result<Rows, StorageError> {
    let args = bind::<D>(&plan.order, &shape.args).map_err(|error| failure::unbound(&query.schema, error))?;
    let statement = database.query(plan.text.clone(), args);
    let failed = |error| D::failure(error, &query.schema);
    let limit = match plan.cost {
        Cost::Light => None,
        Cost::Joined => Some(database.limits.statement),
        Cost::Heavy => Some(database.limits.heavy),
    };
    let written = if let Some(limit) = limit {
        let rows = D::rows_within(connection, statement, limit).await.map_err(failed)?;
        write::<D>(query, plan, &rows, out)
    } else if plan.single {
        let row = D::row(connection, statement).await.map_err(failed)?;
        write::<D>(query, plan, row.as_slice(), out)
    } else {
        let rows = D::rows(connection, statement).await.map_err(failed)?;
        write::<D>(query, plan, &rows, out)
    };
    written.map_err(|error| failure::corrupt(&plan.schema, error))
}

fn write<D: Dialect>(
    query: &Query,
    plan: &Plan,
    found: &[Row<D>],
    out: &mut Vec<u8>,
) -> Result<Rows, Unreadable> {
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
        each::<D>(query, plan, page.iter().rev(), &mut rows, out)?;
    } else {
        each::<D>(query, plan, page.iter(), &mut rows, out)?;
    }
    if !plan.sort.is_empty() {
        rows.first = first.map(|row| place::<D>(row, plan));
        rows.last = last.map(|row| place::<D>(row, plan));
    }
    if let (Some((column, exact)), Some(row)) = (plan.total, first)
        && let Value::Integer(total) = D::read(row, column, resourceful_contract::FieldType::Integer)?
    {
        rows.total = Some(Total { rows: u64::try_from(total).unwrap_or(0), exact });
    }
    Ok(rows)
}

fn each<'r, D: Dialect>(
    query: &Query,
    plan: &Plan,
    page: impl Iterator<Item = &'r Row<D>>,
    rows: &mut Rows,
    out: &mut Vec<u8>,
) -> Result<(), Unreadable> {
    let marked = query.versions || !query.keys.is_empty();
    for (position, row) in page.enumerate() {
        if position > 0 {
            out.push(b',');
        }
        object::<D>(plan, row, out)?;
        if marked {
            rows.ends.push(out.len());
        }
        if query.versions {
            rows.versions.push(plan::version::<D>(&plan.schema, row, &plan.versions));
        }
        if !query.keys.is_empty() {
            // A value that cannot be decoded is related to no row.
            let key = |(column, field_type): &(usize, _)| D::read(row, *column, *field_type).ok();
            rows.keys.push(plan.keys.iter().map(|one| key(one).unwrap_or(Value::Null)).collect());
        }
    }
    Ok(())
}

fn object<D: Dialect>(plan: &Plan, row: &Row<D>, out: &mut Vec<u8>) -> Result<(), Unreadable> {
    let origin = Origin { schema: &plan.schema, id: plan.id };
    for field in &plan.fields {
        out.extend_from_slice(&field.prefix);
        unreadable::write::<D>(out, row, field, origin);
    }
    for included in &plan.includes {
        match included {
            Included::One { name, marker, fields, target } => {
                out.extend_from_slice(name);
                if !D::is_null(row, *marker)? {
                    plan::object::<D>(out, row, fields, Origin { schema: target, id: Some(*marker) });
                } else {
                    out.extend_from_slice(b"null");
                }
            }
            Included::Many { name, column, fields, target } => {
                out.extend_from_slice(name);
                include::write(out, D::text(row, *column)?, fields, target)?;
            }
        }
    }
    if plan.fields.is_empty() && plan.includes.is_empty() {
        out.push(b'{');
    }
    out.push(b'}');
    Ok(())
}

fn place<D: Dialect>(row: &Row<D>, plan: &Plan) -> Vec<Value> {
    plan.sort.iter().map(|(column, field_type)| unreadable::place::<D>(row, *column, *field_type)).collect()
}

/// A query for the version of the row with this id, if a guard's filter admits it.
pub(crate) fn guarded(
    schema: &std::sync::Arc<resourceful_contract::Schema>,
    id: &Value,
    filter: &Filter,
) -> Query {
    let mut query = Query::one(schema.clone(), id.clone());
    query.filter = query.filter.and(filter.clone());
    query.fields = vec![schema.id];
    query
}
