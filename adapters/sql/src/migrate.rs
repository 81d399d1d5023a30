//! Runs migrations: each once, in one transaction, on one node at a time.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use chrono::Utc;
use resourceful_contract::{
    ErrorKind, Field, FieldType, IdSource, Migrated, Migration, Schema, StorageError, Value,
};
use sqlx::{AssertSqlSafe, SqlSafeStr as _};

use super::error_mapping;
use crate::args::Arg;
use crate::catalog::columns;
use crate::create::create_table;
use crate::dialect::Dialect;
use crate::storage::{Connection, Database, bind, unprepared_query};

/// The table that records applied migrations.
const HISTORY_TABLE: &str = "resourceful_migrations";

/// How long a node waits for another node's migration.
const LOCK_TIMEOUT: Duration = Duration::from_secs(60);

/// The schema of the journal table: one row for each applied migration.
fn history_schema() -> Schema {
    let fields = vec![
        Field::new("id", FieldType::Text),
        Field::new("name", FieldType::Text),
        Field::new("checksum", FieldType::Text),
        Field::new("applied_at", FieldType::DateTime),
    ];
    Schema::new("migrations", HISTORY_TABLE, fields, 0, IdSource::Client)
}

/// The key of a migration in the journal.
fn history_key(migration: &Migration) -> String {
    format!("{} {:04}", migration.owner, migration.number)
}

pub(crate) async fn migrate<D: Dialect>(
    database: &Database<D>,
    migrations: &[Migration],
    apply: bool,
) -> Result<Migrated, StorageError> {
    let history = history_schema();
    let deadline = Instant::now() + LOCK_TIMEOUT;
    loop {
        match attempt(database, &history, migrations, apply).await {
            // SQLite admits one writer at a time, and its busy timeout ends sooner than a long migration does.
            Err(error) if apply && is_retryable::<D>(&error) && Instant::now() < deadline => {}
            outcome => return outcome,
        }
    }
}

/// Whether a retry may succeed.
fn is_retryable<D: Dialect>(error: &StorageError) -> bool {
    let is_retryable_kind = matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Contended);
    is_retryable_kind && !error_mapping::is_read_only::<D>(error)
}

async fn attempt<D: Dialect>(
    database: &Database<D>,
    history: &Schema,
    migrations: &[Migration],
    apply: bool,
) -> Result<Migrated, StorageError> {
    let mut connection = database.writer().await?;
    let mut scope = connection.scope().await.map_err(error_mapping::begin_error::<D>)?;
    let before = compare::<D>(&mut scope, history, migrations).await;
    let before = scope.end(before, error_mapping::connection_error).await?;
    if !apply || before.missing.is_empty() || !before.changed.is_empty() {
        connection.release();
        return Ok(before);
    }
    let mut transaction = connection.begin().await.map_err(error_mapping::connection_error)?;
    for statement in
        D::lift_timeout_statement().into_iter().map(str::to_owned).chain(D::creation_lock(history))
    {
        execute_script::<D>(&mut transaction, history, statement).await?;
    }
    // Another node may have applied them first.
    let found = compare::<D>(&mut transaction, history, migrations).await?;
    if found.changed.is_empty() && !found.missing.is_empty() {
        if columns::<D>(&mut transaction, history).await?.is_empty() {
            execute_script::<D>(&mut transaction, history, create_table::<D>(history)).await?;
        }
        for position in &found.missing {
            let migration = &migrations[*position];
            apply_migration::<D>(&mut transaction, history, migration)
                .await
                .map_err(|error| error.with_context("migration", migration.label()))?;
        }
    }
    transaction.commit().await.map_err(|error| D::map_error(error, history))?;
    connection.release();
    Ok(found)
}

/// Compares the known migrations with the applied ones.
async fn compare<D: Dialect>(
    connection: &mut Connection<D>,
    history: &Schema,
    migrations: &[Migration],
) -> Result<Migrated, StorageError> {
    let mut applied = HashMap::new();
    if !columns::<D>(connection, history).await?.is_empty() {
        let select = AssertSqlSafe(format!("SELECT id, checksum FROM {HISTORY_TABLE}"));
        let rows = D::rows(connection, unprepared_query(select, Default::default())).await;
        for row in rows.map_err(|error| D::map_error(error, history))? {
            let text = |column| {
                let text =
                    D::text(&row, column).map_err(|error| error_mapping::corrupt_value(history, error))?;
                Ok::<_, StorageError>(text.unwrap_or_default().to_owned())
            };
            applied.insert(text(0)?, text(1)?);
        }
    }
    let mut found = Migrated::default();
    for (position, migration) in migrations.iter().enumerate() {
        match applied.get(&history_key(migration)) {
            None => found.missing.push(position),
            Some(checksum) if *checksum != migration.checksum() => found.changed.push(position),
            Some(_) => {}
        }
    }
    Ok(found)
}

async fn apply_migration<D: Dialect>(
    connection: &mut Connection<D>,
    history: &Schema,
    migration: &Migration,
) -> Result<(), StorageError> {
    execute_script::<D>(connection, history, migration.sql.clone()).await?;
    let now = Value::DateTime(Utc::now());
    let (id, checksum) = (history_key(migration), migration.checksum());
    let args = [
        Arg::Text(&id),
        Arg::Text(&migration.name),
        Arg::Text(&checksum),
        Arg::One(FieldType::DateTime, &now),
    ];
    let args = bind::<D>(&[0, 1, 2, 3], &args).map_err(|error| error_mapping::bind_error(history, error))?;
    let insert =
        format!("INSERT INTO {HISTORY_TABLE} (id, name, checksum, applied_at) VALUES ($1, $2, $3, $4)");
    let done = D::execute(connection, unprepared_query(AssertSqlSafe(insert), args)).await;
    done.map(drop).map_err(|error| D::map_error(error, history))
}

async fn execute_script<D: Dialect>(
    connection: &mut Connection<D>,
    history: &Schema,
    statements: String,
) -> Result<(), StorageError> {
    let done = D::execute_script(connection, AssertSqlSafe(statements).into_sql_str()).await;
    done.map_err(|error| match error_mapping::error_kind(&error) {
        ErrorKind::Unavailable => D::map_error(error, history),
        _ if D::is_read_only(&error) => D::map_error(error, history),
        // No row is at fault: the database refused a statement.
        _ => StorageError::new(ErrorKind::Internal).with_source(error),
    })
}
