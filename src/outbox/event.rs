//! An event about a committed change, as subscribers and clients receive it.

use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use uuid::Uuid;

use crate::tables::events::EventRow;

/// A committed change as a `CloudEvents` 1.0 event; its JSON is the specification's structured mode.
///
/// Delivery is at least once and, for one item, in the order of its changes: repeated deliveries have the same
/// [`id`](Self::id).
///
/// ```
/// use resourceful::Event;
///
/// let event: Event = serde_json::from_value(serde_json::json!({
///     "specversion": "1.0", "id": "0192d1a8-0000-7000-8000-000000000000", "source": "/orders",
///     "type": "orders.created", "subject": "7", "time": "2026-01-01T00:00:00Z",
///     "datacontenttype": "application/json", "sequence": "42", "data": {"id": 7},
/// }))?;
/// assert!(event.matches("orders.*") && event.matches("*") && !event.matches("orders.deleted"));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Event {
    /// The version of `CloudEvents`: `1.0`.
    pub specversion: String,
    /// A UUID of version 7, the same for every delivery of the event.
    pub id: Uuid,
    /// The collection of the item, as a path.
    pub source: String,
    /// The resource and its change: `orders.created`, `orders.updated`, `orders.deleted`, or the event name of an action.
    #[serde(rename = "type")]
    pub event_type: String,
    /// The item's id.
    pub subject: String,
    /// When the change was made.
    pub time: DateTime<Utc>,
    /// The media type of the data: `application/json`.
    pub datacontenttype: String,
    /// The URL of the data's schema in the OpenAPI document of the application's first
    /// [`server`](crate::AppBuilder::server), where that is an absolute URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataschema: Option<String>,
    /// A number that is greater for every later event of the same item (the extension `sequence`).
    pub sequence: String,
    /// The tenant that the item belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenantid: Option<String>,
    /// The trace of the request that made the change (W3C Trace Context).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// The item as it was after the change, or before it was deleted.
    pub data: Json,
}

impl Event {
    /// The event of an outbox row.
    pub(crate) fn of(row: &EventRow, prefix: &str, schemas: Option<&str>, schema: &str) -> Self {
        Self {
            specversion: "1.0".to_owned(),
            id: row.id,
            source: format!("{prefix}/{}", row.resource),
            event_type: row.event_type.clone(),
            subject: row.subject.clone(),
            time: row.time,
            datacontenttype: "application/json".to_owned(),
            dataschema: schemas.map(|schemas| format!("{schemas}{schema}")),
            sequence: row.sequence.to_string(),
            tenantid: row.tenant.clone(),
            traceparent: row.trace.clone(),
            data: serde_json::from_str(&row.data).unwrap_or(Json::Null),
        }
    }

    /// An `updated` event without a change behind it, to test which callers would receive it.
    #[cfg(feature = "testing")]
    pub(crate) fn updated(resource: &str, subject: &str, data: Json) -> Self {
        Self {
            specversion: "1.0".to_owned(),
            id: Uuid::nil(),
            source: format!("/{resource}"),
            event_type: format!("{resource}.updated"),
            subject: subject.to_owned(),
            time: DateTime::UNIX_EPOCH,
            datacontenttype: "application/json".to_owned(),
            dataschema: None,
            sequence: "0".to_owned(),
            tenantid: None,
            traceparent: None,
            data,
        }
    }

    /// The resource's name.
    #[must_use]
    pub fn resource(&self) -> &str {
        self.event_type.split('.').next().unwrap_or_default()
    }

    /// The change or action, without the resource's name.
    #[must_use]
    pub fn action(&self) -> &str {
        self.event_type.split_once('.').map_or("", |(_, action)| action)
    }

    /// The item, deserialized.
    ///
    /// # Errors
    /// Where the data is not of this type.
    pub fn item<M: DeserializeOwned>(&self) -> Result<M, serde_json::Error> {
        M::deserialize(&self.data)
    }

    /// Whether a pattern matches this event: the exact type, `orders.*` for all of a resource, or `*`.
    #[must_use]
    pub fn matches(&self, pattern: &str) -> bool {
        matches(pattern, &self.event_type)
    }
}

/// Whether a pattern matches an event type.
pub(crate) fn matches(pattern: &str, event_type: &str) -> bool {
    match pattern.strip_suffix(".*") {
        _ if pattern == "*" => true,
        Some(resource) => event_type.split('.').next() == Some(resource),
        None => pattern == event_type,
    }
}
