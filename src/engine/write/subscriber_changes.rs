//! Changes that a subscriber makes because of an event, executed once however often the event is delivered.

use std::time::Duration;

use super::commit::{Output, PendingChange, PreparedWrite};
use super::contention::ConflictRetry;
use super::context::WriteContext;
use super::idempotency::IdempotencyClaim;
use crate::access::Operation;
use crate::engine::{Call, Engine};
use crate::error::{Error, ErrorKind};
use crate::outbox::Event;
use crate::resource::Change;

/// Retention of the record that an event was handled: longer than any delivery is retried.
const HANDLED_RETENTION: Duration = Duration::from_secs(30 * 24 * 3600);

impl Engine {
    /// Commits the changes that a subscriber makes because of an event; `false` where they were committed before.
    pub(crate) async fn commit_once(
        &self,
        subscriber: &str,
        event: &Event,
        changes: impl FnOnce(&mut Change) + Send,
    ) -> Result<bool, Error> {
        let entry = self.catalog.find(event.resource())?;
        let claim_text = format!("{subscriber} {}", event.id);
        let id = blake3::derive_key("resourceful 2026-11 events that were handled", claim_text.as_bytes());
        let id = blake3::Hash::from(id).to_hex().to_string();
        let mut context = WriteContext::default();
        context.trace.clone_from(&event.traceparent);
        context.claim = Some(IdempotencyClaim::new(id.clone(), id, HANDLED_RETENTION));
        let call = Call::as_application(self, entry);
        if call.replay(&mut context).await?.is_some() {
            return Ok(false);
        }
        let call = call.with_context(&context);
        let mut change = call.hook_change(Operation::Create, None, None);
        changes(&mut change);
        let mut attempts = ConflictRetry::default();
        loop {
            let pending = call.prepare_enlisted(change.enlisted.clone()).await?;
            let single_write = |main: PendingChange| PreparedWrite { main, enlisted: Vec::new() };
            let output = serde_json::Value::Null;
            let committed =
                call.commit(pending.into_iter().map(single_write).collect(), &Output::Json(&output)).await;
            match committed {
                Ok(_) => return Ok(true),
                Err(failure) if failure.is_retryable(false) => {
                    attempts.wait(self, vec![call.resource_queue()]).await?;
                }
                Err(mut failure) => {
                    if call.replay_concurrent().await?.is_some() {
                        return Ok(false);
                    }
                    failure.enlisted = true;
                    let error = call.commit_error(failure);
                    return Err(match error.kind() {
                        ErrorKind::Unavailable => error,
                        _ => Error::internal(error),
                    });
                }
            }
        }
    }
}
