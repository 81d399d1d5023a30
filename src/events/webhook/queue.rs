//! Queues a delivery of an event for each endpoint that subscribes to it.

use std::collections::HashSet;
use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::json;
use uuid::Uuid;

use super::delivery::WebhookDelivery;
use super::endpoint::WebhookEndpoint;
use super::{DELIVERIES, Dispatcher, ENDPOINTS, span};
use crate::access::CheckError;
use crate::engine::Engine;
use crate::error::Error;
use crate::events::{Delivery, Subscriber};
use crate::outbox::Event;
use crate::outbox::matches;

/// How many endpoints are read at once.
const STEP: u32 = 200;

/// Subscriber that queues deliveries. The dispatcher sends them, so that no endpoint holds up the others.
pub(crate) struct Queue {
    pub(crate) engine: Arc<Engine>,
    pub(crate) dispatcher: Arc<Dispatcher>,
}

impl Subscriber for Queue {
    fn handle<'a>(&'a self, event: &'a Event, _: &'a Delivery) -> BoxFuture<'a, Result<(), CheckError>> {
        Box::pin(async move { Ok(self.queue(event).await?) })
    }
}

impl Queue {
    async fn queue(&self, event: &Event) -> Result<(), Error> {
        let mut after = Uuid::nil();
        loop {
            let mut filter = json!({"enabled": true, "id": {"gt": after}});
            if let Some(tenant) = &event.tenantid {
                filter["or"] = json!([{"tenant_id": tenant}, {"tenant_id": {"is_null": true}}]);
            }
            let endpoints = self.engine.own_rows::<WebhookEndpoint>(ENDPOINTS, &filter, "id", STEP).await?;
            let Some(last) = endpoints.last() else { return Ok(()) };
            after = last.row.id;
            let wanting = endpoints.iter().map(|own| &own.row).filter(|endpoint| wants(endpoint, event));
            let deliveries: Vec<_> =
                wanting.map(|endpoint| WebhookDelivery::new(endpoint, event)).collect::<Result<_, _>>()?;
            self.add(deliveries).await?;
        }
    }

    /// Adds deliveries that do not exist yet: an event may be received more than once.
    async fn add(&self, mut deliveries: Vec<WebhookDelivery>) -> Result<(), Error> {
        if deliveries.is_empty() {
            return Ok(());
        }
        let ids: Vec<Uuid> = deliveries.iter().map(|delivery| delivery.id).collect();
        let filter = json!({"id": {"in": ids}});
        let there = self.engine.own_rows::<WebhookDelivery>(DELIVERIES, &filter, "id", STEP).await?;
        let there: HashSet<Uuid> = there.into_iter().map(|own| own.row.id).collect();
        deliveries.retain(|delivery| !there.contains(&delivery.id));
        let mut may_be_sent = false;
        for delivery in &mut deliveries {
            match self.dispatcher.puts_off(delivery.endpoint_id) {
                Some(off) => delivery.next_attempt_at = Some(crate::clock::now() + span(off)),
                None => may_be_sent = true,
            }
        }
        if !self.engine.add_own(DELIVERIES, &deliveries).await? {
            return Err(Error::internal("another node queued this event meanwhile"));
        }
        if may_be_sent {
            self.dispatcher.wake();
        }
        Ok(())
    }
}

fn wants(endpoint: &WebhookEndpoint, event: &Event) -> bool {
    endpoint.events.iter().any(|pattern| matches(pattern, &event.event_type))
}
