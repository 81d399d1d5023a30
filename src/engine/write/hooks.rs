//! Hooks: the application's code around a change.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use resourceful_contract::{RowOutcome, Version};
use tokio::sync::Notify;

use super::assemble;
use super::assemble::Fields;
use super::records::Record;
use crate::access::Operation;
use crate::engine::Call;
use crate::error::Error;
use crate::resource::{Change, Enlisted, Hook, Next, PlacedHook};

impl Call<'_> {
    fn hooks(&self, operation: Operation) -> impl Iterator<Item = &PlacedHook> {
        let all = self.engine.hooks.iter().chain(&self.definition().hooks);
        all.filter(move |placed| placed.is_for(operation))
    }

    /// Whether any hook applies to this operation.
    pub(in crate::engine) fn is_hooked(&self, operation: Operation) -> bool {
        self.hooks(operation).next().is_some()
    }

    pub(in crate::engine) fn about(
        &self,
        operation: Operation,
        current: Option<&Fields>,
        item: Option<Fields>,
    ) -> Change {
        Change {
            actor: self.actor.clone(),
            resource: self.entry.name.clone(),
            operation,
            current: current.cloned(),
            item,
            enlisted: Vec::new(),
            dry_run: self.terms.dry_run,
            action: None,
            surroundings: self.surroundings(),
        }
    }

    /// Runs an operation inside its hooks, the first of them outermost.
    pub(in crate::engine) async fn around<T: Send>(
        &self,
        operation: Operation,
        work: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        let change = self.about(operation, None, None);
        let done = Mutex::new(None);
        let is_done = Notify::new();
        let mut next: BoxFuture<'_, Result<(), Error>> = Box::pin(async {
            let outcome = work.await?;
            *done.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
            is_done.notify_one();
            Ok(())
        });
        let hooks: Vec<_> = self.hooks(operation).collect();
        for placed in hooks.into_iter().rev() {
            next = placed.hook.around(&change, Next(next));
        }
        let outcome = tokio::select! {
            outcome = AssertUnwindSafe(next).catch_unwind() => match outcome {
                Ok(outcome) => outcome,
                Err(_) => Err(Error::internal("a hook panicked")),
            },
            () = self.overdue(&is_done) => Err(Error::internal("it had not ended when the answer was due")),
        };
        match (done.into_inner().unwrap_or_else(PoisonError::into_inner), outcome) {
            (Some(answer), Ok(())) => Ok(answer),
            (Some(answer), Err(failure)) => {
                self.engine.hook_failures.fetch_add(1, Ordering::Relaxed);
                let (resource, operation) = (&*change.resource, change.operation.name());
                tracing::error!(resource, operation, %failure, "a hook failed after a change, which stays");
                Ok(answer)
            }
            (None, Err(refused)) => Err(refused),
            (None, Ok(())) => Err(Error::internal("a hook neither ran the operation nor refused it")),
        }
    }

    /// Waits until an operation is done and the deadline of its response has passed.
    async fn overdue(&self, is_done: &Notify) {
        is_done.notified().await;
        match self.terms.due {
            Some(due) => tokio::time::sleep_until(due).await,
            None => std::future::pending().await,
        }
    }

    /// Runs the hooks before an item is stored; returns the item as they left it, validated again.
    ///
    /// # Errors
    /// The refusal of a hook, and every fault in the values that hooks set.
    pub(in crate::engine) async fn before(
        &self,
        operation: Operation,
        current: Option<&Fields>,
        item: Fields,
    ) -> Result<(Fields, Vec<Enlisted>), Error> {
        if !self.is_hooked(operation) {
            return Ok((item, Vec::new()));
        }
        Box::pin(self.seen_by_hooks(operation, current, item)).await
    }

    async fn seen_by_hooks(
        &self,
        operation: Operation,
        current: Option<&Fields>,
        item: Fields,
    ) -> Result<(Fields, Vec<Enlisted>), Error> {
        let mut change = self.about(operation, current, Some(item.clone()));
        for placed in self.hooks(operation) {
            placed.hook.before(&mut change).await?;
        }
        let mut set = self.owned(&item, change.item.unwrap_or_default());
        if set != item {
            set = self.recheck(set)?;
        }
        Ok((set, change.enlisted))
    }

    /// Runs the hooks before an item is deleted.
    ///
    /// # Errors
    /// The refusal of a hook.
    pub(in crate::engine) async fn before_delete(&self, current: &Fields) -> Result<Vec<Enlisted>, Error> {
        let mut change = self.about(Operation::Delete, Some(current), None);
        for placed in self.hooks(Operation::Delete) {
            placed.hook.before(&mut change).await?;
        }
        Ok(change.enlisted)
    }

    /// Runs the hooks after a committed change. They run to completion even where the request was cancelled or its
    /// deadline has passed.
    pub(in crate::engine) async fn after(&self, record: &Record, written: &RowOutcome) {
        if !self.is_hooked(record.operation) || self.terms.dry_run {
            return;
        }
        let hooks: Vec<Arc<dyn Hook>> =
            self.hooks(record.operation).map(|placed| placed.hook.clone()).collect();
        let item = record.after.clone().map(|item| self.as_written(item, written));
        let change = self.about(record.operation, record.before.as_ref(), item);
        let failures = self.engine.hook_failures.clone();
        let told = tokio::spawn(async move {
            for hook in hooks {
                let failure = match AssertUnwindSafe(hook.after(&change)).catch_unwind().await {
                    Ok(Ok(())) => continue,
                    Ok(Err(error)) => error.to_string(),
                    Err(_) => "it panicked".to_owned(),
                };
                failures.fetch_add(1, Ordering::Relaxed);
                let (resource, operation) = (&*change.resource, change.operation.name());
                tracing::error!(resource, operation, failure, "a hook failed after a change, which stays");
            }
        });
        // Only a runtime that is shutting down ends it early. The response is sent in time all the same.
        match self.terms.due {
            Some(due) => _ = tokio::time::timeout_at(due, told).await,
            None => _ = told.await,
        }
    }

    /// The item after a commit, with its resulting id and version.
    fn as_written(&self, mut item: Fields, written: &RowOutcome) -> Fields {
        let schema = &self.entry.schema;
        if let Ok(id) = assemble::value_json(&written.id) {
            item.insert(schema.id_field().name.clone(), id);
        }
        if let (Some(position), Some(Version::Counter(counter))) = (schema.version, written.version) {
            item.insert(schema.fields[position].name.clone(), counter.into());
        }
        item
    }
}
