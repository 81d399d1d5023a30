//! Errors of failed connections, with their fixes.

use std::io;

use resourceful_contract::{ErrorKind, StorageError};
use sqlx::postgres::PgConnectOptions;

/// The error of a failed connection, with the matching fix.
pub(super) fn to_storage_error(error: sqlx::Error, options: &PgConnectOptions) -> StorageError {
    let help = help(&error, options);
    let failed = StorageError::new(ErrorKind::Unavailable)
        .with_context("server", describe_server(options))
        .with_source(error);
    match help {
        Some(help) => failed.with_help(help),
        None => failed,
    }
}

/// The server and database of a connection, without the password.
fn describe_server(options: &PgConnectOptions) -> String {
    let database = options.get_database().unwrap_or(options.get_username());
    let host = match options.get_socket() {
        Some(socket) => socket.display().to_string(),
        None => options.get_host().to_owned(),
    };
    format!("{host}, port {}, database {database}, user {}", options.get_port(), options.get_username())
}

fn help(error: &sqlx::Error, options: &PgConnectOptions) -> Option<String> {
    let user = options.get_username();
    let help = match error {
        sqlx::Error::Configuration(_) => {
            "a URL is postgres://user:password@host:port/database?option=value, \
             with %-escapes for what is none of these"
                .to_owned()
        }
        sqlx::Error::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            "nothing listens there: start PostgreSQL, or correct host and port of the URL".to_owned()
        }
        sqlx::Error::Io(error) if error.kind() == io::ErrorKind::NotFound => {
            "there is no such socket: start PostgreSQL, or name a host".to_owned()
        }
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut => {
            "the server does not answer: correct host and port of the URL, and let firewalls pass it"
                .to_owned()
        }
        sqlx::Error::Tls(_) => {
            "the server's TLS does not fit the URL's `sslmode`, or its certificate is not \
             trusted (`sslrootcert`)"
                .to_owned()
        }
        sqlx::Error::Database(database) => {
            return help_by_sqlstate(&database.code()?, database.message(), user, options);
        }
        _ => return None,
    };
    Some(help)
}

fn help_by_sqlstate(state: &str, message: &str, user: &str, options: &PgConnectOptions) -> Option<String> {
    let help = match state {
        "28P01" | "28000" => format!("correct user and password of the URL, or what pg_hba.conf admits `{user}` to"),
        "3D000" => {
            let database = options.get_database().unwrap_or(user);
            format!("create the database (`createdb {database}`), or correct its name in the URL")
        }
        "42501" => format!("GRANT CONNECT ON DATABASE … TO \"{user}\""),
        "53300" => "the server's connection limit is reached: lower `max_connections` of the application's \
             nodes (`Sql::options`), raise it on the server, or connect through a pooler"
            .to_owned(),
        "57P03" => "the server is starting up, shutting down or recovering: try again".to_owned(),
        "08P01" if message.contains("startup parameter") => {
            "the pooler refuses a startup parameter: leave it out (PGOPTIONS, `options` in the URL), or name it in \
             PgBouncer's `ignore_startup_parameters`"
                .to_owned()
        }
        "08P01" if message.contains("statement pooling") => {
            "a pooler must keep a transaction on one server connection: `pool_mode = transaction` or `session` there"
                .to_owned()
        }
        "08P01" if message.contains("no such database") => {
            "the pooler knows no such database: name it in the [databases] section of its configuration".to_owned()
        }
        _ => return None,
    };
    Some(help)
}
