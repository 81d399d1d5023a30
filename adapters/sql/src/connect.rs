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
    /// Connects to `sqlite://path` (made where it is absent), `sqlite::memory:` or, with the feature `postgres`,
    /// `postgres://user:password@host/database`.
    ///
    /// # Errors
    /// Where the URL is of another kind, or the database cannot be reached.
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

/// Settings of a database's connections.
#[must_use]
pub struct SqlOptions {
    pub(crate) url: String,
    pub(crate) max_connections: Option<u32>,
    pub(crate) acquire_timeout: Duration,
    pub(crate) statement_timeout: Duration,
    pub(crate) heavy_query_timeout: Duration,
    #[cfg_attr(not(feature = "sqlite"), expect(dead_code, reason = "a setting of SQLite"))]
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

    pub(crate) fn limits(&self) -> Limits {
        let statement = self.statement_timeout;
        Limits { statement, heavy: self.heavy_query_timeout.min(statement) }
    }

    /// Connects.
    ///
    /// # Errors
    /// Where the URL is of another kind, or the database cannot be reached.
    pub async fn connect(self) -> Result<Sql, StorageError> {
        let scheme = self.url.split(':').next().unwrap_or_default().to_owned();
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
                    .with_context("url", scheme)
                    .with_context("mend", "a URL begins with sqlite: or postgres:"));
            }
        };
        Ok(Sql { storage })
    }
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
        .with_context("mend", format!("cargo add resourceful --features {feature}"))
}
