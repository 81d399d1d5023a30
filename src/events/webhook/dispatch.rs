//! Sends due deliveries to their endpoints, and records the outcomes.
//!
//! Any number of nodes may send. Each claims a delivery before it sends it, until a time after which other nodes may; the
//! row's version is the fencing token, so that a node which was stopped for longer than that records nothing.

use std::borrow::Cow;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{FutureExt as _, StreamExt as _};
use http::{Request, StatusCode, header};
use http_body_util::Full;
use resourceful_contract::Version;
use serde_json::{Map, Value as Json, json};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::delivery::{Attempt, State, WebhookDelivery};
use super::endpoint::{WebhookEndpoint, parse_target};
use super::sign::signatures;
use super::throttle::{DeliveryPermit, EndpointThrottles, MAX_IN_FLIGHT, MAX_POSTPONEMENT};
use super::{DELIVERIES, ENDPOINTS, Webhooks, chrono_duration};
use crate::access::{Actor, RoleHierarchy};
use crate::clock::now;
use crate::engine::{Engine, SystemRow};
use crate::error::Error;
use crate::http_client::{AddressPolicy, Client, Failure};
use crate::outbox::Event;
use crate::resource::EnlistedWrite;

/// How many pages of due deliveries are searched for those that may be sent now.
const MAX_PAGES: usize = 32;
/// Time limit for looking up an endpoint's owner and what the owner may see.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(15);
/// How long an endpoint may go without a successful response while its backlog is larger than what is attempted.
const DISABLE_AFTER: Duration = Duration::from_secs(5 * 24 * 3600);
/// The field with the time at which a delivery is due.
const DUE_FIELD: &str = "next_attempt_at";
/// How often due deliveries are polled.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// How much longer a claim holds than all of its work may take.
const CLAIM_MARGIN: Duration = Duration::from_secs(5);
/// How many deliveries are postponed in one commit, so that concurrent writers do not wait for long.
const POSTPONE_BATCH: u32 = 500;
/// How many postponed deliveries become due after a successful one.
const RESUME_BATCH: u32 = 64;
/// How many attempts the log keeps.
const MAX_LOG_ENTRIES: usize = 20;

/// Sends the messages of one application.
pub(crate) struct Dispatcher {
    engine: Arc<Engine>,
    webhooks: Webhooks,
    roles: RoleHierarchy,
    client: Client,
    wakeup: Notify,
    throttles: EndpointThrottles,
}

/// A delivery that this node has claimed.
struct ClaimedDelivery {
    stored: SystemRow<WebhookDelivery>,
    permit: DeliveryPermit,
}

/// The outcome of an attempt.
enum AttemptOutcome {
    /// The response was a success.
    Delivered(StatusCode),
    /// The attempt failed, and is to be repeated.
    Failed(Option<StatusCode>, String),
    /// The endpoint is to be disabled, for this reason.
    EndpointRefused(Option<StatusCode>, Cow<'static, str>),
    /// The endpoint does not exist any more or is disabled.
    Cancelled(&'static str),
    /// The endpoint's owner may not see the event.
    Withheld,
}

impl Dispatcher {
    /// # Errors
    /// Where TLS cannot be set up.
    pub(crate) fn new(
        engine: Arc<Engine>,
        webhooks: Webhooks,
        roles: RoleHierarchy,
    ) -> Result<Self, Failure> {
        let reach = if webhooks.private_targets { AddressPolicy::Any } else { AddressPolicy::Public };
        let client = Client::new(reach)?;
        Ok(Self {
            engine,
            webhooks,
            roles,
            client,
            wakeup: Notify::new(),
            throttles: EndpointThrottles::default(),
        })
    }

    /// For how long new deliveries of an endpoint are postponed from the start.
    pub(super) fn postponement(&self, endpoint: Uuid) -> Option<Duration> {
        self.throttles.postponement(endpoint)
    }

    /// Lets every endpoint be tried at once, whatever its earlier results.
    pub(crate) fn reset_throttles(&self) {
        self.throttles.reset();
    }

    /// Wakes the dispatcher for new deliveries.
    pub(crate) fn wake(&self) {
        self.wakeup.notify_one();
    }

    /// Sends due deliveries, for as long as the application runs.
    pub(crate) async fn run(self: Arc<Self>) {
        // Separate tasks: deliveries under way hold connections, and must progress while the next are claimed.
        let mut in_flight = JoinSet::new();
        loop {
            match self.claim_due(MAX_IN_FLIGHT - in_flight.len()).await {
                Ok(claimed) => {
                    let found = !claimed.is_empty();
                    for claimed in claimed {
                        let dispatcher = self.clone();
                        in_flight.spawn(async move { dispatcher.deliver(claimed).await });
                    }
                    if found && in_flight.len() < MAX_IN_FLIGHT {
                        continue;
                    }
                }
                Err(error) => {
                    tracing::warn!(error = format!("{error:#}"), "webhooks that are due could not be read");
                }
            }
            tokio::select! {
                Some(_) = in_flight.join_next() => {}
                () = self.wakeup.notified() => {}
                () = tokio::time::sleep(POLL_INTERVAL) => {}
            }
        }
    }

    /// Sends all deliveries that are due now, and returns when none is: for tests, and for programs that end.
    pub(crate) async fn drain(&self) -> Result<(), Error> {
        loop {
            self.throttles.reset();
            let claimed = self.claim_due(MAX_IN_FLIGHT).await?;
            if claimed.is_empty() {
                return Ok(());
            }
            let sent = futures::stream::iter(claimed.into_iter().map(|claimed| self.deliver(claimed)));
            sent.buffer_unordered(MAX_IN_FLIGHT).collect::<()>().await;
        }
    }

    /// Deletes deliveries that ended longer ago than the retention time.
    pub(crate) async fn delete_expired(&self) -> Result<(), Error> {
        let retention = chrono::Duration::from_std(self.webhooks.retention).ok();
        let Some(before) = retention.and_then(|retention| now().checked_sub_signed(retention)) else {
            return Ok(());
        };
        let filter = json!({"state": {"in": State::FINAL}, "updated_at": {"lt": before}});
        self.engine.delete_system_rows(DELIVERIES, &filter).await
    }

    /// Claims due deliveries of endpoints with free capacity, at most so many.
    async fn claim_due(&self, max: usize) -> Result<Vec<ClaimedDelivery>, Error> {
        for (endpoint, delay) in self.throttles.stuck_endpoints() {
            self.postpone(endpoint, delay).await?;
        }
        let mut claimed = Vec::with_capacity(max);
        let (mut limit, mut filter) = (max, self.due_filter());
        for _ in 0..MAX_PAGES {
            if claimed.len() >= max {
                break;
            }
            let rows = u32::try_from(limit).unwrap_or(u32::MAX);
            let due =
                self.engine.system_rows::<WebhookDelivery>(DELIVERIES, &filter, DUE_FIELD, rows).await?;
            let Some(last) = due.last().map(|stored| (stored.row.next_attempt_at, stored.row.id)) else {
                break;
            };
            for stored in due {
                let Some(permit) = self.throttles.acquire(&stored.row, max - claimed.len()) else { continue };
                match self.claim(stored, permit).await {
                    Ok(claimed_delivery) => claimed.extend(claimed_delivery),
                    Err(error) => {
                        tracing::warn!(error = format!("{error:#}"), "a webhook could not be claimed");
                    }
                }
            }
            // The first due deliveries may be of endpoints without capacity: the others do not wait for them.
            filter = json!({"and": [
                self.due_filter(),
                {"or": [{DUE_FIELD: {"gt": last.0}}, {DUE_FIELD: last.0, "id": {"gt": last.1}}]},
            ]});
            limit = MAX_IN_FLIGHT;
        }
        Ok(claimed)
    }

    /// Postpones an endpoint's due deliveries, so that a large backlog is not scanned each time.
    async fn postpone(&self, endpoint: Uuid, delay: Duration) -> Result<(), Error> {
        let mut due = pending_filter();
        due["endpoint_id"] = json!(endpoint);
        due[DUE_FIELD] = json!({"lte": now()});
        while self.reschedule(&due, POSTPONE_BATCH, now() + chrono_duration(delay)).await? {}
        Ok(())
    }

    /// Makes some postponed deliveries due now, as their endpoint responds again. Each success makes more of them due.
    async fn resume_postponed(&self, endpoint: Uuid, permit: &DeliveryPermit) -> Result<(), Error> {
        let mut postponed = pending_filter();
        postponed["endpoint_id"] = json!(endpoint);
        postponed["attempts"] = json!(0);
        // Deliveries that are due sooner may be under way.
        postponed[DUE_FIELD] = json!({"gt": now() + self.claim_duration() + chrono_duration(CLAIM_MARGIN)});
        if !self.reschedule(&postponed, RESUME_BATCH, now()).await? {
            permit.clear_postponed();
        }
        self.wake();
        Ok(())
    }

    /// Reschedules the first deliveries that match a filter; returns whether there may be more.
    async fn reschedule(&self, filter: &Json, max: u32, at: DateTime<Utc>) -> Result<bool, Error> {
        let found = self.engine.system_rows::<WebhookDelivery>(DELIVERIES, filter, DUE_FIELD, max).await?;
        let ids: Vec<Uuid> = found.iter().map(|stored| stored.row.id).collect();
        let mut selected = filter.clone();
        selected["id"] = json!({"in": ids});
        self.engine.update_system_rows(DELIVERIES, &selected, &into_object(json!({DUE_FIELD: at}))).await?;
        Ok(u32::try_from(ids.len()).is_ok_and(|count| count == max))
    }

    /// Filter for due deliveries, without those of endpoints that have no capacity. A time further ahead than the longest
    /// delay was written by a wrong clock: such a delivery is due.
    fn due_filter(&self) -> Json {
        let (mut filter, now) = (pending_filter(), now());
        filter["or"] = json!([{DUE_FIELD: {"lte": now}}, {DUE_FIELD: {"gt": now + self.longest_delay()}}]);
        let busy = self.throttles.busy_endpoints();
        if !busy.is_empty() {
            filter["endpoint_id"] = json!({"nin": busy});
        }
        filter
    }

    /// How long a claim holds.
    fn claim_duration(&self) -> chrono::Duration {
        chrono_duration(self.webhooks.deadline.saturating_add(LOOKUP_TIMEOUT + CLAIM_MARGIN))
    }

    /// The longest time between now and the due time of a delivery.
    fn longest_delay(&self) -> chrono::Duration {
        let pause = self.webhooks.backoff.iter().max().copied().unwrap_or_default();
        let pause = chrono_duration(pause.saturating_add(pause / 10).max(MAX_POSTPONEMENT));
        pause.max(self.claim_duration()) + chrono_duration(CLAIM_MARGIN)
    }

    /// Claims a delivery for this node; `None` where another node was faster.
    async fn claim(
        &self,
        stored: SystemRow<WebhookDelivery>,
        permit: DeliveryPermit,
    ) -> Result<Option<ClaimedDelivery>, Error> {
        let set = into_object(json!({DUE_FIELD: now() + self.claim_duration()}));
        let id = stored.row.id.to_string();
        let is_claimed = self.engine.update_system_row(DELIVERIES, &id, stored.version, &set).await?;
        Ok(is_claimed.then(|| ClaimedDelivery {
            stored: SystemRow { version: next_version(stored.version), ..stored },
            permit,
        }))
    }

    /// Attempts a delivery and records the outcome.
    async fn deliver(&self, ClaimedDelivery { stored, permit }: ClaimedDelivery) {
        let (at, began) = (now(), Instant::now());
        let (mut is_visible, mut elapsed) = (false, Duration::ZERO);
        let mut outcome = match self.look_up_target(&stored.row).await {
            Ok(Ok((endpoint, visible))) => {
                let sending = Instant::now();
                let sent = self.send(&endpoint, &visible, at).await;
                (is_visible, elapsed) = (true, sending.elapsed());
                sent.unwrap_or_else(|error| preparation_failed(&error))
            }
            Ok(Err(outcome)) => outcome,
            Err(error) => preparation_failed(&error),
        };
        match &outcome {
            AttemptOutcome::Delivered(_) => {
                permit.record_result(true, elapsed);
                if permit.has_postponed()
                    && let Err(error) = self.resume_postponed(stored.row.endpoint_id, &permit).await
                {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "postponed webhook deliveries could not be resumed"
                    );
                }
            }
            AttemptOutcome::Failed(..) => permit.record_result(false, elapsed),
            _ => {}
        }
        if let (AttemptOutcome::Failed(status, _), true) = (&outcome, is_visible)
            && let Some(reason) = self.disable_reason(&stored.row).await
        {
            outcome = AttemptOutcome::EndpointRefused(*status, reason.into());
        }
        if let Err(error) = self.record(stored, outcome, is_visible, at, began.elapsed()).await {
            // It is sent again when the claim ends.
            tracing::warn!(
                error = format!("{error:#}"),
                "the outcome of a webhook delivery could not be recorded"
            );
        }
    }

    /// The reason to disable an endpoint without a successful response for too long; otherwise `None`. A failing delivery
    /// ends after its last attempt; where the backlog is larger than what is attempted, the failures would never end.
    async fn disable_reason(&self, delivery: &WebhookDelivery) -> Option<String> {
        let total_delay =
            self.webhooks.backoff.iter().fold(Duration::ZERO, |sum, one| sum.saturating_add(*one));
        let limit = chrono_duration(DISABLE_AFTER.max(total_delay.saturating_mul(2)));
        let was_replayed =
            i64::try_from(delivery.log.len()).is_ok_and(|attempted| attempted > delivery.attempts);
        if was_replayed || now() - delivery.created_at < limit {
            return None;
        }
        let filter = json!({
            "endpoint_id": delivery.endpoint_id, "state": State::Delivered,
            "updated_at": {"gt": delivery.created_at},
        });
        let successes =
            self.engine.system_rows::<WebhookDelivery>(DELIVERIES, &filter, "id", 1).await.ok()?;
        let days = limit.num_days();
        successes.is_empty().then(|| format!("it had no successful delivery for {days} days"))
    }

    /// The endpoint of a delivery and what its owner may see of the event; an outcome where nothing is to be sent. Both
    /// depend on the application's own code, which may be slow or panic.
    async fn look_up_target(
        &self,
        delivery: &WebhookDelivery,
    ) -> Result<Result<(WebhookEndpoint, Event), AttemptOutcome>, Error> {
        let lookup = AssertUnwindSafe(self.look_up_unbounded(delivery)).catch_unwind();
        match tokio::time::timeout(LOOKUP_TIMEOUT, lookup).await {
            Ok(Ok(found)) => found,
            Ok(Err(_)) => Err(Error::internal("a rule or the lookup of a webhook's owner panicked")),
            Err(_) => Err(Error::internal("a rule or the lookup of a webhook's owner took too long")),
        }
    }

    async fn look_up_unbounded(
        &self,
        delivery: &WebhookDelivery,
    ) -> Result<Result<(WebhookEndpoint, Event), AttemptOutcome>, Error> {
        let filter = json!({"id": delivery.endpoint_id});
        let found = self.engine.system_rows::<WebhookEndpoint>(ENDPOINTS, &filter, "id", 1).await?.pop();
        let Some(endpoint) = found.map(|stored| stored.row) else {
            return Ok(Err(AttemptOutcome::Cancelled("the endpoint was deleted")));
        };
        if !endpoint.enabled {
            return Ok(Err(AttemptOutcome::Cancelled("the endpoint is disabled")));
        }
        let recorded = endpoint.owner.clone().map_or(Json::Null, Json::Object);
        let owner = match (self.webhooks.owners)(Actor::read(&recorded)).await {
            Ok(Some(owner)) => owner.with_included(&self.roles),
            Ok(None) => return Ok(Err(AttemptOutcome::EndpointRefused(None, "its owner is gone".into()))),
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), endpoint = %endpoint.id, "the owner of a webhook could not be looked up");
                return Ok(Err(AttemptOutcome::Failed(None, "its owner could not be looked up".to_owned())));
            }
        };
        let event: Event = serde_json::from_str(&delivery.event).map_err(Error::internal)?;
        let visible = self.engine.visible_event(&owner, &event).await?;
        Ok(visible.map(|event| (endpoint, event)).ok_or(AttemptOutcome::Withheld))
    }

    async fn send(
        &self,
        endpoint: &WebhookEndpoint,
        event: &Event,
        at: DateTime<Utc>,
    ) -> Result<AttemptOutcome, Error> {
        let target = match parse_target(&endpoint.url, self.webhooks.private_targets) {
            Ok(target) => target,
            Err(reason) => return Ok(AttemptOutcome::Failed(None, reason)),
        };
        if !endpoint.secrets.iter().any(|secret| secret.is_valid(at)) {
            let reason = "it has no secret to be signed with: `rotate-secret` mints one";
            return Ok(AttemptOutcome::Failed(None, reason.to_owned()));
        }
        let body = self.body(event)?;
        let id = event.id.to_string();
        let request = Request::post(target)
            .header(header::CONTENT_TYPE, "application/cloudevents+json")
            .header(header::USER_AGENT, concat!("resourceful/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", &id)
            .header("webhook-timestamp", at.timestamp())
            .header("webhook-signature", signatures(&endpoint.secrets, &id, at, &body))
            .body(Full::new(body))
            .map_err(Error::internal)?;
        Ok(match self.client.send(request, self.webhooks.deadline).await {
            Ok(status) if status.is_success() => AttemptOutcome::Delivered(status),
            Ok(StatusCode::GONE) => {
                AttemptOutcome::EndpointRefused(Some(StatusCode::GONE), "it answered 410 Gone".into())
            }
            Ok(status) if status.is_redirection() => {
                AttemptOutcome::Failed(Some(status), "redirects are not followed".to_owned())
            }
            Ok(status) => {
                AttemptOutcome::Failed(Some(status), "it was not answered with success (2xx)".to_owned())
            }
            Err(failure) => AttemptOutcome::Failed(None, failure_reason(failure.as_ref())),
        })
    }

    /// The event as JSON; without its data where it exceeds the size limit.
    fn body(&self, event: &Event) -> Result<Bytes, Error> {
        let body = serde_json::to_vec(event).map_err(Error::internal)?;
        if body.len() <= self.webhooks.payload_limit {
            return Ok(body.into());
        }
        let mut event = serde_json::to_value(event).map_err(Error::internal)?;
        if let Some(members) = event.as_object_mut() {
            members.retain(|name, _| !matches!(name.as_str(), "data" | "datacontenttype" | "dataschema"));
        }
        Ok(serde_json::to_vec(&event).map_err(Error::internal)?.into())
    }

    async fn record(
        &self,
        stored: SystemRow<WebhookDelivery>,
        outcome: AttemptOutcome,
        is_visible: bool,
        at: DateTime<Utc>,
        elapsed: Duration,
    ) -> Result<(), Error> {
        let SystemRow { row: mut delivery, version } = stored;
        let id = delivery.id.to_string();
        let was_visible = delivery.state != State::Queued;
        delivery.attempts += 1;
        let outcome = match outcome {
            AttemptOutcome::EndpointRefused(status, reason)
                if !self.disable(delivery.endpoint_id, at, &reason).await? =>
            {
                AttemptOutcome::Failed(status, reason.into_owned())
            }
            other => other,
        };
        let (state, next, status, reason) = match outcome {
            AttemptOutcome::Delivered(status) => (State::Delivered, None, Some(status), None),
            AttemptOutcome::Failed(status, reason) => match self.retry_delay(delivery.attempts) {
                Some(pause) => (State::Pending, Some(now() + pause), status, Some(reason)),
                None => (State::Failed, None, status, Some(reason)),
            },
            AttemptOutcome::EndpointRefused(status, reason) => {
                (State::Failed, None, status, Some(format!("{reason}: the endpoint is disabled")))
            }
            // A delivery that was never visible to its owner leaves no entry in the log.
            AttemptOutcome::Cancelled(_) | AttemptOutcome::Withheld if !was_visible => {
                self.engine.delete_system_row(DELIVERIES, &id, version).await?;
                return Ok(());
            }
            AttemptOutcome::Cancelled(reason) => (State::Cancelled, None, None, Some(reason.to_owned())),
            AttemptOutcome::Withheld => (
                State::Cancelled,
                None,
                None,
                Some("the endpoint's owner may not see it any more".to_owned()),
            ),
        };
        // Until it is known what the owner may see of the event, the delivery stays hidden.
        let state =
            if !was_visible && !is_visible && state == State::Pending { State::Queued } else { state };
        if !was_visible && !is_visible && state != State::Queued {
            tracing::warn!(delivery = id, reason, "a webhook delivery was abandoned before it was sent");
            self.engine.delete_system_row(DELIVERIES, &id, version).await?;
            return Ok(());
        }
        let milliseconds = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        let status = status.map(|status| status.as_u16());
        delivery.log.push(Attempt { at, status, reason, milliseconds });
        let excess = delivery.log.len().saturating_sub(MAX_LOG_ENTRIES);
        delivery.log.drain(..excess);
        let set = into_object(json!({
            "state": state, "attempts": delivery.attempts, "next_attempt_at": next, "log": delivery.log,
            "updated_at": now(),
        }));
        if !self.engine.update_system_row(DELIVERIES, &id, version, &set).await? {
            tracing::warn!(delivery = id, "another node sends this webhook now: it may be delivered twice");
        }
        Ok(())
    }

    /// The pause after so many attempts; `None` after the last one.
    fn retry_delay(&self, attempts: i64) -> Option<chrono::Duration> {
        let position = usize::try_from(attempts - 1).ok()?;
        let pause = *self.webhooks.backoff.get(position)?;
        // Up to a tenth longer, so that deliveries that failed together are not retried together for ever.
        let jitter = pause.mul_f64(f64::from(Uuid::new_v4().as_fields().0) / f64::from(u32::MAX) / 10.0);
        Some(chrono_duration(pause.saturating_add(jitter)))
    }

    /// Disables an endpoint; `false` where it was changed since then, so that the reason may no longer hold.
    async fn disable(&self, endpoint: Uuid, since: DateTime<Utc>, reason: &str) -> Result<bool, Error> {
        let filter = json!({"id": endpoint, "updated_at": {"lte": since}});
        if self.engine.system_rows::<WebhookEndpoint>(ENDPOINTS, &filter, "id", 1).await?.is_empty() {
            return Ok(false);
        }
        let patch = json!({"enabled": false, "disabled_reason": reason});
        tracing::info!(%endpoint, reason, "a webhook endpoint is disabled");
        let write = EnlistedWrite::Update(endpoint.to_string(), patch);
        self.engine.change_as_application(ENDPOINTS, write).await?;
        Ok(true)
    }
}

impl std::fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dispatcher").finish_non_exhaustive()
    }
}

/// Filter for deliveries that are to be sent, now or later.
fn pending_filter() -> Json {
    json!({"state": {"in": [State::Queued, State::Pending]}})
}

/// The outcome of a message that could not be prepared: it is tried again.
fn preparation_failed(error: &Error) -> AttemptOutcome {
    tracing::warn!(error = format!("{error:#}"), "a webhook could not be prepared");
    AttemptOutcome::Failed(None, format!("it could not be prepared: {}", error.detail()))
}

fn into_object(json: Json) -> Map<String, Json> {
    match json {
        Json::Object(fields) => fields,
        _ => Map::new(),
    }
}

/// The version of a row after one more change.
fn next_version(version: Version) -> Version {
    match version {
        Version::Counter(count) => Version::Counter(count + 1),
        other => other,
    }
}

/// The reason for a failed request, with all its known causes.
fn failure_reason(failure: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(failure), |failure| failure.source());
    let messages: Vec<String> = causes.map(ToString::to_string).collect();
    let mut reason = messages.join(": ");
    reason.retain(|character| !character.is_control());
    reason.chars().take(500).collect()
}
