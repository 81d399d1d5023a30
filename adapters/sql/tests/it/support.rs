//! The databases that tests run on.

use resourceful_sql::Sql;
use tempfile::TempDir;

/// A database of its own for one test, or tables of its own in one.
pub(crate) struct TestDatabase {
    pub(crate) url: String,
    /// What the names of this test's tables begin with.
    pub(crate) prefix: String,
    _folder: Option<TempDir>,
}

impl TestDatabase {
    pub(crate) async fn connect(&self) -> Sql {
        Sql::connect(&self.url).await.unwrap()
    }

    pub(crate) fn table(&self, name: &str) -> String {
        format!("{}_{name}", self.prefix)
    }

    #[cfg(feature = "sqlite")]
    pub(crate) fn sqlite_file() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("test.db").display());
        Self { url, prefix: "t".to_owned(), _folder: Some(folder) }
    }

    #[cfg(feature = "sqlite")]
    pub(crate) fn sqlite_memory() -> Self {
        Self { url: "sqlite::memory:".to_owned(), prefix: "t".to_owned(), _folder: None }
    }

    /// `None`, and a word about it, where there is no PostgreSQL and none is required.
    #[cfg(feature = "postgres")]
    pub(crate) fn postgres(what: &str) -> Option<Self> {
        let required =
            std::env::var("RESOURCEFUL_TEST_REQUIRE").is_ok_and(|names| names.contains("postgres"));
        let Ok(url) = std::env::var("TEST_POSTGRES_URL") else {
            assert!(!required, "TEST_POSTGRES_URL must be set: this run requires PostgreSQL");
            println!("not run: {what} on PostgreSQL, for want of TEST_POSTGRES_URL (tests/run sets it)");
            return None;
        };
        // Tables of one run are distinguished from those of another on the same server.
        let prefix = format!("t{}", &uuid::Uuid::now_v7().simple().to_string()[..12]);
        Some(Self { url, prefix, _folder: None })
    }

    /// The same tables, reached by another URL.
    #[cfg(feature = "postgres")]
    pub(crate) fn with_url(&self, url: &str) -> Self {
        Self { url: url.to_owned(), prefix: self.prefix.clone(), _folder: None }
    }

    /// Runs statements on a connection of their own.
    pub(crate) async fn execute(&self, statements: &str) {
        use sqlx::{AssertSqlSafe, Connection as _, raw_sql};
        let statements = AssertSqlSafe(statements.to_owned());
        if self.is_postgres() {
            #[cfg(feature = "postgres")]
            {
                let mut connection = sqlx::PgConnection::connect(&self.url).await.unwrap();
                raw_sql(statements).execute(&mut connection).await.unwrap();
                connection.close().await.unwrap();
            }
        } else {
            #[cfg(feature = "sqlite")]
            {
                let url = format!("{}?mode=rwc", self.url);
                let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
                raw_sql(statements).execute(&mut connection).await.unwrap();
                connection.close().await.unwrap();
            }
        }
    }

    /// The URL of connections that PostgreSQL's `pg_stat_activity` lists under this place's prefix, apart from those of
    /// other tests.
    pub(crate) fn tagged_url(&self) -> String {
        if !self.is_postgres() {
            return self.url.clone();
        }
        let separator = if self.url.contains('?') { '&' } else { '?' };
        format!("{}{separator}application_name={}", self.url, self.prefix)
    }

    pub(crate) fn is_postgres(&self) -> bool {
        self.url.starts_with("postgres")
    }

    /// Every database with files or a server behind it.
    pub(crate) fn all_durable(what: &str) -> Vec<Self> {
        let mut test_dbs = Vec::new();
        #[cfg(feature = "sqlite")]
        test_dbs.push(Self::sqlite_file());
        #[cfg(feature = "postgres")]
        test_dbs.extend(Self::postgres(what));
        test_dbs
    }
}
