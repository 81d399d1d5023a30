//! Queues a delivery of an event for each endpoint that subscribes to it.

use std::collections::HashSet;
use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::json;
use uuid::Uuid;

use super::delivery::WebhookDelivery;
use super::endpoint::WebhookEndpoint;
use super::{DELIVERIES, Dispatcher, ENDPOINTS, chrono_duration};
use crate::access::CheckError;
use crate::engine::Engine;
use crate::error::Error;
use crate::events::{Delivery, Subscriber};
use crate::outbox::Event;
use crate::outbox::matches;

/// How many endpoints are read at once.
const BATCH_SIZE: u32 = 200;

/// Subscriber that queues deliveries. The dispatcher sends them, so that no endpoint holds up the others.
pub(crate) struct WebhookSubscriber {
    pub(crate) engine: Arc<Engine>,
    pub(crate) dispatcher: Arc<Dispatcher>,
}

impl Subscriber for WebhookSubscriber {
    fn handle<'a>(&'a self, event: &'a Event, _: &'a Delivery) -> BoxFuture<'a, Result<(), CheckError>> {
        Box::pin(async move { Ok(self.enqueue(event).await?) })
    }
}

impl WebhookSubscriber {
    async fn enqueue(&self, event: &Event) -> Result<(), Error> {
        let mut after = Uuid::nil();
        loop {
            let mut filter = json!({"enabled": true, "id": {"gt": after}});
            if let Some(tenant) = &event.tenantid {
                filter["or"] = json!([{"tenant_id": tenant}, {"tenant_id": {"is_null": true}}]);
            }
            let endpoints =
                self.engine.system_rows::<WebhookEndpoint>(ENDPOINTS, &filter, "id", BATCH_SIZE).await?;
            let Some(last) = endpoints.last() else { return Ok(()) };
            after = last.row.id;
            let subscribed =
                endpoints.iter().map(|stored| &stored.row).filter(|endpoint| is_subscribed(endpoint, event));
            let deliveries: Vec<_> =
                subscribed.map(|endpoint| WebhookDelivery::new(endpoint, event)).collect::<Result<_, _>>()?;
            self.insert_new(deliveries).await?;
        }
    }

    /// Adds deliveries that do not exist yet: an event may be received more than once.
    async fn insert_new(&self, mut deliveries: Vec<WebhookDelivery>) -> Result<(), Error> {
        if deliveries.is_empty() {
            return Ok(());
        }
        let ids: Vec<Uuid> = deliveries.iter().map(|delivery| delivery.id).collect();
        let filter = json!({"id": {"in": ids}});
        let existing =
            self.engine.system_rows::<WebhookDelivery>(DELIVERIES, &filter, "id", BATCH_SIZE).await?;
        let existing: HashSet<Uuid> = existing.into_iter().map(|stored| stored.row.id).collect();
        deliveries.retain(|delivery| !existing.contains(&delivery.id));
        let mut has_sendable = false;
        for delivery in &mut deliveries {
            match self.dispatcher.postponement(delivery.endpoint_id) {
                Some(delay) => delivery.next_attempt_at = Some(crate::clock::now() + chrono_duration(delay)),
                None => has_sendable = true,
            }
        }
        if !self.engine.insert_system_rows(DELIVERIES, &deliveries).await? {
            return Err(Error::internal("another node queued this event meanwhile"));
        }
        if has_sendable {
            self.dispatcher.wake();
        }
        Ok(())
    }
}

fn is_subscribed(endpoint: &WebhookEndpoint, event: &Event) -> bool {
    endpoint.events.iter().any(|pattern| matches(pattern, &event.event_type))
}
