//! Webhook deliveries: messages to endpoints, the outcomes of their attempts, and their replay.

use chrono::{DateTime, Utc};
use resourceful_contract::Table;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;
use validator::Validate;

use super::endpoint::{WebhookEndpoint, tenant_or_owner};
use super::{DELIVERIES, Webhooks};
use crate::access::{Permissions, nobody, rows};
use crate::error::{Error, ErrorKind};
use crate::outbox::Event;
use crate::resource::{Action, Change, NoInput, ResourceBuilder, define_resource};

/// The delivery of one event to one endpoint.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
pub(super) struct WebhookDelivery {
    pub(super) id: Uuid,
    pub(super) endpoint_id: Uuid,
    /// The event's id, which is the message's id (`webhook-id`) in every attempt.
    pub(super) event_id: Uuid,
    /// The event's type, such as `orders.created`.
    pub(super) event_type: String,
    /// The id of the item that the event is about.
    pub(super) subject: String,
    pub(super) state: State,
    /// The number of attempts since it was queued or replayed.
    pub(super) attempts: i64,
    /// The time of the next attempt; `null` where there is none.
    pub(super) next_attempt_at: Option<DateTime<Utc>>,
    /// The last attempts, the oldest first.
    pub(super) log: Vec<Attempt>,
    pub(super) tenant_id: Option<String>,
    pub(super) owner_id: Option<String>,
    /// The complete event as JSON: access rules also read fields that the receiver is not shown.
    #[serde(default)]
    pub(super) event: String,
    pub(super) created_at: DateTime<Utc>,
    pub(super) updated_at: DateTime<Utc>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    // Not yet checked whether its owner may see the event, so it is hidden from all callers.
    Queued,
    Pending,
    Delivered,
    Failed,
    Cancelled,
}

impl State {
    pub(super) const FINAL: [Self; 3] = [Self::Delivered, Self::Failed, Self::Cancelled];
}

/// The outcome of one attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(super) struct Attempt {
    pub(super) at: DateTime<Utc>,
    /// The status code of the endpoint's response, where there was one.
    pub(super) status: Option<u16>,
    /// Why the attempt was not successful.
    pub(super) reason: Option<String>,
    pub(super) milliseconds: u64,
}

impl WebhookDelivery {
    /// A new delivery of an event to an endpoint. Its id is derived from both, so that it exists once.
    pub(super) fn new(endpoint: &WebhookEndpoint, event: &Event) -> Result<Self, Error> {
        let now = crate::clock::now();
        Ok(Self {
            id: Self::id(endpoint.id, event.id),
            endpoint_id: endpoint.id,
            event_id: event.id,
            event_type: event.event_type.clone(),
            subject: event.subject.clone(),
            state: State::Queued,
            attempts: 0,
            next_attempt_at: Some(now),
            log: Vec::new(),
            tenant_id: endpoint.tenant_id.clone(),
            owner_id: endpoint.owner_id.clone(),
            event: serde_json::to_string(event).map_err(Error::internal)?,
            created_at: now,
            updated_at: now,
        })
    }

    pub(super) fn id(endpoint: Uuid, event: Uuid) -> Uuid {
        let both = [endpoint.into_bytes(), event.into_bytes()].concat();
        let digest = blake3::derive_key("resourceful 2026-11 ids of webhook deliveries", &both);
        let mut id = [0; 16];
        id.copy_from_slice(&digest[..16]);
        uuid::Builder::from_custom_bytes(id).into_uuid()
    }
}

pub(super) fn resource(webhooks: &Webhooks, table: Table) -> ResourceBuilder {
    let managed_by = &webhooks.managed_by;
    define_resource::<WebhookDelivery>(DELIVERIES)
        .adapter(table)
        .permissions(Permissions::read(managed_by.clone()).write(nobody()))
        .policy(tenant_or_owner())
        .policy(rows(json!({"state": {"ne": "queued"}})))
        .version("version")
        .timestamps("created_at", "updated_at")
        .events(false)
        .hidden(["event"])
        .index(["state", "next_attempt_at"])
        .index(["endpoint_id", "created_at"])
        .filterable(["endpoint_id", "event_id", "event_type", "subject", "state", "created_at"])
        .sortable(["created_at"])
        .action(
            "replay",
            Action::on_item(managed_by.clone(), replay).description(
                "Sends the message again, under the same `webhook-id`, with the full number of attempts.",
            ),
        )
}

fn replay(delivery: &mut WebhookDelivery, _: NoInput, _: &mut Change) -> Result<(), Error> {
    if !State::FINAL.contains(&delivery.state) {
        let detail = "The delivery is pending: `next_attempt_at` is the time of its next attempt.";
        return Err(Error::new(ErrorKind::Conflict, "webhook-pending", detail));
    }
    delivery.state = State::Pending;
    delivery.attempts = 0;
    delivery.next_attempt_at = Some(crate::clock::now());
    Ok(())
}
