//! Applies change sets atomically, each in one transaction.

use std::sync::Arc;

use resourceful_contract::{
    Change, ChangeSet, Committed, ErrorKind, FieldType, Guard, RowOutcome, Schema, StorageError, Value,
    Version, Write,
};

use super::error_mapping;
use super::violated_fields;
use crate::args;
use crate::args::Arg;
use crate::connections::PooledConnection;
use crate::dialect::Dialect;
use crate::fetch::{fetch_on, guarded_query};
use crate::lock;
use crate::multi_table_insert;
use crate::plan;
use crate::retry::Retry;
use crate::storage::{Arguments, Connection, Database, bind};
use crate::undecodable::Origin;
use crate::write;
use crate::write::generates_id;

pub(crate) async fn commit<D: Dialect>(
    database: &Database<D>,
    changes: ChangeSet,
) -> Result<Committed, StorageError> {
    let is_empty = changes.changes.is_empty() && changes.then.is_none();
    let rows = if is_empty { Vec::new() } else { commit_with_retry(database, &changes).await? };
    if let Some(progress) = &changes.progress {
        progress(rows.len());
    }
    Ok(Committed::new(rows))
}

/// Applies a change set and retries it after transient failures: those that no row caused and that left nothing behind.
async fn commit_with_retry<D: Dialect>(
    database: &Database<D>,
    set: &ChangeSet,
) -> Result<Vec<RowOutcome>, StorageError> {
    let mut connection = database.writer().await?;
    let mut retry = Retry::default();
    let mut locks_rows = true;
    loop {
        let failed = match apply(database, &mut connection, set, locks_rows).await {
            Ok(rows) => {
                connection.release();
                return Ok(rows);
            }
            Err(failed) => failed,
        };
        connection.set_should_close(D::RUNS_AFTER_DROP && failed.error.kind() == ErrorKind::TimedOut);
        if failed.error.kind() == ErrorKind::Rejected {
            return Err(violated_fields::add_rejected_fields::<D>(&mut connection, set, failed.error).await);
        }
        if error_mapping::is_read_only::<D>(&failed.error) {
            connection.discard();
            return Err(failed.error);
        }
        // A role may be allowed to delete but not to lock, and not every view can be locked: the set is then applied without
        // ordered locking.
        if failed.is_lock_error && failed.error.kind() == ErrorKind::Internal {
            locks_rows = false;
            continue;
        }
        // If the connection is lost after statements were sent, it is unknown whether the database executed them.
        connection =
            match retry.next_connection::<D>(&failed.error, connection, !failed.may_have_executed).await? {
                Some(connection) => connection,
                None => return Err(failed.error),
            };
    }
}

/// A failure to apply a change set.
struct CommitError {
    error: StorageError,
    /// Whether any of its statements may have reached the database.
    may_have_executed: bool,
    /// Whether locking the rows in order failed.
    is_lock_error: bool,
}

impl CommitError {
    /// The failure of a set whose transaction could not begin.
    fn not_begun<D: Dialect>(error: sqlx::Error) -> Self {
        Self { error: error_mapping::begin_error::<D>(error), may_have_executed: false, is_lock_error: false }
    }
}

impl From<StorageError> for CommitError {
    fn from(error: StorageError) -> Self {
        Self { error, may_have_executed: true, is_lock_error: false }
    }
}

async fn apply<D: Dialect>(
    database: &Database<D>,
    connection: &mut PooledConnection<'_, D::Db>,
    set: &ChangeSet,
    locks_rows: bool,
) -> Result<Vec<RowOutcome>, CommitError> {
    if let [one] = set.changes.as_slice()
        && set.then.is_none()
        && !set.dry_run
        && is_single_statement(one)
    {
        if connection.needs_scope() {
            return Box::pin(apply_in_scope(database, connection, one)).await;
        }
        let row = apply_single(database, connection, one).await.map_err(|error| error.at_change(0))?;
        return Ok(vec![row]);
    }
    let mode = ApplyMode { is_batched: true, locks_rows };
    match apply_in_transaction(database, connection, set, mode).await {
        // A multi-row statement does not report which row it failed for; single-row statements do.
        Err(failed) if is_row_error(failed.error.kind()) => {
            apply_in_transaction(database, connection, set, ApplyMode { is_batched: false, ..mode }).await
        }
        outcome => outcome,
    }
}

/// Applies one single-statement change in a scope of its own.
async fn apply_in_scope<D: Dialect>(
    database: &Database<D>,
    connection: &mut PooledConnection<'_, D::Db>,
    change: &Change,
) -> Result<Vec<RowOutcome>, CommitError> {
    let mut scope = connection.scope().await.map_err(CommitError::not_begun::<D>)?;
    let row = apply_single(database, &mut scope, change).await.map_err(|error| error.at_change(0));
    let row = scope.end(row, |error| D::map_error(error, &change.schema)).await?;
    Ok(vec![row])
}

/// Whether a failure was caused by a single row.
fn is_row_error(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::UniqueViolation
            | ErrorKind::ExclusionViolation
            | ErrorKind::ForeignKeyViolation
            | ErrorKind::Rejected
    )
}

/// Whether a change is a single statement, which the database runs in an implicit transaction.
fn is_single_statement(change: &Change) -> bool {
    match &change.write {
        Write::Insert { values } => !has_explicit_id(&change.schema, values),
        Write::Update { guard, .. } | Write::Delete { guard, .. } => {
            expected_digest(&change.schema, guard).is_none()
        }
        Write::UpdateAll { .. } | Write::DeleteAll { .. } => true,
    }
}

/// Whether an inserted row carries an id although the table's ids are generated by the database.
fn has_explicit_id(schema: &Schema, values: &[Value]) -> bool {
    schema.id_source == resourceful_contract::IdSource::Storage && !generates_id(schema, values)
}

/// How a transaction applies its changes.
#[derive(Clone, Copy)]
struct ApplyMode {
    /// Whether one statement may carry several changes.
    is_batched: bool,
    /// Whether all rows are locked in one order before the first change.
    locks_rows: bool,
}

async fn apply_in_transaction<D: Dialect>(
    database: &Database<D>,
    connection: &mut PooledConnection<'_, D::Db>,
    set: &ChangeSet,
    mode: ApplyMode,
) -> Result<Vec<RowOutcome>, CommitError> {
    // A transaction that is dropped before its commit is rolled back.
    let mut transaction = connection.begin().await.map_err(CommitError::not_begun::<D>)?;
    if mode.locks_rows {
        let locked = lock::lock_rows(database, &mut transaction, &set.changes).await;
        locked.map_err(|error| CommitError { error, may_have_executed: true, is_lock_error: true })?;
    }
    let mut rows: Vec<RowOutcome> = Vec::with_capacity(set.changes.len());
    let progress = set.progress.as_deref();
    apply_each(database, &mut transaction, &set.changes, mode.is_batched, progress, &mut rows).await?;
    if let Some(then) = &set.then {
        let follow_ups = then(&rows);
        apply_each(database, &mut transaction, &follow_ups, mode.is_batched, None, &mut rows).await?;
    }
    if set.dry_run {
        transaction.rollback().await.map_err(error_mapping::connection_error)?;
    } else {
        let ended = transaction.commit().await;
        ended.map_err(|error| match set.changes.first() {
            Some(change) => D::map_error(error, &change.schema),
            None => error_mapping::connection_error(error),
        })?;
    }
    Ok(rows)
}

/// Applies changes in a transaction, and appends the outcome of each.
async fn apply_each<D: Dialect>(
    database: &Database<D>,
    transaction: &mut Connection<D>,
    all: &[Change],
    is_batched: bool,
    progress: Option<&(dyn Fn(usize) + Send + Sync)>,
    rows: &mut Vec<RowOutcome>,
) -> Result<(), StorageError> {
    let before = rows.len();
    let mut resume: Vec<&Arc<Schema>> = Vec::new();
    while rows.len() - before < all.len() {
        let at = rows.len() - before;
        let group = if is_batched { batchable_prefix::<D>(&all[at..]) } else { &all[at..=at] };
        let joined = if is_batched && D::INSERT_IN_WITH {
            multi_table_insert::insertable_prefix(&all[at..])
        } else {
            &[]
        };
        if joined.len() > group.len() {
            let many = multi_table_insert::insert_together(database, transaction, joined).await;
            rows.extend(many.map_err(|error| error.at_change(before + at))?);
        } else if group.len() > 1 {
            let many = insert_many(database, transaction, group).await;
            rows.extend(many.map_err(|error| error.at_change(before + at))?);
            if let Some(progress) = progress {
                progress(rows.len());
            }
        } else {
            let row = apply_guarded(database, transaction, &all[at]).await;
            rows.push(row.map_err(|error| error.at_change(before + at))?);
        }
        if let Write::Insert { values } = &all[at].write
            && has_explicit_id(&all[at].schema, values)
            && !resume.iter().any(|schema| Arc::ptr_eq(schema, &all[at].schema))
        {
            resume.push(&all[at].schema);
        }
    }
    for schema in resume {
        if let Some(statement) = D::advance_id_sequence(schema) {
            D::rows(transaction, database.query(statement, Arguments::<D>::default()))
                .await
                .map_err(|error| D::map_error(error, schema))?;
        }
    }
    Ok(())
}

/// The longest prefix of changes that one INSERT can carry: rows of one table that return the same fields.
fn batchable_prefix<D: Dialect>(changes: &[Change]) -> &[Change] {
    let first = &changes[0];
    let mints_first = matches!(&first.write, Write::Insert { values } if generates_id(&first.schema, values));
    let fits = |change: &Change| match &change.write {
        Write::Insert { values } => {
            Arc::ptr_eq(&change.schema, &first.schema)
                && generates_id(&change.schema, values) == mints_first
                && change.answer == first.answer
        }
        _ => false,
    };
    let most = D::max_insert_rows(first.schema.fields.len());
    let run = changes.iter().take(most).take_while(|change| fits(change)).count();
    // Statement texts exist for full groups and for powers of two only, not for every length in between.
    if run == most || run < 2 { &changes[..run.max(1)] } else { &changes[..1 << run.ilog2()] }
}

async fn insert_many<D: Dialect>(
    database: &Database<D>,
    connection: &mut Connection<D>,
    changes: &[Change],
) -> Result<Vec<RowOutcome>, StorageError> {
    let schema = &changes[0].schema;
    let shape = write::shape(changes);
    let statement = database
        .statements
        .get_or_build(&shape.bytes, || write::build_statement::<D>(changes, &database.overrides.snapshot()));
    let args = bind::<D>(&statement.arg_order, &shape.args)
        .map_err(|error| error_mapping::bind_error(schema, error))?;
    if !write::returns_rows(changes) {
        let affected = D::execute(connection, database.query(statement.text.clone(), args)).await;
        let affected = affected.map_err(|error| D::map_error(error, schema))?;
        return match usize::try_from(affected) {
            Ok(affected) if affected < changes.len() => Err(violated_fields::skipped_row_error()),
            _ => Ok(changes.iter().map(insert_outcome).collect()),
        };
    }
    let rows = D::rows(connection, database.query(statement.text.clone(), args)).await;
    let rows = rows.map_err(|error| D::map_error(error, schema))?;
    let written: Result<Vec<_>, _> =
        rows.iter().map(|row| decode_outcome::<D>(schema, row, &statement)).collect();
    sort_outcomes(changes, written.map_err(|error| error_mapping::corrupt_value(schema, error))?)
}

/// Sorts the returned rows of one INSERT into the order of its changes: a database may return them in any order.
fn sort_outcomes(changes: &[Change], mut rows: Vec<RowOutcome>) -> Result<Vec<RowOutcome>, StorageError> {
    let given = |change: &Change| match &change.write {
        Write::Insert { values } => values[change.schema.id].clone(),
        _ => Value::Null,
    };
    if rows.len() < changes.len() {
        return Err(violated_fields::skipped_row_error());
    }
    if changes.iter().zip(&rows).all(|(change, row)| given(change) == row.id) {
        return Ok(rows);
    }
    rows.sort_by(|one, other| one.id.compare(&other.id));
    // Ids generated by the database ascend in the order of the inserted rows.
    if given(&changes[0]).is_null() {
        return Ok(rows);
    }
    let place = |change: &Change| {
        let place = rows.binary_search_by(|row| row.id.compare(&given(change))).ok()?;
        Some(rows[place].clone())
    };
    let placed: Option<Vec<_>> = changes.iter().map(place).collect();
    placed.ok_or_else(|| StorageError::new(ErrorKind::Internal).with_context("insert", "answered other rows"))
}

pub(crate) fn insert_outcome(change: &Change) -> RowOutcome {
    let Write::Insert { values } = &change.write else { return RowOutcome::all(1) };
    let id = values[change.schema.id].clone();
    let version = change.schema.first_version(values).map(Version::Counter);
    RowOutcome { id, version, ..RowOutcome::all(1) }
}

/// Applies one change in a transaction; compares the content digest first where the row has no version counter.
async fn apply_guarded<D: Dialect>(
    database: &Database<D>,
    connection: &mut Connection<D>,
    change: &Change,
) -> Result<RowOutcome, StorageError> {
    if let Write::Update { id, guard, .. } | Write::Delete { id, guard } = &change.write
        && let Some(expected) = expected_digest(&change.schema, guard)
    {
        lock::lock_row(database, connection, &change.schema, id).await?;
        let query = guarded_query(&change.schema, id, &guard.filter);
        let rows = fetch_on(database, connection, &query, &mut Vec::new()).await?;
        match rows.versions.first() {
            None => return Err(StorageError::new(ErrorKind::NotFound)),
            Some(found) if *found != expected => {
                return Err(StorageError::new(ErrorKind::VersionMismatch));
            }
            Some(_) => {}
        }
    }
    apply_single(database, connection, change).await
}

/// The digest version that a guard expects, for rows without a version counter.
fn expected_digest(schema: &Schema, guard: &Guard) -> Option<Version> {
    guard.version.filter(|_| schema.version.is_none())
}

async fn apply_single<D: Dialect>(
    database: &Database<D>,
    connection: &mut Connection<D>,
    change: &Change,
) -> Result<RowOutcome, StorageError> {
    let changes = std::slice::from_ref(change);
    let schema = &change.schema;
    let shape = write::shape(changes);
    let statement = database
        .statements
        .get_or_build(&shape.bytes, || write::build_statement::<D>(changes, &database.overrides.snapshot()));
    let args = bind::<D>(&statement.arg_order, &shape.args)
        .map_err(|error| error_mapping::bind_error(schema, error))?;
    if !write::returns_rows(changes) {
        let affected = D::execute(connection, database.query(statement.text.clone(), args)).await;
        return match (affected.map_err(|error| D::map_error(error, schema))?, &change.write) {
            (0, Write::Delete { id, guard }) => {
                Err(guard_failure(database, connection, schema, id, guard).await?)
            }
            (_, Write::Delete { id, .. }) => Ok(RowOutcome { id: id.clone(), ..RowOutcome::all(1) }),
            (rows, _) => Ok(RowOutcome::all(rows)),
        };
    }
    let rows = match D::rows(connection, database.query(statement.text.clone(), args)).await {
        Ok(rows) => rows,
        Err(error) => {
            return Err(
                add_violated_references(database, D::map_error(error, schema), connection, change).await
            );
        }
    };
    match (rows.first(), &change.write) {
        (Some(row), _) => decode_outcome::<D>(schema, row, &statement)
            .map_err(|error| error_mapping::corrupt_value(schema, error)),
        (None, Write::Update { id, guard, .. }) => {
            Err(guard_failure(database, connection, schema, id, guard).await?)
        }
        (None, _) => Err(violated_fields::skipped_row_error()),
    }
}

fn decode_outcome<D: Dialect>(
    schema: &Schema,
    row: &plan::Row<D>,
    statement: &write::Statement,
) -> Result<RowOutcome, crate::dialect::CodecError> {
    let mut json = Vec::new();
    if !statement.fields.is_empty() {
        json.reserve(512);
        plan::write_object::<D>(&mut json, row, &statement.fields, Origin { schema, id: Some(0) });
    }
    Ok(RowOutcome {
        id: D::read(row, 0, schema.id_field().field_type)?,
        version: Some(plan::row_version::<D>(schema, row, &statement.versions)),
        json,
        rows: 1,
    })
}

/// The reason why a guarded change matched no row: no row that the caller may change exists, the version differs, or the
/// database skipped the change.
async fn guard_failure<D: Dialect>(
    database: &Database<D>,
    connection: &mut Connection<D>,
    schema: &Arc<Schema>,
    id: &Value,
    guard: &Guard,
) -> Result<StorageError, StorageError> {
    let query = guarded_query(schema, id, &guard.filter);
    let rows = fetch_on(database, connection, &query, &mut Vec::new()).await?;
    let Some(found) = rows.versions.first() else { return Ok(StorageError::new(ErrorKind::NotFound)) };
    Ok(match guard.version {
        Some(expected) if expected != *found => StorageError::new(ErrorKind::VersionMismatch),
        _ => violated_fields::skipped_row_error(),
    })
}

/// Adds the violated references to an error, where the database does not name them itself.
async fn add_violated_references<D: Dialect>(
    database: &Database<D>,
    error: StorageError,
    connection: &mut Connection<D>,
    change: &Change,
) -> StorageError {
    if error.kind() != ErrorKind::ForeignKeyViolation || !error.fields().is_empty() || D::FOR_UPDATE {
        return error;
    }
    let schema = &change.schema;
    let mut fields = Vec::new();
    for reference in &schema.references {
        let value = match &change.write {
            Write::Insert { values } => values.get(reference.field),
            Write::Update { set, .. } => {
                set.iter().find(|(field, _)| *field == reference.field).map(|(_, value)| value)
            }
            _ => None,
        };
        let Some(value) = value.filter(|value| !value.is_null()) else {
            continue;
        };
        let field_type: FieldType = write::reference_type(schema, reference);
        let (statement, values) = write::reference_lookup::<D>(reference, &database.overrides.snapshot());
        let Ok(args) = bind::<D>(&args::argument_order(&values), &[Arg::One(field_type, value)]) else {
            continue;
        };
        let found = D::rows(connection, database.query(statement, args)).await;
        if found.is_ok_and(|rows| rows.is_empty()) {
            fields.push(schema.fields[reference.field].name.clone());
        }
    }
    error.with_fields(fields)
}
