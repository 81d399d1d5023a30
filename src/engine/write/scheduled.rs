//! Scheduled work: run when it is due, committed together with the record that it ran.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt as _;
use resourceful_contract::{Filter, Query, Test, Value};

use super::commit::{Output, PendingChange, PreparedWrite};
use super::commit_plan::Lock;
use crate::access::Operation;
use crate::catalog::{Entry, GuardedStorage};
use crate::engine::{Call, Engine, WriteContext};
use crate::error::Error;
use crate::resource::ScheduledWork;
use crate::tables::leases::LeaseRow;

/// Prefix of the rows that record when work ran last.
const WORK: &str = "work:";

impl Engine {
    /// Runs the scheduled work of the resources in a storage, as far as it is due. Work that fails is logged, and does not
    /// keep the rest.
    ///
    /// # Errors
    /// Where the storage fails.
    pub(crate) async fn run_scheduled(&self, storage: &GuardedStorage) -> Result<(), Error> {
        for entry in self.catalog.entries().iter().filter(|entry| entry.storage.is_same(storage)) {
            for work in &entry.definition.scheduled {
                // A panic in the application's code does not stop the background work.
                let run = AssertUnwindSafe(self.run_if_due(entry, work)).catch_unwind().await;
                if let Err(error) = run.unwrap_or_else(|_| Err(Error::internal("the handler panicked"))) {
                    let (resource, work) = (&*entry.name, work.name.as_str());
                    tracing::warn!(resource, work, error = format!("{error:#}"), "scheduled work failed");
                }
            }
        }
        Ok(())
    }

    async fn run_if_due(&self, entry: &Arc<Entry>, work: &ScheduledWork) -> Result<(), Error> {
        let name = format!("{WORK}{}.{}", entry.name, work.name);
        let mut query = Query::all(self.tables.leases.clone());
        query.filter = Filter::Compare(0, Test::Eq(Value::Text(name.clone())));
        let last = entry.storage.read_internal(query).await?.pop().map(LeaseRow::from_values);
        let elapsed = last.as_ref().map(|last| crate::clock::now().signed_duration_since(last.expires_at));
        // A time ahead of the clock was written by a node with a wrong one.
        if elapsed.and_then(|elapsed| elapsed.to_std().ok()).is_some_and(|elapsed| elapsed < work.interval) {
            return Ok(());
        }
        let context = WriteContext::default();
        let call = Call::as_application(self, entry).with_context(&context);
        // The commit writes the time to this row, and fails where another node has done so meanwhile.
        context.plan().add_lock(Lock { name, version: last.map(|last| last.version) });
        let mut change = call.hook_change(Operation::Update, None, None);
        work.handler.run(&mut change).await?;
        let enlisted = call.prepare_enlisted(change.enlisted).await?;
        let alone = |main: PendingChange| PreparedWrite { main, enlisted: Vec::new() };
        let output = serde_json::Value::Null;
        match call.commit(enlisted.into_iter().map(alone).collect(), &Output::Json(&output)).await {
            Err(failure) if !failure.is_retryable(false) => Err(call.commit_error(failure)),
            _ => Ok(()),
        }
    }
}
