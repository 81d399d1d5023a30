//! Visibility of events: the form in which an actor sees an event, if at all.

use serde_json::Value as Json;

use crate::access::Actor;
use crate::access::Operation;
use crate::authz::{decision, redact};
use crate::catalog::RowFilter;
use crate::engine::Fields;
use crate::engine::can_evaluate;
use crate::engine::{Call, Engine};
use crate::error::{Error, ErrorKind};
use crate::outbox::Event;

impl Engine {
    /// The event with the fields that an actor may read. `None` where the actor may not see the item as it was at the
    /// time of the event or, where it still exists, as it is now.
    pub(crate) async fn visible_event(&self, actor: &Actor, event: &Event) -> Result<Option<Event>, Error> {
        let Ok(entry) = self.catalog.find(event.resource()) else { return Ok(None) };
        let call = match self.call(entry, actor, Operation::Read, true).await {
            Ok(call) => call,
            Err(error) if matches!(error.kind(), ErrorKind::Forbidden | ErrorKind::Unauthenticated) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        if !call.can_see_event(event).await? {
            return Ok(None);
        }
        let Json::Object(data) = event.data.clone() else { return Ok(None) };
        let data = redact::visible_fields(&entry.schema, call.mask(), &call.visible_fields(), data)?;
        Ok(Some(Event { data: Json::Object(data), ..event.clone() }))
    }
}

impl Call<'_> {
    async fn can_see_event(&self, event: &Event) -> Result<bool, Error> {
        // Events of soft-deleted rows go to callers who could read the row before.
        let read = decision::decide(&self.engine.catalog, self.entry, self.actor, Operation::Read).await;
        let Some(rows) = RowFilter::of(&read) else { return Ok(false) };
        if rows.is_unrestricted() {
            return Ok(true);
        }
        let rows = rows.resolved(self.entry, &self.engine.catalog).await?;
        let (Json::Object(data), Ok(id)) = (&event.data, self.parse_id(&event.subject)) else {
            return Ok(false);
        };
        let mut data_at_event: Fields = data.clone();
        match Call::as_application(self.engine, self.entry).current(id).await {
            Ok((now, _)) => {
                if !self.admits(&rows, &self.partial_values(&now)).await? {
                    return Ok(false);
                }
                // Events do not contain hidden fields, but row filters may depend on them.
                for (name, value) in now {
                    data_at_event.entry(name).or_insert(value);
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let is_known =
                    |field: usize| data_at_event.contains_key(&self.entry.schema.fields[field].name);
                if !can_evaluate(rows.filter(), &is_known) {
                    return Ok(false);
                }
            }
            Err(error) => return Err(error),
        }
        self.admits(&rows, &self.partial_values(&data_at_event)).await
    }
}
