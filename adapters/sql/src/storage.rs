//! The storage of the contract, over a dialect's connections.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use resourceful_contract::{
    Answer, Capabilities, ChangeSet, Committed, ErrorKind, Migrated, Migration, Mismatch, NotificationStream,
    Query, Rows, Schema, SqlDialect, Storage, StorageError,
};
use sqlx::{AssertSqlSafe, Pool, SqlSafeStr};

use super::error_mapping;
use super::schema_check;
use crate::args::Arg;
use crate::column_overrides::{ColumnOverride, SharedOverrides};
use crate::connections::{Connections, PooledConnection};
use crate::dialect::{CodecError, Dialect};
use crate::error_mapping::Transient;
use crate::notification_polling::Polling;
use crate::plan::{Plan, PlanCache};
use crate::session_mode::SessionMode;
use crate::write::Statement;
use crate::{commit, create, fetch, migrate};

/// A database of one dialect, with its connections and cached statements.
#[derive(Debug)]
pub(crate) struct Database<D: Dialect> {
    readers: Arc<Connections<D::Db>>,
    writer: Arc<Connections<D::Db>>,
    sessions: SessionMode,
    pub(crate) plans: PlanCache<Plan>,
    pub(crate) statements: PlanCache<Statement>,
    /// Overrides found by comparing schemas with their tables.
    pub(crate) overrides: SharedOverrides,
    pub(crate) limits: Limits,
    /// The connection options for LISTEN; `None` where the database has no notifications, or no session of its own to listen
    /// in.
    listener: Option<ConnectOptions<D>>,
}

/// Time limits of queries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) statement: Duration,
    /// For queries that read rows without an index.
    pub(crate) heavy: Duration,
}

/// A statement with its arguments, for a dialect's driver.
pub(crate) type SqlQuery<'q, D> = sqlx::query::Query<'q, <D as Dialect>::Db, Arguments<D>>;
/// The arguments of a dialect's driver.
pub(crate) type Arguments<D> = <<D as Dialect>::Db as sqlx::Database>::Arguments;
/// The connection options of a dialect's driver.
pub(crate) type ConnectOptions<D> = <Connection<D> as sqlx::Connection>::Options;
/// A connection of a dialect's driver.
pub(crate) type Connection<D> = <<D as Dialect>::Db as sqlx::Database>::Connection;

impl<D: Dialect> Database<D> {
    /// A database with separate pools for reads and writes.
    #[cfg_attr(not(feature = "sqlite"), expect(dead_code, reason = "only SQLite has one writer"))]
    pub(crate) fn new(readers: Pool<D::Db>, writer: Pool<D::Db>, limits: Limits) -> Self {
        let sessions = SessionMode::direct::<D>();
        let writer = Arc::new(Connections::new(writer, sessions.clone()));
        Self { writer, ..Self::with_one_pool(readers, sessions, limits) }
    }

    /// A database with one pool for reads and writes.
    pub(crate) fn with_one_pool(pool: Pool<D::Db>, sessions: SessionMode, limits: Limits) -> Self {
        let connections = Arc::new(Connections::new(pool, sessions.clone()));
        Self {
            sessions,
            listener: None,
            readers: connections.clone(),
            writer: connections,
            plans: PlanCache::default(),
            statements: PlanCache::default(),
            overrides: SharedOverrides::default(),
            limits,
        }
    }

    /// Sets the connection options for LISTEN.
    #[cfg(feature = "postgres")]
    pub(crate) fn with_listener(mut self, listener: Option<ConnectOptions<D>>) -> Self {
        self.listener = listener;
        self
    }

    /// Stores the overrides of a table's columns; if they changed, the statements built so far are discarded.
    pub(crate) fn store_overrides(&self, table: &str, columns: HashMap<String, ColumnOverride>) {
        if self.overrides.merge(table, columns) {
            self.plans.clear();
            self.statements.clear();
        }
    }

    pub(crate) async fn reader(&self) -> Result<PooledConnection<'_, D::Db>, StorageError> {
        self.readers.acquire().await
    }

    /// Acquires a reader for a query that may hold it for long.
    pub(crate) async fn heavy_reader(&self) -> Result<PooledConnection<'_, D::Db>, StorageError> {
        self.readers.acquire_long().await
    }

    pub(crate) async fn writer(&self) -> Result<PooledConnection<'_, D::Db>, StorageError> {
        self.writer.acquire().await
    }

    /// A statement with its arguments. It is kept as a prepared statement, unless it is a long one that clients have shaped
    /// (the texts of INSERTs follow from declarations alone) or connections keep none. Texts are built from declarations;
    /// values are only ever bound.
    pub(crate) fn query<'q, T>(&self, text: T, args: Arguments<D>) -> SqlQuery<'q, D>
    where
        AssertSqlSafe<T>: SqlSafeStr,
    {
        let text = AssertSqlSafe(text).into_sql_str();
        let is_reusable = text.as_str().len() <= MAX_PREPARED_BYTES || text.as_str().starts_with("INSERT");
        sqlx::query_with(text, args).persistent(is_reusable && self.sessions.has_statement_cache)
    }
}

/// Runs the cheapest statement, to test a connection.
async fn ping<D: Dialect>(connection: &mut Connection<D>) -> Result<(), sqlx::Error> {
    D::execute_script(connection, "SELECT 1".into_sql_str()).await
}

/// Whether a transaction can begin and may write.
async fn is_writable<D: Dialect>(writer: &mut PooledConnection<'_, D::Db>) -> Result<bool, StorageError> {
    match writer.begin().await {
        Ok(mut transaction) => {
            let is_writable = D::is_writable(&mut transaction).await.map_err(error_mapping::connection_error);
            transaction.rollback().await.map_err(error_mapping::connection_error)?;
            is_writable
        }
        // Another process is writing, so the database accepts writes.
        Err(error) if D::transient(&error) == Some(Transient::Contended) => Ok(true),
        Err(error) => Err(error_mapping::connection_error(error)),
    }
}

/// The longest text in bytes that is kept as a prepared statement. Clients choose the shapes of filters, and a connection
/// limits the number of its statements, not their memory.
const MAX_PREPARED_BYTES: usize = 4 << 10;

/// A statement with its arguments that no connection keeps prepared, such as one on the catalog, of a migration, or of a
/// lookup after a failure.
pub(crate) fn unprepared_query<'q, DB, A>(text: impl SqlSafeStr, args: A) -> sqlx::query::Query<'q, DB, A>
where
    DB: sqlx::Database + sqlx::database::HasStatementCache,
    A: sqlx::IntoArguments<DB>,
{
    sqlx::query_with(text, args).persistent(false)
}

/// Binds arguments in the order in which a text names them.
pub(crate) fn bind<D: Dialect>(order: &[usize], args: &[Arg<'_>]) -> Result<Arguments<D>, CodecError> {
    use sqlx::Arguments as _;
    let mut bound = Arguments::<D>::default();
    bound.reserve(order.len(), order.len() * 16);
    for position in order {
        let arg = args.get(*position).ok_or("a statement names an argument that it does not have")?;
        D::bind(&mut bound, arg)?;
    }
    Ok(bound)
}

impl<D: Dialect> Storage for Database<D> {
    fn name(&self) -> &'static str {
        D::NAME
    }

    fn dialect(&self) -> Option<SqlDialect> {
        Some(D::DIALECT)
    }

    fn capabilities(&self) -> Capabilities {
        D::capabilities()
    }

    fn create_table_if_missing<'a>(&'a self, schema: &'a Arc<Schema>) -> Answer<'a, ()> {
        Box::pin(create::create::<D>(self, schema))
    }

    fn check<'a>(&'a self, schema: &'a Arc<Schema>) -> Answer<'a, Vec<Mismatch>> {
        Box::pin(schema_check::check::<D>(self, schema))
    }

    fn migrate<'a>(&'a self, migrations: &'a [Migration], apply: bool) -> Answer<'a, Migrated> {
        Box::pin(migrate::migrate::<D>(self, migrations, apply))
    }

    fn fetch<'a>(&'a self, query: &'a Query, out: &'a mut Vec<u8>) -> Answer<'a, Rows> {
        Box::pin(fetch::fetch::<D>(self, query, out))
    }

    fn commit(&self, changes: ChangeSet) -> Answer<'_, Committed> {
        Box::pin(commit::commit::<D>(self, changes))
    }

    fn notify<'a>(&'a self, channel: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            let Some(statement) = D::notify_statement() else { return Ok(()) };
            let mut connection = self.reader().await?;
            let args = bind::<D>(&[0], &[Arg::Text(channel)]);
            let args = args.map_err(|error| StorageError::new(ErrorKind::Internal).with_source(error))?;
            let mut scope = connection.scope().await.map_err(error_mapping::connection_error)?;
            let notified = D::rows(&mut scope, self.query(statement, args)).await;
            scope
                .end(
                    notified.map(drop).map_err(error_mapping::connection_error),
                    error_mapping::connection_error,
                )
                .await?;
            connection.release();
            Ok(())
        })
    }

    fn listen<'a>(&'a self, channel: &'a str) -> Answer<'a, Option<Box<dyn NotificationStream>>> {
        Box::pin(async move {
            let Some(options) = &self.listener else {
                let polling = self
                    .sessions
                    .is_transaction_pooled
                    .then(|| Box::new(Polling::new()) as Box<dyn NotificationStream>);
                return Ok(polling);
            };
            let timeout = self.readers.pool().options().get_acquire_timeout();
            D::listen(options, timeout, channel).await.map_err(error_mapping::connection_error)
        })
    }

    fn ready(&self) -> Answer<'_, ()> {
        Box::pin(async {
            let mut connection = self.reader().await?;
            match ping::<D>(&mut connection).await {
                // An idle connection that the server has closed says nothing about the server.
                Err(error) if D::transient(&error) == Some(Transient::Disconnected) => {
                    connection = connection.reconnect().await?;
                    ping::<D>(&mut connection).await.map_err(error_mapping::connection_error)?;
                }
                answer => answer.map_err(error_mapping::connection_error)?,
            }
            connection.release();
            // If the writer is in use, its statements show its state, and readiness does not wait for it.
            let Some(mut writer) = self.writer.try_acquire().await? else { return Ok(()) };
            if !is_writable::<D>(&mut writer).await? {
                writer.discard();
                return Err(error_mapping::read_only_error(ErrorKind::Unavailable));
            }
            writer.release();
            Ok(())
        })
    }

    fn close(&self) -> Answer<'_, ()> {
        Box::pin(async {
            self.readers.close().await;
            self.writer.close().await;
            Ok(())
        })
    }
}
