//! Dry runs: the events that a rolled back write would have caused.

use serde_json::{Value as Json, json};

use crate::access::Operation;
use crate::authz::redact;
use crate::engine::Call;
use crate::error::Error;
use crate::query::Selection;

impl Call<'_> {
    /// The events that a dry run would have sent, as far as this caller may see them.
    pub(crate) async fn dry_run_events(&self) -> Result<Json, Error> {
        let mut events = Vec::new();
        for row in self.context.take_events() {
            let entry = self.engine.catalog.find(&row.resource)?;
            let call = if entry.position == self.entry.position {
                None
            } else {
                match self.engine.call(entry, self.actor, Operation::Read, false).await {
                    // A row filter cannot be evaluated before the row exists, so only unrestricted callers are shown the
                    // event.
                    Ok(call) if call.allowed.is_unrestricted() => Some(call),
                    _ => continue,
                }
            };
            let call = call.as_ref().unwrap_or(self);
            let mut data = row.data.clone().into_bytes();
            redact::retain_fields(&call.reader(), &call.visible_fields(), &mut data)?;
            redact::redact_row(&call.reader(), &Selection::default(), &mut data)?;
            let event = self.engine.outbox.to_event(&row);
            let mut event =
                json!({"type": event.event_type, "source": event.source, "subject": event.subject});
            event["data"] = serde_json::from_slice(&data).map_err(Error::internal)?;
            events.push(event);
        }
        Ok(Json::Array(events))
    }
}
