//! Runs migrations: each once, in one transaction, on one node at a time.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use chrono::Utc;
use resourceful_contract::{
    ErrorKind, Field, FieldType, IdSource, Migrated, Migration, Schema, StorageError, Value,
};
use sqlx::{AssertSqlSafe, SqlSafeStr as _};

use crate::args::Arg;
use crate::catalog::columns;
use crate::create::create_table;
use crate::dialect::Dialect;
use crate::failure;
use crate::storage::{Connection, Database, bind, once};

/// The table that records applied migrations.
const JOURNAL: &str = "resourceful_migrations";

/// How long a node waits for another node's migration.
const PATIENCE: Duration = Duration::from_secs(60);

/// The schema of the journal table: one row for each applied migration.
fn journal() -> Schema {
    let fields = vec![
        Field::new("id", FieldType::Text),
        Field::new("name", FieldType::Text),
        Field::new("checksum", FieldType::Text),
        Field::new("applied_at", FieldType::DateTime),
    ];
    Schema::new("migrations", JOURNAL, fields, 0, IdSource::Client)
}

/// The key of a migration in the journal.
fn key(migration: &Migration) -> String {
    format!("{} {:04}", migration.owner, migration.number)
}

pub(crate) async fn migrate<D: Dialect>(
    database: &Database<D>,
    migrations: &[Migration],
    apply: bool,
) -> Result<Migrated, StorageError> {
    let journal = journal();
    let end = Instant::now() + PATIENCE;
    loop {
        match attempt(database, &journal, migrations, apply).await {
            // SQLite admits one writer at a time, and its busy timeout ends sooner than a long migration does.
            Err(error) if apply && is_passing::<D>(&error) && Instant::now() < end => {}
            outcome => return outcome,
        }
    }
}

/// Whether a retry may succeed.
fn is_passing<D: Dialect>(error: &StorageError) -> bool {
    let is_passing = matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Contended);
    is_passing && !failure::is_read_only::<D>(error)
}

async fn attempt<D: Dialect>(
    database: &Database<D>,
    journal: &Schema,
    migrations: &[Migration],
    apply: bool,
) -> Result<Migrated, StorageError> {
    let mut connection = database.writer().await?;
    let mut scope = connection.scope().await.map_err(failure::begin::<D>)?;
    let before = compare::<D>(&mut scope, journal, migrations).await;
    let before = scope.end(before, failure::connection).await?;
    if !apply || before.missing.is_empty() || !before.changed.is_empty() {
        connection.hand_on();
        return Ok(before);
    }
    let mut transaction = connection.begin().await.map_err(failure::connection)?;
    for statement in D::patience().into_iter().map(str::to_owned).chain(D::creation_lock(journal)) {
        script::<D>(&mut transaction, journal, statement).await?;
    }
    // Another node may have applied them first.
    let found = compare::<D>(&mut transaction, journal, migrations).await?;
    if found.changed.is_empty() && !found.missing.is_empty() {
        if columns::<D>(&mut transaction, journal).await?.is_empty() {
            script::<D>(&mut transaction, journal, create_table::<D>(journal)).await?;
        }
        for position in &found.missing {
            let migration = &migrations[*position];
            run::<D>(&mut transaction, journal, migration)
                .await
                .map_err(|error| error.with_context("migration", migration.label()))?;
        }
    }
    transaction.commit().await.map_err(|error| D::failure(error, journal))?;
    connection.hand_on();
    Ok(found)
}

/// Compares the known migrations with the applied ones.
async fn compare<D: Dialect>(
    connection: &mut Connection<D>,
    journal: &Schema,
    migrations: &[Migration],
) -> Result<Migrated, StorageError> {
    let mut applied = HashMap::new();
    if !columns::<D>(connection, journal).await?.is_empty() {
        let select = AssertSqlSafe(format!("SELECT id, checksum FROM {JOURNAL}"));
        let rows = D::rows(connection, once(select, Default::default())).await;
        for row in rows.map_err(|error| D::failure(error, journal))? {
            let text = |column| {
                let text = D::text(&row, column).map_err(|error| failure::corrupt(journal, error))?;
                Ok::<_, StorageError>(text.unwrap_or_default().to_owned())
            };
            applied.insert(text(0)?, text(1)?);
        }
    }
    let mut found = Migrated::default();
    for (position, migration) in migrations.iter().enumerate() {
        match applied.get(&key(migration)) {
            None => found.missing.push(position),
            Some(checksum) if *checksum != migration.checksum() => found.changed.push(position),
            Some(_) => {}
        }
    }
    Ok(found)
}

async fn run<D: Dialect>(
    connection: &mut Connection<D>,
    journal: &Schema,
    migration: &Migration,
) -> Result<(), StorageError> {
    script::<D>(connection, journal, migration.sql.clone()).await?;
    let now = Value::DateTime(Utc::now());
    let (id, checksum) = (key(migration), migration.checksum());
    let args = [
        Arg::Text(&id),
        Arg::Text(&migration.name),
        Arg::Text(&checksum),
        Arg::One(FieldType::DateTime, &now),
    ];
    let args = bind::<D>(&[0, 1, 2, 3], &args).map_err(|error| failure::unbound(journal, error))?;
    let insert = format!("INSERT INTO {JOURNAL} (id, name, checksum, applied_at) VALUES ($1, $2, $3, $4)");
    let done = D::run(connection, once(AssertSqlSafe(insert), args)).await;
    done.map(drop).map_err(|error| D::failure(error, journal))
}

async fn script<D: Dialect>(
    connection: &mut Connection<D>,
    journal: &Schema,
    statements: String,
) -> Result<(), StorageError> {
    let done = D::script(connection, AssertSqlSafe(statements).into_sql_str()).await;
    done.map_err(|error| match failure::kind(&error) {
        ErrorKind::Unavailable => D::failure(error, journal),
        _ if D::is_read_only(&error) => D::failure(error, journal),
        // No row is at fault: the database refused a statement.
        _ => StorageError::new(ErrorKind::Internal).with_source(error),
    })
}
