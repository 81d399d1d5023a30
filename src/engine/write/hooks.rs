//! Hooks: the application's code around a change.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use resourceful_contract::{RowOutcome, Version};
use tokio::sync::Notify;

use super::input;
use super::input::Fields;
use super::records::ChangeRecord;
use crate::access::Operation;
use crate::engine::Call;
use crate::error::Error;
use crate::resource::{Change, Enlisted, Hook, Next, PlacedHook};

impl Call<'_> {
    fn hooks(&self, operation: Operation) -> impl Iterator<Item = &PlacedHook> {
        let all = self.engine.hooks.iter().chain(&self.definition().hooks);
        all.filter(move |placed| placed.applies_to(operation))
    }

    /// Whether any hook applies to this operation.
    pub(in crate::engine) fn has_hooks(&self, operation: Operation) -> bool {
        self.hooks(operation).next().is_some()
    }

    pub(in crate::engine) fn hook_change(
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
            dry_run: self.context.dry_run,
            action: None,
            reader: self.hook_reads(),
        }
    }

    /// Runs an operation inside its hooks, the first of them outermost.
    pub(in crate::engine) async fn run_around_hooks<T: Send>(
        &self,
        operation: Operation,
        work: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        let change = self.hook_change(operation, None, None);
        let done = Mutex::new(None);
        let finished = Notify::new();
        let mut next: BoxFuture<'_, Result<(), Error>> = Box::pin(async {
            let outcome = work.await?;
            *done.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
            finished.notify_one();
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
            () = self.wait_deadline(&finished) => Err(Error::internal("the hook had not ended by the deadline of the response")),
        };
        match (done.into_inner().unwrap_or_else(PoisonError::into_inner), outcome) {
            (Some(answer), Ok(())) => Ok(answer),
            (Some(answer), Err(failure)) => {
                self.engine.hook_failures.fetch_add(1, Ordering::Relaxed);
                let (resource, operation) = (&*change.resource, change.operation.name());
                tracing::error!(resource, operation, %failure, "a hook failed after a change, and the change is kept");
                Ok(answer)
            }
            (None, Err(refused)) => Err(refused),
            (None, Ok(())) => Err(Error::internal("a hook neither ran the operation nor refused it")),
        }
    }

    /// Waits until an operation is done and the deadline of its response has passed.
    async fn wait_deadline(&self, finished: &Notify) {
        finished.notified().await;
        match self.context.deadline {
            Some(deadline) => tokio::time::sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    }

    /// Runs the hooks before an item is stored; returns the item as they left it, validated again.
    ///
    /// # Errors
    /// The refusal of a hook, and every fault in the values that hooks set.
    pub(in crate::engine) async fn run_before_hooks(
        &self,
        operation: Operation,
        current: Option<&Fields>,
        item: Fields,
    ) -> Result<(Fields, Vec<Enlisted>), Error> {
        if !self.has_hooks(operation) {
            return Ok((item, Vec::new()));
        }
        Box::pin(self.apply_before_hooks(operation, current, item)).await
    }

    async fn apply_before_hooks(
        &self,
        operation: Operation,
        current: Option<&Fields>,
        item: Fields,
    ) -> Result<(Fields, Vec<Enlisted>), Error> {
        let mut change = self.hook_change(operation, current, Some(item.clone()));
        for placed in self.hooks(operation) {
            placed.hook.before(&mut change).await?;
        }
        let mut set = self.keep_identity(&item, change.item.unwrap_or_default());
        if set != item {
            set = self.revalidate(set)?;
        }
        Ok((set, change.enlisted))
    }

    /// Runs the hooks before an item is deleted.
    ///
    /// # Errors
    /// The refusal of a hook.
    pub(in crate::engine) async fn before_delete(&self, current: &Fields) -> Result<Vec<Enlisted>, Error> {
        let mut change = self.hook_change(Operation::Delete, Some(current), None);
        for placed in self.hooks(Operation::Delete) {
            placed.hook.before(&mut change).await?;
        }
        Ok(change.enlisted)
    }

    /// Runs the hooks after a committed change. They run to completion even where the request was cancelled or its
    /// deadline has passed.
    pub(in crate::engine) async fn run_after_hooks(&self, record: &ChangeRecord, written: &RowOutcome) {
        if !self.has_hooks(record.operation) || self.context.dry_run {
            return;
        }
        let hooks: Vec<Arc<dyn Hook>> =
            self.hooks(record.operation).map(|placed| placed.hook.clone()).collect();
        let item = record.after.clone().map(|item| self.committed_item(item, written));
        let change = self.hook_change(record.operation, record.before.as_ref(), item);
        let failures = self.engine.hook_failures.clone();
        let task = tokio::spawn(async move {
            for hook in hooks {
                let failure = match AssertUnwindSafe(hook.after(&change)).catch_unwind().await {
                    Ok(Ok(())) => continue,
                    Ok(Err(error)) => error.to_string(),
                    Err(_) => "it panicked".to_owned(),
                };
                failures.fetch_add(1, Ordering::Relaxed);
                let (resource, operation) = (&*change.resource, change.operation.name());
                tracing::error!(
                    resource,
                    operation,
                    failure,
                    "a hook failed after a change, and the change is kept"
                );
            }
        });
        // Only a runtime that is shutting down ends it early. The response is sent in time all the same.
        match self.context.deadline {
            Some(deadline) => _ = tokio::time::timeout_at(deadline, task).await,
            None => _ = task.await,
        }
    }

    /// The item after a commit, with its resulting id and version.
    fn committed_item(&self, mut item: Fields, written: &RowOutcome) -> Fields {
        let schema = &self.entry.schema;
        if let Ok(id) = input::value_json(&written.id) {
            item.insert(schema.id_field().name.clone(), id);
        }
        if let (Some(position), Some(Version::Counter(counter))) = (schema.version, written.version) {
            item.insert(schema.fields[position].name.clone(), counter.into());
        }
        item
    }
}
