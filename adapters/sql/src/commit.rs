//! Changes that become so together or not at all.

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

/// Applies a set, again where what failed was of no row and has left nothing behind.
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
        // A role may delete and not lock, and not every view can be locked: the order is then left to chance.
        if failed.is_of_locks && failed.error.kind() == ErrorKind::Internal {
            has_locks = false;
            continue;
        }
        // Of a connection that is lost later it is not known whether the database did what was sent.
        connection = match retry.after::<D>(&failed.error, connection, !failed.has_begun).await? {
            Some(connection) => connection,
            None => return Err(failed.error),
        };
    }
}

/// Why a set was not applied.
struct Failed {
    error: StorageError,
    /// Whether any of its statements may have reached the database.
    has_begun: bool,
    /// Whether it could not lock its rows in order.
    is_of_locks: bool,
}

impl Failed {
    /// A set whose transaction could not begin.
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
        // A statement of many rows does not say which of them it failed for; one by one they do.
        Err(failed) if is_of_a_row(failed.error.kind()) => {
            together(database, connection, set, Way { is_grouped: false, ..way }).await
        }
        outcome => outcome,
    }
}

/// One change that stands alone, in a scope of its own.
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

/// Whether a failure is one row's fault.
fn is_of_a_row(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::UniqueViolation
            | ErrorKind::ExclusionViolation
            | ErrorKind::ForeignKeyViolation
            | ErrorKind::Rejected
    )
}

/// Whether a change is one statement, which a database runs as a transaction of its own.
fn stands_alone(change: &Change) -> bool {
    match &change.write {
        Write::Insert { values } => !given_where_minted(&change.schema, values),
        Write::Update { guard, .. } | Write::Delete { guard, .. } => digest(&change.schema, guard).is_none(),
        Write::UpdateAll { .. } | Write::DeleteAll { .. } => true,
    }
}

/// Whether a row comes with an id into a table that mints its own.
fn given_where_minted(schema: &Schema, values: &[Value]) -> bool {
    schema.id_source == resourceful_contract::IdSource::Storage && !mints(schema, values)
}

/// How a transaction goes about its changes.
#[derive(Clone, Copy)]
struct Way {
    /// Whether one statement may carry several of them.
    is_grouped: bool,
    /// Whether the rows are locked in one order before any is changed.
    has_locks: bool,
}

async fn together<D: Dialect>(
    database: &Database<D>,
    connection: &mut Lease<'_, D::Db>,
    set: &ChangeSet,
    way: Way,
) -> Result<Vec<RowOutcome>, Failed> {
    // Dropped before its commit, a transaction is rolled back.
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

/// Applies changes in a transaction, and appends what became of each.
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

/// The next changes that one INSERT can carry: rows of one table that answer the same.
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
    // A text for full groups and for powers of two, and none for every length between.
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

/// The rows of one INSERT as its changes come: a database may answer them in any order.
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
    // Ids of the database's own ascend as the rows were named.
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

/// One change inside a transaction, its digest compared first where the row has no counter.
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

/// The version that a guard expects of a row without a counter.
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

/// Why a guarded change met no row: there is none that the caller may touch, it has another version, or the database
/// left the change out.
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

/// Names the references that do not hold, where the database itself does not.
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
