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
const KNOWN: Duration = Duration::from_secs(30 * 24 * 3600);

impl Engine {
    /// Commits the changes that a subscriber makes because of an event; `false` where they were committed before.
    pub(crate) async fn once(
        &self,
        subscriber: &str,
        event: &Event,
        changes: impl FnOnce(&mut Change) + Send,
    ) -> Result<bool, Error> {
        let entry = self.catalog.find(event.resource())?;
        let said = format!("{subscriber} {}", event.id);
        let id = blake3::derive_key("resourceful 2026-11 events that were handled", said.as_bytes());
        let id = blake3::Hash::from(id).to_hex().to_string();
        let mut terms = WriteContext::default();
        terms.trace.clone_from(&event.traceparent);
        terms.claim = Some(IdempotencyClaim::new(id.clone(), id, KNOWN));
        let call = Call::by_the_application(self, entry);
        if call.replay(&mut terms).await?.is_some() {
            return Ok(false);
        }
        let call = call.on(&terms);
        let mut change = call.about(Operation::Create, None, None);
        changes(&mut change);
        let mut attempts = ConflictRetry::default();
        loop {
            let made = call.enlisted(change.enlisted.clone()).await?;
            let alone = |main: PendingChange| PreparedWrite { main, beside: Vec::new() };
            let output = serde_json::Value::Null;
            let done = call.commit(made.into_iter().map(alone).collect(), &Output::Json(&output)).await;
            match done {
                Ok(_) => return Ok(true),
                Err(failure) if failure.is_contended(false) => {
                    attempts.lost(self, vec![call.contended_resource()]).await?;
                }
                Err(mut failure) => {
                    if call.replayed_elsewhere().await?.is_some() {
                        return Ok(false);
                    }
                    failure.beside = true;
                    let error = call.explained(failure);
                    return Err(match error.kind() {
                        ErrorKind::Unavailable => error,
                        _ => Error::internal(error),
                    });
                }
            }
        }
    }
}
