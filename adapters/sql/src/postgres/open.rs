//! Opens a connection pool from a URL: directly, or through a pooler.

use std::str::FromStr as _;
use std::time::{Duration, Instant};

use resourceful_contract::{ErrorKind, StorageError};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, SqlSafeStr as _};

use super::PostgresDialect;
use super::connecting::failed;
use super::listener;
use super::pooler::{self, Route};
use super::settings::Settings;
use super::url::ConnectionUrl;
use crate::connect::{PoolMode, SqlOptions};
use crate::sessions::Sessions;
use crate::storage::Database;

/// The default number of prepared statements that a connection keeps.
const STATEMENTS: usize = 512;

/// The setting by which the server notices, while a statement runs, that its client has disconnected. Only servers from
/// version 14 on, on some systems, support it; elsewhere such a statement runs until its `statement_timeout`.
const WATCH: (&str, &str) = ("client_connection_check_interval", "500ms");

/// The longest pause between two connection attempts to a server that is starting or full.
const PAUSE: Duration = Duration::from_millis(500);

pub(crate) async fn open(options: &SqlOptions) -> Result<Database<PostgresDialect>, StorageError> {
    let target = Target::of(&options.url, options, options.pool_mode)?;
    let link = target.link(options.acquire_timeout).await?;
    let listener = match &options.direct_url {
        Some(url) => Some(listener::options(url, options).await?),
        None if link.route == Route::Transaction => {
            tracing::info!(
                "a pooler in transaction mode has no session to LISTEN in: the changes of other nodes are looked for \
                 twice a second, unless `Sql::options(…).direct_url(…)` names a way around the pooler"
            );
            None
        }
        None => Some(link.options.clone()),
    };
    let sessions = link.sessions(&target);
    let pool = PgPoolOptions::new()
        .max_connections(options.max_connections.unwrap_or(10))
        .acquire_timeout(options.acquire_timeout)
        .after_connect({
            let (route, settings) = (link.route, target.settings.clone());
            move |connection, _| {
                let settings = settings.clone();
                Box::pin(async move { begin_session(connection, route, &settings).await })
            }
        })
        .connect_with(link.options.clone())
        .await
        .map_err(|error| failed(error, &link.options))?;
    if let (Some(listener), Some(_)) = (&listener, &options.direct_url) {
        listener::hears(listener, &pool, options).await?;
    }
    Ok(Database::of_one_pool(pool, sessions, options.limits()).listening(listener))
}

/// Applies the settings to a new connection, and checks that they are in force.
async fn begin_session(
    connection: &mut PgConnection,
    route: Route,
    settings: &Settings,
) -> Result<(), sqlx::Error> {
    if route == Route::Transaction {
        return Ok(());
    }
    if route == Route::Session {
        // The session may be one that another client has left with its state.
        connection.execute("DEALLOCATE ALL").await?;
        connection.execute(AssertSqlSafe(settings.statement(false))).await?;
        let missing = settings.missing(connection).await?;
        if !missing.is_empty() {
            let lost =
                format!("settings of a session do not hold through the pooler: {}", missing.join(", "));
            return Err(sqlx::Error::Protocol(lost));
        }
    }
    let (name, value) = WATCH;
    let _ = connection.execute(AssertSqlSafe(format!("SET {name} = '{value}'"))).await;
    Ok(())
}

/// A parsed URL and its settings, before the route to the server is known.
pub(super) struct Target {
    url: ConnectionUrl,
    options: PgConnectOptions,
    settings: Settings,
    pool_mode: Option<PoolMode>,
}

/// A tested route to the server.
pub(super) struct Link {
    pub(super) options: PgConnectOptions,
    pub(super) route: Route,
    /// Whether the server supports [checking its client's connection](WATCH).
    watches: bool,
}

impl Target {
    pub(super) fn of(
        url: &str,
        options: &SqlOptions,
        pool_mode: Option<PoolMode>,
    ) -> Result<Self, StorageError> {
        let url = ConnectionUrl::parse(url)?;
        let connect = parsed(&url.plain, &url)?;
        let settings = Settings::new(options.statement_timeout, connect.get_options());
        let pool_mode = pool_mode.or(url.pool_mode);
        Ok(Self { url, options: connect, settings, pool_mode })
    }

    /// Connects, detects the pooler's mode, and checks that the settings that statements rely on are in force.
    pub(super) async fn link(&self, timeout: Duration) -> Result<Link, StorageError> {
        let failed = |error| failed(error, &self.options);
        let is_pooled = self.pool_mode == Some(PoolMode::Transaction);
        // A pooler may refuse startup options; when the URL declares a pooler, none are sent.
        let marked =
            self.options.clone().options(self.settings.startup().iter().map(|(name, value)| (name, value)));
        let marked = marked.options([(pooler::MARK, "yes")]);
        let connected = if is_pooled { None } else { Some(patiently(&marked, timeout).await) };
        let plain = parsed(&self.url.without_options, &self.url)?.extra_float_digits(None);
        let (mut connection, options) = match connected {
            Some(Ok(connection)) => (connection, marked),
            Some(Err(error)) if !is_of_options(&error) => return Err(failed(error)),
            _ => (patiently(&plain, timeout).await.map_err(failed)?, plain.clone()),
        };
        let decided = async {
            let link = if is_pooled {
                Link { options, route: Route::Transaction, watches: false }
            } else if pooler::is_direct(&mut connection).await.map_err(failed)? {
                Link { options, route: Route::Direct, watches: false }
            } else {
                let route = pooler::route(&mut connection, &plain).await.map_err(failed)?;
                Link { options: plain, route, watches: false }
            };
            self.checked(link, &mut connection).await
        };
        let decided = tokio::time::timeout(timeout + pooler::PATIENCE, decided).await;
        let link = decided.map_err(|_| undecided())??;
        let _ = connection.close().await;
        Ok(link)
    }

    /// Checks that a link is what the URL declares, and that the settings are in force on it.
    async fn checked(&self, mut link: Link, connection: &mut PgConnection) -> Result<Link, StorageError> {
        if link.route == Route::Transaction && self.pool_mode == Some(PoolMode::Session) {
            return Err(StorageError::new(ErrorKind::Unsupported)
                .with_context("pool_mode", "the pooler is in transaction mode, and the URL says session")
                .with_help("`pool_mode=transaction` in the URL, or `pool_mode = session` in the pooler"));
        }
        if link.route != Route::Direct {
            tracing::info!(route = ?link.route, "PostgreSQL is reached through a pooler");
        }
        let failed = |error| failed(error, &self.options);
        let missing = match link.route {
            Route::Direct => self.settings.missing(connection).await,
            // Each connection of the pool checks them itself as well.
            Route::Session => {
                return begin_session(connection, link.route, &self.settings)
                    .await
                    .map_err(failed)
                    .map(|()| link);
            }
            Route::Transaction => {
                let begin = AssertSqlSafe(self.settings.begin()).into_sql_str();
                let mut transaction = connection.begin_with(begin).await.map_err(failed)?;
                let missing = self.settings.missing(&mut transaction).await;
                let (name, value) = WATCH;
                let watch = AssertSqlSafe(format!("SET LOCAL {name} = '{value}'"));
                link.watches = transaction.execute(watch).await.is_ok();
                transaction.rollback().await.map_err(failed)?;
                missing
            }
        };
        let missing = missing.map_err(failed)?;
        if missing.is_empty() {
            return Ok(link);
        }
        Err(StorageError::new(ErrorKind::Unavailable).with_context("settings", missing.join(", ")).with_help(
            "what stands between the application and PostgreSQL takes settings away: let it pass \
                        startup options and `set_config`, or go around it",
        ))
    }
}

impl Link {
    fn sessions(&self, target: &Target) -> Sessions {
        let sessions = Sessions::of_connections::<PostgresDialect>();
        let keep_statements = target.url.statement_cache_capacity != Some(0);
        if self.route != Route::Transaction {
            return Sessions { keep_statements, ..sessions };
        }
        let (name, value) = WATCH;
        let settings = target.settings.clone();
        let settings = if self.watches { settings.and(name, value) } else { settings };
        let begin: std::sync::Arc<str> = settings.begin().into();
        let begin = AssertSqlSafe(begin).into_sql_str();
        Sessions { begin, are_pooled: true, keep_statements: false, ..sessions }
    }
}

/// The error of a pooler that is too busy for its mode to be detected.
fn undecided() -> StorageError {
    StorageError::new(ErrorKind::Unavailable)
        .with_context("pooler", "gave no server connection in time")
        .with_help("the pooler's server connections are all in use: a larger `default_pool_size` there, or fewer clients")
}

/// The driver's connection options of a URL.
fn parsed(plain: &str, url: &ConnectionUrl) -> Result<PgConnectOptions, StorageError> {
    let options = PgConnectOptions::from_str(plain).map_err(|error| {
        let help = "a URL is postgres://user:password@host:port/database?option=value, and what is none of these \
                    has %-escapes";
        StorageError::new(ErrorKind::Unsupported).with_context("url", "cannot be read").with_source(error).with_help(help)
    })?;
    Ok(match url.statement_cache_capacity {
        Some(_) => options,
        None => options.statement_cache_capacity(STATEMENTS),
    })
}

/// Connects, with retries until the server accepts a connection or this time is over. The last error is returned.
async fn patiently(options: &PgConnectOptions, timeout: Duration) -> Result<PgConnection, sqlx::Error> {
    let end = Instant::now() + timeout;
    let mut pause = Duration::from_millis(10);
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let error = match tokio::time::timeout(left, options.connect()).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => error,
            Err(_) => {
                let late = format!("no answer within {timeout:?}");
                return Err(sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, late)));
            }
        };
        if !is_passing(&error) || Instant::now() + pause >= end {
            return Err(error);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE);
    }
}

/// Whether a server that refuses connections now may soon accept one.
fn is_passing(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(error) => error.kind() == std::io::ErrorKind::ConnectionRefused,
        sqlx::Error::Database(error) => error.is_transient_in_connect_phase(),
        _ => false,
    }
}

/// Whether a connection may have been refused because of its startup options: by a pooler, with a message of its own, as a
/// protocol violation or as an unsupported feature.
fn is_of_options(error: &sqlx::Error) -> bool {
    let state = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    state.is_some_and(|state| ["08", "0A"].iter().any(|class| state.starts_with(class)))
}
