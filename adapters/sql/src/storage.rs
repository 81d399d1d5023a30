//! The storage of the contract, over a dialect's connections.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use resourceful_contract::{
    Answer, Capabilities, ChangeSet, Committed, ErrorKind, Migrated, Migration, Mismatch, NotificationStream,
    Query, Rows, Schema, SqlDialect, Storage, StorageError,
};
use sqlx::{AssertSqlSafe, Pool, SqlSafeStr};

use crate::args::Arg;
use crate::connections::{Connections, Lease};
use crate::dialect::{Dialect, Unreadable};
use crate::failure::{self, Transient};
use crate::overrides::{ColumnOverride, KnownOverrides};
use crate::plan::{Plan, Plans};
use crate::polling::Polling;
use crate::sessions::Sessions;
use crate::write::Statement;
use crate::{check, commit, create, fetch, migrate};

/// A database of one dialect, with its connections and cached statements.
#[derive(Debug)]
pub(crate) struct Database<D: Dialect> {
    readers: Arc<Connections<D::Db>>,
    writer: Arc<Connections<D::Db>>,
    sessions: Sessions,
    pub(crate) plans: Plans<Plan>,
    pub(crate) statements: Plans<Statement>,
    /// Overrides found by comparing schemas with their tables.
    pub(crate) overrides: KnownOverrides,
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
        let sessions = Sessions::of_connections::<D>();
        let writer = Arc::new(Connections::new(writer, sessions.clone()));
        Self { writer, ..Self::of_one_pool(readers, sessions, limits) }
    }

    /// A database with one pool for reads and writes.
    pub(crate) fn of_one_pool(pool: Pool<D::Db>, sessions: Sessions, limits: Limits) -> Self {
        let connections = Arc::new(Connections::new(pool, sessions.clone()));
        Self {
            sessions,
            listener: None,
            readers: connections.clone(),
            writer: connections,
            plans: Plans::default(),
            statements: Plans::default(),
            overrides: KnownOverrides::default(),
            limits,
        }
    }

    /// Sets the connection options for LISTEN.
    #[cfg(feature = "postgres")]
    pub(crate) fn listening(mut self, listener: Option<ConnectOptions<D>>) -> Self {
        self.listener = listener;
        self
    }

    /// Stores the overrides of a table's columns; if they changed, the statements built so far are discarded.
    pub(crate) fn keep_overrides(&self, table: &str, columns: HashMap<String, ColumnOverride>) {
        if self.overrides.keep(table, columns) {
            self.plans.clear();
            self.statements.clear();
        }
    }

    pub(crate) async fn reader(&self) -> Result<Lease<'_, D::Db>, StorageError> {
        self.readers.take().await
    }

    /// Acquires a reader for a query that may hold it for long.
    pub(crate) async fn heavy_reader(&self) -> Result<Lease<'_, D::Db>, StorageError> {
        self.readers.take_for_long().await
    }

    pub(crate) async fn writer(&self) -> Result<Lease<'_, D::Db>, StorageError> {
        self.writer.take().await
    }

    /// A statement with its arguments. It is kept as a prepared statement, unless it is a long one that clients have shaped
    /// (the texts of INSERTs follow from declarations alone) or connections keep none. Texts are built from declarations;
    /// values are only ever bound.
    pub(crate) fn query<'q, T>(&self, text: T, args: Arguments<D>) -> SqlQuery<'q, D>
    where
        AssertSqlSafe<T>: SqlSafeStr,
    {
        let text = AssertSqlSafe(text).into_sql_str();
        let stays = text.as_str().len() <= LONGEST_PREPARED || text.as_str().starts_with("INSERT");
        sqlx::query_with(text, args).persistent(stays && self.sessions.keep_statements)
    }
}

/// Runs the cheapest statement, to test a connection.
async fn select<D: Dialect>(connection: &mut Connection<D>) -> Result<(), sqlx::Error> {
    D::script(connection, "SELECT 1".into_sql_str()).await
}

/// Whether a transaction can begin and may write.
async fn is_writable<D: Dialect>(writer: &mut Lease<'_, D::Db>) -> Result<bool, StorageError> {
    match writer.begin().await {
        Ok(mut transaction) => {
            let is_writable = D::is_writable(&mut transaction).await.map_err(failure::connection);
            transaction.rollback().await.map_err(failure::connection)?;
            is_writable
        }
        // Another process is writing, so the database accepts writes.
        Err(error) if D::transient(&error) == Some(Transient::Contended) => Ok(true),
        Err(error) => Err(failure::connection(error)),
    }
}

/// The longest text in bytes that is kept as a prepared statement. Clients choose the shapes of filters, and a connection
/// limits the number of its statements, not their memory.
const LONGEST_PREPARED: usize = 4 << 10;

/// A statement with its arguments that no connection keeps prepared, such as one on the catalog, of a migration, or of a
/// lookup after a failure.
pub(crate) fn once<'q, DB, A>(text: impl SqlSafeStr, args: A) -> sqlx::query::Query<'q, DB, A>
where
    DB: sqlx::Database + sqlx::database::HasStatementCache,
    A: sqlx::IntoArguments<DB>,
{
    sqlx::query_with(text, args).persistent(false)
}

/// Binds arguments in the order in which a text names them.
pub(crate) fn bind<D: Dialect>(order: &[usize], args: &[Arg<'_>]) -> Result<Arguments<D>, Unreadable> {
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
        Box::pin(check::check::<D>(self, schema))
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

    fn notify<'a>(&'a self, bell: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            let Some(statement) = D::ring() else { return Ok(()) };
            let mut connection = self.reader().await?;
            let args = bind::<D>(&[0], &[Arg::Text(bell)]);
            let args = args.map_err(|error| StorageError::new(ErrorKind::Internal).with_source(error))?;
            let mut scope = connection.scope().await.map_err(failure::connection)?;
            let rung = D::rows(&mut scope, self.query(statement, args)).await;
            scope.end(rung.map(drop).map_err(failure::connection), failure::connection).await?;
            connection.hand_on();
            Ok(())
        })
    }

    fn listen<'a>(&'a self, bell: &'a str) -> Answer<'a, Option<Box<dyn NotificationStream>>> {
        Box::pin(async move {
            let Some(options) = &self.listener else {
                let polling =
                    self.sessions.are_pooled.then(|| Box::new(Polling::new()) as Box<dyn NotificationStream>);
                return Ok(polling);
            };
            let timeout = self.readers.pool().options().get_acquire_timeout();
            D::hear(options, timeout, bell).await.map_err(failure::connection)
        })
    }

    fn ready(&self) -> Answer<'_, ()> {
        Box::pin(async {
            let mut connection = self.reader().await?;
            match select::<D>(&mut connection).await {
                // An idle connection that the server has closed says nothing about the server.
                Err(error) if D::transient(&error) == Some(Transient::Disconnected) => {
                    connection = connection.renewed().await?;
                    select::<D>(&mut connection).await.map_err(failure::connection)?;
                }
                answer => answer.map_err(failure::connection)?,
            }
            connection.hand_on();
            // If the writer is in use, its statements show its state, and readiness does not wait for it.
            let Some(mut writer) = self.writer.take_free().await? else { return Ok(()) };
            if !is_writable::<D>(&mut writer).await? {
                writer.discard();
                return Err(failure::read_only(ErrorKind::Unavailable));
            }
            writer.hand_on();
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
