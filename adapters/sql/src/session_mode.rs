//! How connections map to database sessions.
//!
//! A direct connection to the database is one session for as long as it is open: settings and prepared statements stay for
//! later statements. Behind a pooler in transaction mode (PgBouncer's `pool_mode = transaction`, and others of its kind) a
//! connection has a session for the length of a transaction only, and its next statement may reach another one. Then
//!
//! - every statement with arguments runs inside of a transaction, as the driver prepares, binds and executes it in
//!   messages that the pooler would otherwise send to several sessions,
//! - no statement is kept prepared,
//! - settings are those of a transaction (`SET LOCAL`), made as it begins, and
//! - LISTEN is not used on such a connection.
//!
//! That costs a read three more messages. A direct connection to the database pays nothing for it.

use std::ops::{Deref, DerefMut};

use resourceful_contract::{ErrorKind, StorageError};
use sqlx::{Database, SqlStr, Transaction};

use crate::dialect::Dialect;

/// How the connections of a pool map to sessions.
#[derive(Clone, Debug)]
pub(crate) struct SessionMode {
    /// The statements that begin a transaction that may write.
    pub(crate) begin: SqlStr,
    /// Whether a pooler assigns a session to each transaction.
    pub(crate) is_transaction_pooled: bool,
    /// Whether a connection keeps prepared statements.
    pub(crate) has_statement_cache: bool,
    /// Whether a `BEGIN` whose future was dropped may have begun a transaction that the driver does not end.
    pub(crate) begin_outlives_drop: bool,
    /// Whether another connection leads to the same rows; not so for an in-memory database, which is its connection.
    pub(crate) is_replaceable: bool,
}

impl SessionMode {
    /// One session for each connection.
    pub(crate) const fn direct<D: Dialect>() -> Self {
        Self {
            begin: SqlStr::from_static(D::BEGIN),
            is_transaction_pooled: false,
            has_statement_cache: true,
            begin_outlives_drop: D::RUNS_AFTER_DROP,
            is_replaceable: true,
        }
    }
}

/// Statements of one session: the connection itself, or a transaction where a pooler could send them to different sessions.
pub(crate) enum Scope<'c, Db: Database> {
    Session(&'c mut Db::Connection),
    Transaction(Transaction<'c, Db>),
}

impl<Db: Database> Scope<'_, Db> {
    /// Ends the scope: a transaction is committed after a success and rolled back after a failure, unless its statement may
    /// still run. `failed` maps a failure of the commit.
    pub(crate) async fn end<T>(
        self,
        outcome: Result<T, StorageError>,
        failed: impl FnOnce(sqlx::Error) -> StorageError,
    ) -> Result<T, StorageError> {
        let Self::Transaction(transaction) = self else { return outcome };
        match &outcome {
            Ok(_) => transaction.commit().await.map_err(failed)?,
            // The lease closes the connection, which ends the statement.
            Err(error) if error.kind() == ErrorKind::TimedOut => {}
            // If this fails as well, the connection is lost, which its next statement detects.
            Err(_) => drop(transaction.rollback().await),
        }
        outcome
    }
}

impl<Db: Database> Deref for Scope<'_, Db> {
    type Target = Db::Connection;

    fn deref(&self) -> &Db::Connection {
        match self {
            Self::Session(connection) => connection,
            Self::Transaction(transaction) => transaction,
        }
    }
}

impl<Db: Database> DerefMut for Scope<'_, Db> {
    fn deref_mut(&mut self) -> &mut Db::Connection {
        match self {
            Self::Session(connection) => connection,
            Self::Transaction(transaction) => transaction,
        }
    }
}
