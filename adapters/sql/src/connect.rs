//! Opens a database from a URL.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use resourceful_contract::{Answer, ErrorKind, Storage, StorageError, Table};

use crate::storage::Limits;

/// A handle to an SQL database. Clones share its connection pool.
///
/// ```
/// # #[cfg(feature = "sqlite")]
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let database = resourceful_sql::Sql::connect("sqlite::memory:").await?;
/// assert_eq!(database.storage().name(), "sqlite");
/// # Ok::<(), resourceful_contract::StorageError>(()) }).unwrap();
/// ```
#[derive(Clone)]
pub struct Sql {
    storage: Arc<dyn Storage>,
}

impl Sql {
    /// Connects to `sqlite://path` (created if it does not exist, unless `?mode=ro` opens it read-only), `sqlite::memory:`
    /// or, with the feature `postgres`, `postgres://user:password@host/database`, directly or through a connection pooler.
    ///
    /// A PostgreSQL URL accepts the driver's parameters (`sslmode`, `application_name`, `options`,
    /// `statement-cache-capacity` …) and `pool_mode=session` or `pool_mode=transaction` (`pgbouncer=true`), which states the
    /// mode of the pooler ([`PoolMode`]).
    ///
    /// # Errors
    /// If the URL's scheme is not supported or the database cannot be reached. The error's `Debug` output is a report with
    /// the matching fix.
    pub async fn connect(url: &str) -> Result<Self, StorageError> {
        Self::options(url).connect().await
    }

    /// Options for a connection to this URL, with the defaults of [`connect`](Self::connect).
    pub fn options(url: &str) -> SqlOptions {
        SqlOptions {
            url: url.to_owned(),
            max_connections: None,
            acquire_timeout: Duration::from_secs(10),
            busy_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(30),
            heavy_query_timeout: Duration::from_secs(10),
            pool_mode: None,
            direct_url: None,
        }
    }

    /// A table of this database.
    #[must_use]
    pub fn table(&self, name: impl Into<String>) -> Table {
        Table::new(self.storage(), name)
    }

    /// The database as a storage.
    #[must_use]
    pub fn storage(&self) -> Arc<dyn Storage> {
        self.storage.clone()
    }
}

impl fmt::Debug for Sql {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sql").field(&self.storage.name()).finish()
    }
}

/// The mode of a connection pooler: PgBouncer's `pool_mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PoolMode {
    /// A connection has one database session for as long as it is open.
    Session,
    /// A connection has a database session only for the length of each transaction. Every statement then runs in a
    /// transaction that applies its settings itself, and no statement is kept prepared.
    Transaction,
}

/// Connection options of a database.
#[must_use]
pub struct SqlOptions {
    pub(crate) url: String,
    pub(crate) max_connections: Option<u32>,
    pub(crate) acquire_timeout: Duration,
    pub(crate) statement_timeout: Duration,
    pub(crate) heavy_query_timeout: Duration,
    pub(crate) pool_mode: Option<PoolMode>,
    pub(crate) direct_url: Option<String>,
    pub(crate) busy_timeout: Duration,
}

impl SqlOptions {
    /// The maximum number of connections: by default 10 on PostgreSQL, and 4 readers beside the writer on SQLite.
    pub const fn max_connections(mut self, connections: u32) -> Self {
        self.max_connections = Some(connections);
        self
    }

    /// How long to wait for a connection; 10 s by default. After that the request fails as unavailable.
    pub const fn acquire_timeout(mut self, timeout: Duration) -> Self {
        self.acquire_timeout = timeout;
        self
    }

    /// How long a statement on SQLite waits for another process's lock; 5 s by default. A change that met a lock is retried
    /// for up to 5 s more.
    pub const fn busy_timeout(mut self, timeout: Duration) -> Self {
        self.busy_timeout = timeout;
        self
    }

    /// The time limit of one statement; 30 s by default. A statement that exceeds it fails as timed out.
    pub const fn statement_timeout(mut self, timeout: Duration) -> Self {
        self.statement_timeout = timeout;
        self
    }

    /// The time limit of queries that read rows without the help of an index, such as a search within texts, a filter
    /// through relations or an exact count; 10 s by default, and never longer than the
    /// [statement timeout](Self::statement_timeout). A query that exceeds it fails as timed out. Such queries share three
    /// quarters of the connections, so that other statements find one.
    pub const fn heavy_query_timeout(mut self, timeout: Duration) -> Self {
        self.heavy_query_timeout = timeout;
        self
    }

    /// The mode of a pooler in front of PostgreSQL. By default it is detected when the application connects;
    /// `pool_mode=transaction` (or `pgbouncer=true`) in the URL sets the same.
    pub const fn pool_mode(mut self, mode: PoolMode) -> Self {
        self.pool_mode = Some(mode);
        self
    }

    /// The URL of the same database that bypasses its pooler, for LISTEN, which needs a session of its own. Without one, an
    /// application behind a pooler in transaction mode polls for the changes of other nodes twice a second.
    pub fn direct_url(mut self, url: impl Into<String>) -> Self {
        self.direct_url = Some(url.into());
        self
    }

    pub(crate) fn limits(&self) -> Limits {
        let statement = self.statement_timeout;
        Limits { statement, heavy: self.heavy_query_timeout.min(statement) }
    }

    /// Connects.
    ///
    /// # Errors
    /// If the URL's scheme is not supported or the database cannot be reached.
    pub async fn connect(self) -> Result<Sql, StorageError> {
        self.connect_boxed().await
    }

    /// Boxed here, so that the crate of the application does not compile the driver's futures again.
    #[inline(never)]
    fn connect_boxed(self) -> Answer<'static, Sql> {
        Box::pin(self.open())
    }

    async fn open(self) -> Result<Sql, StorageError> {
        let scheme = self.url.split_once(':').map_or("", |(scheme, _)| scheme).to_owned();
        let storage: Arc<dyn Storage> = match scheme.as_str() {
            #[cfg(feature = "sqlite")]
            "sqlite" => Arc::new(crate::sqlite::open(&self).await?),
            #[cfg(feature = "postgres")]
            "postgres" | "postgresql" => Arc::new(crate::postgres::open(&self).await?),
            #[cfg(not(feature = "sqlite"))]
            "sqlite" => return Err(missing("sqlite")),
            #[cfg(not(feature = "postgres"))]
            "postgres" | "postgresql" => return Err(missing("postgres")),
            _ => {
                return Err(StorageError::new(ErrorKind::Unsupported)
                    .with_context("url", describe_scheme(&scheme))
                    .with_help("a URL begins with sqlite: or postgres:"));
            }
        };
        Ok(Sql { storage })
    }
}

/// Describes a URL that names no supported database. Without a scheme the URL may be anything, even a password, so it is not
/// repeated.
fn describe_scheme(scheme: &str) -> String {
    if scheme.is_empty() { "has no scheme".to_owned() } else { format!("begins with `{scheme}:`") }
}

impl fmt::Debug for SqlOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL may hold a password.
        f.debug_struct("SqlOptions").field("max_connections", &self.max_connections).finish_non_exhaustive()
    }
}

#[cfg(not(all(feature = "sqlite", feature = "postgres")))]
fn missing(feature: &'static str) -> StorageError {
    StorageError::new(ErrorKind::Unsupported)
        .with_context("driver", feature)
        .with_help(format!("cargo add resourceful --features {feature}"))
}
