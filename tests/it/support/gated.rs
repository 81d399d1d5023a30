//! A storage that counts what it is asked for, and can be held up.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use resourceful::adapter::Storage;
use resourceful_contract::{
    Answer, Capabilities, ChangeSet, Committed, ErrorKind, Migrated, Migration, Mismatch, Query, Rows,
    Schema, SqlDialect, StorageError,
};
use tokio::sync::watch;

/// Over another storage.
#[derive(Debug)]
pub(crate) struct Gated {
    storage: Arc<dyn Storage>,
    table: &'static str,
    /// How often rows of the table were asked for.
    fetched: AtomicUsize,
    /// How many that were read are held, and whether any are to be.
    held: watch::Sender<usize>,
    is_open: watch::Sender<bool>,
    fails: AtomicBool,
    /// How commits that concern the table are refused, before anything is written.
    refusal: Mutex<Option<ErrorKind>>,
    /// The same of commits that were made, and are not told of yet.
    committed: watch::Sender<usize>,
    is_commit_open: watch::Sender<bool>,
}

impl Gated {
    pub(crate) fn over(storage: Arc<dyn Storage>, table: &'static str) -> Arc<Self> {
        Arc::new(Self {
            storage,
            table,
            fetched: AtomicUsize::new(0),
            held: watch::Sender::new(0),
            is_open: watch::Sender::new(true),
            fails: AtomicBool::new(false),
            refusal: Mutex::new(None),
            committed: watch::Sender::new(0),
            is_commit_open: watch::Sender::new(true),
        })
    }

    pub(crate) fn fetched(&self) -> usize {
        self.fetched.load(Ordering::SeqCst)
    }

    /// Holds up whatever has read rows of the table from here on, until it is opened again.
    pub(crate) fn hold_reads(&self) {
        self.is_open.send_replace(false);
    }

    /// Has whatever reads rows of the table fail from here on, or not any more.
    pub(crate) fn set_failing(&self, fails: bool) {
        self.fails.store(fails, Ordering::SeqCst);
    }

    /// Has whatever changes rows of the table be refused from here on.
    pub(crate) fn refuse_commits(&self, kind: ErrorKind) {
        *self.refusal.lock().unwrap() = Some(kind);
    }

    pub(crate) fn release_reads(&self) {
        self.is_open.send_replace(true);
    }

    /// Done when so many are held.
    pub(crate) async fn wait_until_held(&self, count: usize) {
        self.held.subscribe().wait_for(|held| *held >= count).await.unwrap();
    }

    /// Has commits that were made not be told of.
    pub(crate) fn hold_commits(&self) {
        self.is_commit_open.send_replace(false);
    }

    /// Done when so many were made in silence.
    pub(crate) async fn wait_until_committed(&self, count: usize) {
        self.committed.subscribe().wait_for(|committed| *committed >= count).await.unwrap();
    }
}

/// Why reads fail, in two layers as drivers have them.
#[derive(Debug, thiserror::Error)]
#[error("the pool has no connection")]
struct PoolError(#[source] GateClosed);

#[derive(Debug, thiserror::Error)]
#[error("the gate is shut")]
struct GateClosed;

impl Storage for Gated {
    fn name(&self) -> &'static str {
        self.storage.name()
    }

    fn dialect(&self) -> Option<SqlDialect> {
        self.storage.dialect()
    }

    fn capabilities(&self) -> Capabilities {
        self.storage.capabilities()
    }

    fn create_table_if_missing<'a>(&'a self, schema: &'a Arc<Schema>) -> Answer<'a, ()> {
        self.storage.create_table_if_missing(schema)
    }

    fn migrate<'a>(&'a self, migrations: &'a [Migration], apply: bool) -> Answer<'a, Migrated> {
        self.storage.migrate(migrations, apply)
    }

    fn check<'a>(&'a self, schema: &'a Arc<Schema>) -> Answer<'a, Vec<Mismatch>> {
        self.storage.check(schema)
    }

    fn fetch<'a>(&'a self, query: &'a Query, out: &'a mut Vec<u8>) -> Answer<'a, Rows> {
        Box::pin(async move {
            let rows = self.storage.fetch(query, out).await;
            if query.schema.table == self.table {
                self.fetched.fetch_add(1, Ordering::SeqCst);
                if !*self.is_open.borrow() {
                    self.held.send_modify(|held| *held += 1);
                    self.is_open.subscribe().wait_for(|open| *open).await.unwrap();
                }
                if self.fails.load(Ordering::SeqCst) {
                    return Err(StorageError::new(ErrorKind::Unavailable).with_source(PoolError(GateClosed)));
                }
            }
            rows
        })
    }

    fn commit(&self, changes: ChangeSet) -> Answer<'_, Committed> {
        Box::pin(async move {
            let concerns = changes.changes.iter().any(|change| change.schema.table == self.table);
            let refusal = *self.refusal.lock().unwrap();
            if let (true, Some(kind)) = (concerns, refusal) {
                return Err(StorageError::new(kind).at_change(0));
            }
            let committed = self.storage.commit(changes).await;
            if concerns && !*self.is_commit_open.borrow() {
                self.committed.send_modify(|committed| *committed += 1);
                self.is_commit_open.subscribe().wait_for(|tells| *tells).await.unwrap();
            }
            committed
        })
    }

    fn ready(&self) -> Answer<'_, ()> {
        self.storage.ready()
    }

    fn close(&self) -> Answer<'_, ()> {
        self.storage.close()
    }
}

/// A storage that takes its time, now before and now after it has done what it was asked for.
#[derive(Debug)]
pub(crate) struct JitteryStorage(Arc<dyn Storage>, AtomicUsize);

impl JitteryStorage {
    pub(crate) fn over(storage: Arc<dyn Storage>) -> Arc<Self> {
        Arc::new(Self(storage, AtomicUsize::new(0)))
    }

    /// Lets others go first, sometimes for long.
    async fn yield_at_random(&self) {
        let turn = self.1.fetch_add(1, Ordering::Relaxed);
        let pause = [0, 0, 3, 0, 17, 1, 0, 41][turn.wrapping_mul(7).wrapping_add(turn / 8) % 8];
        for _ in 0..pause {
            tokio::task::yield_now().await;
        }
        if turn.is_multiple_of(13) {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    }
}

impl Storage for JitteryStorage {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn dialect(&self) -> Option<SqlDialect> {
        self.0.dialect()
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    fn create_table_if_missing<'a>(&'a self, schema: &'a Arc<Schema>) -> Answer<'a, ()> {
        self.0.create_table_if_missing(schema)
    }

    fn migrate<'a>(&'a self, migrations: &'a [Migration], apply: bool) -> Answer<'a, Migrated> {
        self.0.migrate(migrations, apply)
    }

    fn check<'a>(&'a self, schema: &'a Arc<Schema>) -> Answer<'a, Vec<Mismatch>> {
        self.0.check(schema)
    }

    fn fetch<'a>(&'a self, query: &'a Query, out: &'a mut Vec<u8>) -> Answer<'a, Rows> {
        Box::pin(async move {
            self.yield_at_random().await;
            let rows = self.0.fetch(query, out).await;
            self.yield_at_random().await;
            rows
        })
    }

    fn commit(&self, changes: ChangeSet) -> Answer<'_, Committed> {
        Box::pin(async move {
            self.yield_at_random().await;
            let committed = self.0.commit(changes).await;
            self.yield_at_random().await;
            committed
        })
    }

    fn ready(&self) -> Answer<'_, ()> {
        self.0.ready()
    }

    fn close(&self) -> Answer<'_, ()> {
        self.0.close()
    }
}
