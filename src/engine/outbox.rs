//! The outbox of every storage of an application.

#[cfg(feature = "testing")]
use resourceful_contract::{Query, Sort};
use serde_json::{Value as Json, json};

use super::{Call, Engine, Vault, redact};
use crate::error::Error;
use crate::events::Event;
use crate::query::Selection;
use crate::resource::Operation;
use crate::tables::events::EventRow;
#[cfg(feature = "testing")]
use crate::tables::events::SEQUENCE;

impl Call<'_> {
    /// The events that a dry run would have sent, as far as this caller could be told of them.
    pub(crate) async fn tried(&self) -> Result<Json, Error> {
        let mut shown = Vec::new();
        for row in self.terms.tried() {
            let entry = self.engine.find(&row.resource)?;
            let call = if entry.position == self.entry.position {
                None
            } else {
                match self.engine.call(entry, self.actor, Operation::Read, false).await {
                    // Of what somebody else might see there is no telling before it is there.
                    Ok(call) if call.allowed.is_everything() => Some(call),
                    _ => continue,
                }
            };
            let call = call.as_ref().unwrap_or(self);
            let mut data = row.data.clone().into_bytes();
            redact::only(call, &call.shown(), &mut data)?;
            redact::rows(call, &Selection::default(), &mut data)?;
            let event = self.engine.event(&row);
            let mut event =
                json!({"type": event.event_type, "source": event.source, "subject": event.subject});
            event["data"] = serde_json::from_slice(&data).map_err(Error::internal)?;
            shown.push(event);
        }
        Ok(Json::Array(shown))
    }
}

impl Engine {
    /// The storages that keep records of their resources' changes, each once.
    pub(crate) fn recorded(&self) -> Vec<&Vault> {
        let mut vaults: Vec<&Vault> = Vec::new();
        for entry in self.catalog.entries().iter().filter(|entry| entry.definition.keeps_records()) {
            if !vaults.iter().any(|known| known.is(&entry.storage)) {
                vaults.push(&entry.storage);
            }
        }
        vaults
    }

    /// An event as those who are told see it.
    pub(crate) fn event(&self, row: &EventRow) -> Event {
        let title = self.find(&row.resource).map_or("", |entry| entry.definition.title.as_str());
        Event::of(row, &self.prefix, title)
    }

    /// Every event in the outbox.
    #[cfg(feature = "testing")]
    pub(crate) async fn events(&self) -> Result<Vec<Event>, Error> {
        let mut events = Vec::new();
        for vault in self.recorded() {
            let query = Query {
                sort: vec![Sort::ascending(SEQUENCE)],
                limit: 100_000,
                ..Query::all(self.tables.events.clone())
            };
            let rows = vault.kept(query).await?;
            events.extend(rows.into_iter().map(|row| self.event(&EventRow::read(row))));
        }
        Ok(events)
    }
}
