//! Applies change sets atomically, each in one transaction.

use std::sync::Arc;

use resourceful_contract::{
    Change, ChangeSet, Committed, ErrorKind, FieldType, Guard, RowOutcome, Schema, StorageError, Value,
    Version, Write,
};

use crate::args::{self, Arg};
use crate::connections::Lease;
use crate::dialect::Dialect;
use crate::failure;
use crate::fetch::{fetch_on, guarded};
use crate::join;
use crate::lock;
use crate::plan;
use crate::refusal;
use crate::retry::Retry;
use crate::storage::{Arguments, Connection, Database, bind};
use crate::unreadable::Origin;
use crate::write::{self, mints};

pub(crate) async fn commit<D: Dialect>(
    database: &Database<D>,
    changes: ChangeSet,
) -> Result<Committed, StorageError> {
    let is_empty = changes.changes.is_empty() && changes.then.is_none();
    let rows = if is_empty { Vec::new() } else { retried(database, &changes).await? };
    if let Some(progress) = &changes.progress {
        progress(rows.len());
    }
    Ok(Committed::new(rows))
}

/// Applies a change set and retries it after transient failures: those that no row caused and that left nothing behind.
async fn retried<D: Dialect>(
    database: &Database<D>,
    set: &ChangeSet,
) -> Result<Vec<RowOutcome>, StorageError> {
    let mut connection = database.writer().await?;
    let mut retry = Retry::default();
    let mut has_locks = true;
    loop {
        let failed = match applied(database, &mut connection, set, has_locks).await {
            Ok(rows) => {
                connection.hand_on();
                return Ok(rows);
            }
            Err(failed) => failed,
        };
        connection.close_with(D::OUTLIVES_FUTURE && failed.error.kind() == ErrorKind::TimedOut);
        if failed.error.kind() == ErrorKind::Rejected {
            return Err(refusal::located::<D>(&mut connection, set, failed.error).await);
        }
        if failure::is_read_only::<D>(&failed.error) {
            connection.discard();
            return Err(failed.error);
        }
        // A role may be allowed to delete but not to lock, and not every view can be locked: the set is then applied without
        // ordered locking.
        if failed.is_of_locks && failed.error.kind() == ErrorKind::Internal {
            has_locks = false;
            continue;
        }
        // If the connection is lost after statements were sent, it is unknown whether the database executed them.
        connection = match retry.after::<D>(&failed.error, connection, !failed.has_begun).await? {
            Some(connection) => connection,
            None => return Err(failed.error),
        };
    }
}

/// A failure to apply a change set.
struct Failed {
    error: StorageError,
    /// Whether any of its statements may have reached the database.
    has_begun: bool,
    /// Whether locking the rows in order failed.
    is_of_locks: bool,
}

impl Failed {
    /// The failure of a set whose transaction could not begin.
    fn unbegun<D: Dialect>(error: sqlx::Error) -> Self {
        Self { error: failure::begin::<D>(error), has_begun: false, is_of_locks: false }
    }
}

impl From<StorageError> for Failed {
    fn from(error: StorageError) -> Self {
        Self { error, has_begun: true, is_of_locks: false }
    }
}

async fn applied<D: Dialect>(
    database: &Database<D>,
    connection: &mut Lease<'_, D::Db>,
    set: &ChangeSet,
    has_locks: bool,
) -> Result<Vec<RowOutcome>, Failed> {
    if let [one] = set.changes.as_slice()
        && set.then.is_none()
        && !set.dry_run
        && stands_alone(one)
    {
        if connection.is_pooled() {
            return Box::pin(scoped(database, connection, one)).await;
        }
        let row = single(database, connection, one).await.map_err(|error| error.at_change(0))?;
        return Ok(vec![row]);
    }
    let way = Way { is_grouped: true, has_locks };
    match together(database, connection, set, way).await {
        // A multi-row statement does not report which row it failed for; single-row statements do.
        Err(failed) if is_of_a_row(failed.error.kind()) => {
            together(database, connection, set, Way { is_grouped: false, ..way }).await
        }
        outcome => outcome,
    }
}

/// Applies one single-statement change in a scope of its own.
async fn scoped<D: Dialect>(
    database: &Database<D>,
    connection: &mut Lease<'_, D::Db>,
    change: &Change,
) -> Result<Vec<RowOutcome>, Failed> {
    let mut scope = connection.scope().await.map_err(Failed::unbegun::<D>)?;
    let row = single(database, &mut scope, change).await.map_err(|error| error.at_change(0));
    let row = scope.end(row, |error| D::failure(error, &change.schema)).await?;
    Ok(vec![row])
}

/// Whether a failure was caused by a single row.
fn is_of_a_row(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::UniqueViolation
            | ErrorKind::ExclusionViolation
            | ErrorKind::ForeignKeyViolation
            | ErrorKind::Rejected
    )
}

/// Whether a change is a single statement, which the database runs in an implicit transaction.
fn stands_alone(change: &Change) -> bool {
    match &change.write {
        Write::Insert { values } => !given_where_minted(&change.schema, values),
        Write::Update { guard, .. } | Write::Delete { guard, .. } => digest(&change.schema, guard).is_none(),
        Write::UpdateAll { .. } | Write::DeleteAll { .. } => true,
    }
}

/// Whether an inserted row carries an id although the table's ids are generated by the database.
fn given_where_minted(schema: &Schema, values: &[Value]) -> bool {
    schema.id_source == resourceful_contract::IdSource::Storage && !mints(schema, values)
}

/// How a transaction applies its changes.
#[derive(Clone, Copy)]
struct Way {
    /// Whether one statement may carry several changes.
    is_grouped: bool,
    /// Whether all rows are locked in one order before the first change.
    has_locks: bool,
}

async fn together<D: Dialect>(
    database: &Database<D>,
    connection: &mut Lease<'_, D::Db>,
    set: &ChangeSet,
    way: Way,
) -> Result<Vec<RowOutcome>, Failed> {
    // A transaction that is dropped before its commit is rolled back.
    let mut transaction = connection.begin().await.map_err(Failed::unbegun::<D>)?;
    if way.has_locks {
        let locked = lock::rows(database, &mut transaction, &set.changes).await;
        locked.map_err(|error| Failed { error, has_begun: true, is_of_locks: true })?;
    }
    let mut rows: Vec<RowOutcome> = Vec::with_capacity(set.changes.len());
    let progress = set.progress.as_deref();
    each(database, &mut transaction, &set.changes, way.is_grouped, progress, &mut rows).await?;
    if let Some(then) = &set.then {
        let following = then(&rows);
        each(database, &mut transaction, &following, way.is_grouped, None, &mut rows).await?;
    }
    if set.dry_run {
        transaction.rollback().await.map_err(failure::connection)?;
    } else {
        let ended = transaction.commit().await;
        ended.map_err(|error| match set.changes.first() {
            Some(change) => D::failure(error, &change.schema),
            None => failure::connection(error),
        })?;
    }
    Ok(rows)
}

/// Applies changes in a transaction, and appends the outcome of each.
async fn each<D: Dialect>(
    database: &Database<D>,
    transaction: &mut Connection<D>,
    all: &[Change],
    grouped: bool,
    progress: Option<&(dyn Fn(usize) + Send + Sync)>,
    rows: &mut Vec<RowOutcome>,
) -> Result<(), StorageError> {
    let before = rows.len();
    let mut resume: Vec<&Arc<Schema>> = Vec::new();
    while rows.len() - before < all.len() {
        let at = rows.len() - before;
        let group = if grouped { group::<D>(&all[at..]) } else { &all[at..=at] };
        let joined = if grouped && D::JOINS { join::run(&all[at..]) } else { &[] };
        if joined.len() > group.len() {
            let many = join::insert(database, transaction, joined).await;
            rows.extend(many.map_err(|error| error.at_change(before + at))?);
        } else if group.len() > 1 {
            let many = insert_many(database, transaction, group).await;
            rows.extend(many.map_err(|error| error.at_change(before + at))?);
            if let Some(progress) = progress {
                progress(rows.len());
            }
        } else {
            let row = guarded_single(database, transaction, &all[at]).await;
            rows.push(row.map_err(|error| error.at_change(before + at))?);
        }
        if let Write::Insert { values } = &all[at].write
            && given_where_minted(&all[at].schema, values)
            && !resume.iter().any(|schema| Arc::ptr_eq(schema, &all[at].schema))
        {
            resume.push(&all[at].schema);
        }
    }
    for schema in resume {
        if let Some(statement) = D::resume_ids(schema) {
            D::rows(transaction, database.query(statement, Arguments::<D>::default()))
                .await
                .map_err(|error| D::failure(error, schema))?;
        }
    }
    Ok(())
}

/// The longest prefix of changes that one INSERT can carry: rows of one table that return the same fields.
fn group<D: Dialect>(changes: &[Change]) -> &[Change] {
    let first = &changes[0];
    let mints_first = matches!(&first.write, Write::Insert { values } if mints(&first.schema, values));
    let fits = |change: &Change| match &change.write {
        Write::Insert { values } => {
            Arc::ptr_eq(&change.schema, &first.schema)
                && mints(&change.schema, values) == mints_first
                && change.answer == first.answer
        }
        _ => false,
    };
    let most = D::most_rows(first.schema.fields.len());
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
    let statement =
        database.statements.find(&shape.bytes, || write::statement::<D>(changes, &database.overrides.now()));
    let args = bind::<D>(&statement.order, &shape.args).map_err(|error| failure::unbound(schema, error))?;
    if !write::answers(changes) {
        let ran = D::run(connection, database.query(statement.text.clone(), args)).await;
        let ran = ran.map_err(|error| D::failure(error, schema))?;
        return match usize::try_from(ran) {
            Ok(ran) if ran < changes.len() => Err(refusal::left_out()),
            _ => Ok(changes.iter().map(inserted).collect()),
        };
    }
    let rows = D::rows(connection, database.query(statement.text.clone(), args)).await;
    let rows = rows.map_err(|error| D::failure(error, schema))?;
    let written: Result<Vec<_>, _> = rows.iter().map(|row| written::<D>(schema, row, &statement)).collect();
    in_order(changes, written.map_err(|error| failure::corrupt(schema, error))?)
}

/// Sorts the returned rows of one INSERT into the order of its changes: a database may return them in any order.
fn in_order(changes: &[Change], mut rows: Vec<RowOutcome>) -> Result<Vec<RowOutcome>, StorageError> {
    let given = |change: &Change| match &change.write {
        Write::Insert { values } => values[change.schema.id].clone(),
        _ => Value::Null,
    };
    if rows.len() < changes.len() {
        return Err(refusal::left_out());
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

pub(crate) fn inserted(change: &Change) -> RowOutcome {
    let Write::Insert { values } = &change.write else { return RowOutcome::all(1) };
    let id = values[change.schema.id].clone();
    let version = change.schema.first_version(values).map(Version::Counter);
    RowOutcome { id, version, ..RowOutcome::all(1) }
}

/// Applies one change in a transaction; compares the content digest first where the row has no version counter.
async fn guarded_single<D: Dialect>(
    database: &Database<D>,
    connection: &mut Connection<D>,
    change: &Change,
) -> Result<RowOutcome, StorageError> {
    if let Write::Update { id, guard, .. } | Write::Delete { id, guard } = &change.write
        && let Some(expected) = digest(&change.schema, guard)
    {
        lock::row(database, connection, &change.schema, id).await?;
        let query = guarded(&change.schema, id, &guard.filter);
        let rows = fetch_on(database, connection, &query, &mut Vec::new()).await?;
        match rows.versions.first() {
            None => return Err(StorageError::new(ErrorKind::NotFound)),
            Some(found) if *found != expected => {
                return Err(StorageError::new(ErrorKind::VersionMismatch));
            }
            Some(_) => {}
        }
    }
    single(database, connection, change).await
}

/// The digest version that a guard expects, for rows without a version counter.
fn digest(schema: &Schema, guard: &Guard) -> Option<Version> {
    guard.version.filter(|_| schema.version.is_none())
}

async fn single<D: Dialect>(
    database: &Database<D>,
    connection: &mut Connection<D>,
    change: &Change,
) -> Result<RowOutcome, StorageError> {
    let changes = std::slice::from_ref(change);
    let schema = &change.schema;
    let shape = write::shape(changes);
    let statement =
        database.statements.find(&shape.bytes, || write::statement::<D>(changes, &database.overrides.now()));
    let args = bind::<D>(&statement.order, &shape.args).map_err(|error| failure::unbound(schema, error))?;
    if !write::answers(changes) {
        let ran = D::run(connection, database.query(statement.text.clone(), args)).await;
        return match (ran.map_err(|error| D::failure(error, schema))?, &change.write) {
            (0, Write::Delete { id, guard }) => Err(why_not(database, connection, schema, id, guard).await?),
            (_, Write::Delete { id, .. }) => Ok(RowOutcome { id: id.clone(), ..RowOutcome::all(1) }),
            (rows, _) => Ok(RowOutcome::all(rows)),
        };
    }
    let rows = match D::rows(connection, database.query(statement.text.clone(), args)).await {
        Ok(rows) => rows,
        Err(error) => {
            return Err(explained(database, D::failure(error, schema), connection, change).await);
        }
    };
    match (rows.first(), &change.write) {
        (Some(row), _) => {
            written::<D>(schema, row, &statement).map_err(|error| failure::corrupt(schema, error))
        }
        (None, Write::Update { id, guard, .. }) => {
            Err(why_not(database, connection, schema, id, guard).await?)
        }
        (None, _) => Err(refusal::left_out()),
    }
}

fn written<D: Dialect>(
    schema: &Schema,
    row: &plan::Row<D>,
    statement: &write::Statement,
) -> Result<RowOutcome, crate::dialect::Unreadable> {
    let mut json = Vec::new();
    if !statement.fields.is_empty() {
        json.reserve(512);
        plan::object::<D>(&mut json, row, &statement.fields, Origin { schema, id: Some(0) });
    }
    Ok(RowOutcome {
        id: D::read(row, 0, schema.id_field().field_type)?,
        version: Some(plan::version::<D>(schema, row, &statement.versions)),
        json,
        rows: 1,
    })
}

/// The reason why a guarded change matched no row: no row that the caller may change exists, the version differs, or the
/// database skipped the change.
async fn why_not<D: Dialect>(
    database: &Database<D>,
    connection: &mut Connection<D>,
    schema: &Arc<Schema>,
    id: &Value,
    guard: &Guard,
) -> Result<StorageError, StorageError> {
    let query = guarded(schema, id, &guard.filter);
    let rows = fetch_on(database, connection, &query, &mut Vec::new()).await?;
    let Some(found) = rows.versions.first() else { return Ok(StorageError::new(ErrorKind::NotFound)) };
    Ok(match guard.version {
        Some(expected) if expected != *found => StorageError::new(ErrorKind::VersionMismatch),
        _ => refusal::left_out(),
    })
}

/// Adds the violated references to an error, where the database does not name them itself.
async fn explained<D: Dialect>(
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
        let (statement, values) = write::lookup::<D>(reference, &database.overrides.now());
        let Ok(args) = bind::<D>(&args::order(&values), &[Arg::One(field_type, value)]) else {
            continue;
        };
        let found = D::rows(connection, database.query(statement, args)).await;
        if found.is_ok_and(|rows| rows.is_empty()) {
            fields.push(schema.fields[reference.field].name.clone());
        }
    }
    error.with_fields(fields)
}
