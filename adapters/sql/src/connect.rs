//! From a URL to a database.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use resourceful_contract::{ErrorKind, Storage, StorageError, Table};

use crate::storage::Limits;

/// A database that speaks SQL. Clones share its connections.
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
    /// Connects to `sqlite://path` (made where it is absent, unless `?mode=ro` says to read only), `sqlite::memory:` or,
    /// with the feature `postgres`, `postgres://user:password@host/database`, directly or through a pooler.
    ///
    /// A URL of PostgreSQL takes the driver's parameters (`sslmode`, `application_name`, `options`,
    /// `statement-cache-capacity` …) and `pool_mode=session` or `pool_mode=transaction` (`pgbouncer=true`), which says
    /// what a pooler gives a connection ([`PoolMode`]).
    ///
    /// # Errors
    /// Where the URL is of another kind, or the database cannot be reached. The error's `Debug` is a report with the
    /// fix that fits.
    pub async fn connect(url: &str) -> Result<Self, StorageError> {
        Self::options(url).connect().await
    }

    /// The same, with settings.
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

/// What a pooler gives a connection for its own: PgBouncer's `pool_mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PoolMode {
    /// A session of the database, for as long as the connection is open.
    Session,
    /// A session for the length of each transaction. Every statement then runs in a transaction that makes its settings
    /// itself, and none is kept prepared.
    Transaction,
}

/// Settings of a database's connections.
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
    /// The most connections: 10 on PostgreSQL, and 4 readers beside the writer on SQLite, by default.
    pub const fn max_connections(mut self, connections: u32) -> Self {
        self.max_connections = Some(connections);
        self
    }

    /// The longest to wait for a connection; 10 s by default. Longer is unavailable.
    pub const fn acquire_timeout(mut self, timeout: Duration) -> Self {
        self.acquire_timeout = timeout;
        self
    }

    /// The longest that a statement on SQLite waits for another process's lock; 5 s by default. A change that met one is
    /// tried again for up to 5 s more.
    pub const fn busy_timeout(mut self, timeout: Duration) -> Self {
        self.busy_timeout = timeout;
        self
    }

    /// The longest that one statement may take; 30 s by default. Longer ends it as timed out.
    pub const fn statement_timeout(mut self, timeout: Duration) -> Self {
        self.statement_timeout = timeout;
        self
    }

    /// The longest that a query may take that looks at rows no index leads to, such as a search within texts, a filter
    /// through relations or an exact count; 10 s by default, and never longer than the
    /// [statement timeout](Self::statement_timeout). Longer ends it as timed out. Such queries share three quarters of
    /// the connections, so that others find one.
    pub const fn heavy_query_timeout(mut self, timeout: Duration) -> Self {
        self.heavy_query_timeout = timeout;
        self
    }

    /// What a pooler before PostgreSQL gives a connection. By default it is found out when the application connects;
    /// `pool_mode=transaction` (or `pgbouncer=true`) in the URL says the same.
    pub const fn pool_mode(mut self, mode: PoolMode) -> Self {
        self.pool_mode = Some(mode);
        self
    }

    /// The URL of the same database around its pooler, for LISTEN, which needs a session of its own. Without one, an
    /// application behind a pooler in transaction mode looks for the changes of other nodes twice a second.
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
    /// Where the URL is of another kind, or the database cannot be reached.
    pub async fn connect(self) -> Result<Sql, StorageError> {
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
                    .with_context("url", unknown(&scheme))
                    .with_help("a URL begins with sqlite: or postgres:"));
            }
        };
        Ok(Sql { storage })
    }
}

/// What a URL begins with that names no database. Without a scheme it may be anything, a password as well.
fn unknown(scheme: &str) -> String {
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
