//! Opens a connection pool from a URL: directly, or through a pooler.

use std::str::FromStr as _;
use std::time::{Duration, Instant};

use resourceful_contract::{ErrorKind, StorageError};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, SqlSafeStr as _};

use super::PostgresDialect;
use super::connect_error::to_storage_error;
use super::direct_url;
use super::pooler;
use super::pooler::Route;
use super::settings::Settings;
use super::url::ConnectionUrl;
use crate::connect::{PoolMode, SqlOptions};
use crate::session_mode::SessionMode;
use crate::storage::Database;

/// The default number of prepared statements that a connection keeps.
const STATEMENT_CACHE_CAPACITY: usize = 512;

/// The setting by which the server notices, while a statement runs, that its client has disconnected. Only servers from
/// version 14 on, on some systems, support it; elsewhere such a statement runs until its `statement_timeout`.
const DISCONNECT_CHECK: (&str, &str) = ("client_connection_check_interval", "500ms");

/// The longest pause between two connection attempts to a server that is starting or full.
const MAX_RETRY_DELAY: Duration = Duration::from_millis(500);

pub(crate) async fn open(options: &SqlOptions) -> Result<Database<PostgresDialect>, StorageError> {
    let target = ConnectTarget::parse(&options.url, options, options.pool_mode)?;
    let verified = target.detect_route(options.acquire_timeout).await?;
    let listener = match &options.direct_url {
        Some(url) => Some(direct_url::listen_options(url, options).await?),
        None if verified.route == Route::Transaction => {
            tracing::info!(
                "a pooler in transaction mode has no session to LISTEN in: the changes of other nodes are looked for \
                 twice a second, unless `Sql::options(…).direct_url(…)` names a way around the pooler"
            );
            None
        }
        None => Some(verified.options.clone()),
    };
    let sessions = verified.session_mode(&target);
    let pool = PgPoolOptions::new()
        .max_connections(options.max_connections.unwrap_or(10))
        .acquire_timeout(options.acquire_timeout)
        .after_connect({
            let (route, settings) = (verified.route, target.settings.clone());
            move |connection, _| {
                let settings = settings.clone();
                Box::pin(async move { init_session(connection, route, &settings).await })
            }
        })
        .connect_with(verified.options.clone())
        .await
        .map_err(|error| to_storage_error(error, &verified.options))?;
    if let (Some(listener), Some(_)) = (&listener, &options.direct_url) {
        direct_url::verify_same_database(listener, &pool, options).await?;
    }
    Ok(Database::with_one_pool(pool, sessions, options.limits()).with_listener(listener))
}

/// Applies the settings to a new connection, and checks that they are in force.
async fn init_session(
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
        connection.execute(AssertSqlSafe(settings.set_statement(false))).await?;
        let missing = settings.missing(connection).await?;
        if !missing.is_empty() {
            let lost =
                format!("settings of a session do not hold through the pooler: {}", missing.join(", "));
            return Err(sqlx::Error::Protocol(lost));
        }
    }
    let (name, value) = DISCONNECT_CHECK;
    let _ = connection.execute(AssertSqlSafe(format!("SET {name} = '{value}'"))).await;
    Ok(())
}

/// A parsed URL and its settings, before the route to the server is known.
pub(super) struct ConnectTarget {
    url: ConnectionUrl,
    options: PgConnectOptions,
    settings: Settings,
    pool_mode: Option<PoolMode>,
}

/// A tested route to the server.
pub(super) struct VerifiedRoute {
    pub(super) options: PgConnectOptions,
    pub(super) route: Route,
    /// Whether the server supports [checking its client's connection](WATCH).
    has_disconnect_check: bool,
}

impl ConnectTarget {
    pub(super) fn parse(
        url: &str,
        options: &SqlOptions,
        pool_mode: Option<PoolMode>,
    ) -> Result<Self, StorageError> {
        let url = ConnectionUrl::parse(url)?;
        let connect = parse_options(&url.driver_url, &url)?;
        let settings = Settings::new(options.statement_timeout, connect.get_options());
        let pool_mode = pool_mode.or(url.pool_mode);
        Ok(Self { url, options: connect, settings, pool_mode })
    }

    /// Connects, detects the pooler's mode, and checks that the settings that statements rely on are in force.
    pub(super) async fn detect_route(&self, timeout: Duration) -> Result<VerifiedRoute, StorageError> {
        let failed = |error| to_storage_error(error, &self.options);
        let is_pooled = self.pool_mode == Some(PoolMode::Transaction);
        // A pooler may refuse startup options; when the URL declares a pooler, none are sent.
        let probe_options = self
            .options
            .clone()
            .options(self.settings.startup_options().iter().map(|(name, value)| (name, value)));
        let probe_options = probe_options.options([(pooler::DIRECT_MARKER, "yes")]);
        let connected =
            if is_pooled { None } else { Some(connect_with_retry(&probe_options, timeout).await) };
        let plain = parse_options(&self.url.without_options, &self.url)?.extra_float_digits(None);
        let (mut connection, options) = match connected {
            Some(Ok(connection)) => (connection, probe_options),
            Some(Err(error)) if !is_option_error(&error) => return Err(failed(error)),
            _ => (connect_with_retry(&plain, timeout).await.map_err(failed)?, plain.clone()),
        };
        let detection = async {
            let verified = if is_pooled {
                VerifiedRoute { options, route: Route::Transaction, has_disconnect_check: false }
            } else if pooler::is_direct(&mut connection).await.map_err(failed)? {
                VerifiedRoute { options, route: Route::Direct, has_disconnect_check: false }
            } else {
                let route = pooler::detect_mode(&mut connection, &plain).await.map_err(failed)?;
                VerifiedRoute { options: plain, route, has_disconnect_check: false }
            };
            self.verify(verified, &mut connection).await
        };
        let detection = tokio::time::timeout(timeout + pooler::SECOND_CONNECTION_TIMEOUT, detection).await;
        let verified = detection.map_err(|_| busy_pooler_error())??;
        let _ = connection.close().await;
        Ok(verified)
    }

    /// Checks that a link is what the URL declares, and that the settings are in force on it.
    async fn verify(
        &self,
        mut verified: VerifiedRoute,
        connection: &mut PgConnection,
    ) -> Result<VerifiedRoute, StorageError> {
        if verified.route == Route::Transaction && self.pool_mode == Some(PoolMode::Session) {
            return Err(StorageError::new(ErrorKind::Unsupported)
                .with_context("pool_mode", "the pooler is in transaction mode, and the URL says session")
                .with_help("`pool_mode=transaction` in the URL, or `pool_mode = session` in the pooler"));
        }
        if verified.route != Route::Direct {
            tracing::info!(route = ?verified.route, "PostgreSQL is reached through a pooler");
        }
        let failed = |error| to_storage_error(error, &self.options);
        let missing = match verified.route {
            Route::Direct => self.settings.missing(connection).await,
            // Each connection of the pool checks them itself as well.
            Route::Session => {
                return init_session(connection, verified.route, &self.settings)
                    .await
                    .map_err(failed)
                    .map(|()| verified);
            }
            Route::Transaction => {
                let begin = AssertSqlSafe(self.settings.begin_statement()).into_sql_str();
                let mut transaction = connection.begin_with(begin).await.map_err(failed)?;
                let missing = self.settings.missing(&mut transaction).await;
                let (name, value) = DISCONNECT_CHECK;
                let watch = AssertSqlSafe(format!("SET LOCAL {name} = '{value}'"));
                verified.has_disconnect_check = transaction.execute(watch).await.is_ok();
                transaction.rollback().await.map_err(failed)?;
                missing
            }
        };
        let missing = missing.map_err(failed)?;
        if missing.is_empty() {
            return Ok(verified);
        }
        Err(StorageError::new(ErrorKind::Unavailable).with_context("settings", missing.join(", ")).with_help(
            "what stands between the application and PostgreSQL drops settings: let it pass \
                        startup options and `set_config`, or go around it",
        ))
    }
}

impl VerifiedRoute {
    fn session_mode(&self, target: &ConnectTarget) -> SessionMode {
        let sessions = SessionMode::direct::<PostgresDialect>();
        let has_statement_cache = target.url.statement_cache_capacity != Some(0);
        if self.route != Route::Transaction {
            return SessionMode { has_statement_cache, ..sessions };
        }
        let (name, value) = DISCONNECT_CHECK;
        let settings = target.settings.clone();
        let settings = if self.has_disconnect_check { settings.with(name, value) } else { settings };
        let begin: std::sync::Arc<str> = settings.begin_statement().into();
        let begin = AssertSqlSafe(begin).into_sql_str();
        SessionMode { begin, is_transaction_pooled: true, has_statement_cache: false, ..sessions }
    }
}

/// The error of a pooler that is too busy for its mode to be detected.
fn busy_pooler_error() -> StorageError {
    StorageError::new(ErrorKind::Unavailable)
        .with_context("pooler", "gave no server connection in time")
        .with_help("the pooler's server connections are all in use: a larger `default_pool_size` there, or fewer clients")
}

/// The driver's connection options of a URL.
fn parse_options(plain: &str, url: &ConnectionUrl) -> Result<PgConnectOptions, StorageError> {
    let options = PgConnectOptions::from_str(plain).map_err(|error| {
        let help = "a URL is postgres://user:password@host:port/database?option=value, and what is none of these \
                    has %-escapes";
        StorageError::new(ErrorKind::Unsupported).with_context("url", "cannot be read").with_source(error).with_help(help)
    })?;
    Ok(match url.statement_cache_capacity {
        Some(_) => options,
        None => options.statement_cache_capacity(STATEMENT_CACHE_CAPACITY),
    })
}

/// Connects, with retries until the server accepts a connection or this time is over. The last error is returned.
async fn connect_with_retry(
    options: &PgConnectOptions,
    timeout: Duration,
) -> Result<PgConnection, sqlx::Error> {
    let deadline = Instant::now() + timeout;
    let mut pause = Duration::from_millis(10);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let error = match tokio::time::timeout(left, options.connect()).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => error,
            Err(_) => {
                let late = format!("no answer within {timeout:?}");
                return Err(sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, late)));
            }
        };
        if !is_retryable(&error) || Instant::now() + pause >= deadline {
            return Err(error);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(MAX_RETRY_DELAY);
    }
}

/// Whether a server that refuses connections now may soon accept one.
fn is_retryable(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(error) => error.kind() == std::io::ErrorKind::ConnectionRefused,
        sqlx::Error::Database(error) => error.is_transient_in_connect_phase(),
        _ => false,
    }
}

/// Whether a connection may have been refused because of its startup options: by a pooler, with a message of its own, as a
/// protocol violation or as an unsupported feature.
fn is_option_error(error: &sqlx::Error) -> bool {
    let state = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    state.is_some_and(|state| ["08", "0A"].iter().any(|class| state.starts_with(class)))
}
