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
use super::endpoint::{WebhookEndpoint, target};
use super::sign::signatures;
use super::throttle::{EndpointThrottles, LONGEST_PUT_OFF, Turn, WIDTH};
use super::{DELIVERIES, ENDPOINTS, Webhooks, span};
use crate::access::{Actor, RoleHierarchy};
use crate::clock::now;
use crate::engine::{Engine, SystemRow};
use crate::error::Error;
use crate::outbound::{Client, Failure, Reach};
use crate::outbox::Event;
use crate::resource::EnlistedWrite;

/// How many pages of due deliveries are searched for those that may be sent now.
const PAGES: usize = 32;
/// Time limit for looking up an endpoint's owner and what the owner may see.
const ASKED: Duration = Duration::from_secs(15);
/// How long an endpoint may go without a successful response while its backlog is larger than what is attempted.
const PATIENCE: Duration = Duration::from_secs(5 * 24 * 3600);
/// The field with the time at which a delivery is due.
const DUE: &str = "next_attempt_at";
/// How often due deliveries are polled.
const LOOK: Duration = Duration::from_secs(1);
/// How much longer a claim holds than all of its work may take.
const SPARE: Duration = Duration::from_secs(5);
/// How many deliveries are postponed in one commit, so that concurrent writers do not wait for long.
const PUT_OFF_AT_ONCE: u32 = 500;
/// How many postponed deliveries become due after a successful one.
const FOLLOW: u32 = 64;
/// How many attempts the log keeps.
const LOGGED: usize = 20;

/// Sends the messages of one application.
pub(crate) struct Dispatcher {
    engine: Arc<Engine>,
    webhooks: Webhooks,
    roles: RoleHierarchy,
    client: Client,
    woken: Notify,
    lines: EndpointThrottles,
}

/// A delivery that this node has claimed.
struct Claimed {
    own: SystemRow<WebhookDelivery>,
    turn: Turn,
}

/// The outcome of an attempt.
enum Outcome {
    /// The response was a success.
    Delivered(StatusCode),
    /// The attempt failed, and is to be repeated.
    Failed(Option<StatusCode>, String),
    /// The endpoint is to be disabled, for this reason.
    Refused(Option<StatusCode>, Cow<'static, str>),
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
        let reach = if webhooks.private_targets { Reach::Anywhere } else { Reach::Public };
        let client = Client::new(reach)?;
        Ok(Self {
            engine,
            webhooks,
            roles,
            client,
            woken: Notify::new(),
            lines: EndpointThrottles::default(),
        })
    }

    /// For how long new deliveries of an endpoint are postponed from the start.
    pub(super) fn puts_off(&self, endpoint: Uuid) -> Option<Duration> {
        self.lines.puts_off(endpoint)
    }

    /// Lets every endpoint be tried at once, whatever its earlier results.
    pub(crate) fn rest(&self) {
        self.lines.rested();
    }

    /// Wakes the dispatcher for new deliveries.
    pub(crate) fn wake(&self) {
        self.woken.notify_one();
    }

    /// Sends due deliveries, for as long as the application runs.
    pub(crate) async fn run(self: Arc<Self>) {
        // Separate tasks: deliveries under way hold connections, and must progress while the next are claimed.
        let mut under_way = JoinSet::new();
        loop {
            match self.next(WIDTH - under_way.len()).await {
                Ok(claimed) => {
                    let found = !claimed.is_empty();
                    for claimed in claimed {
                        let dispatcher = self.clone();
                        under_way.spawn(async move { dispatcher.deliver(claimed).await });
                    }
                    if found && under_way.len() < WIDTH {
                        continue;
                    }
                }
                Err(error) => {
                    tracing::warn!(error = format!("{error:#}"), "webhooks that are due could not be read");
                }
            }
            tokio::select! {
                Some(_) = under_way.join_next() => {}
                () = self.woken.notified() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Sends all deliveries that are due now, and returns when none is: for tests, and for programs that end.
    pub(crate) async fn drain(&self) -> Result<(), Error> {
        loop {
            self.lines.rested();
            let claimed = self.next(WIDTH).await?;
            if claimed.is_empty() {
                return Ok(());
            }
            let sent = futures::stream::iter(claimed.into_iter().map(|claimed| self.deliver(claimed)));
            sent.buffer_unordered(WIDTH).collect::<()>().await;
        }
    }

    /// Deletes deliveries that ended longer ago than the retention time.
    pub(crate) async fn sweep(&self) -> Result<(), Error> {
        let kept = chrono::Duration::from_std(self.webhooks.kept).ok();
        let Some(before) = kept.and_then(|kept| now().checked_sub_signed(kept)) else { return Ok(()) };
        let filter = json!({"state": {"in": State::ENDED}, "updated_at": {"lt": before}});
        self.engine.drop_all_own(DELIVERIES, &filter).await
    }

    /// Claims due deliveries of endpoints with free capacity, at most so many.
    async fn next(&self, most: usize) -> Result<Vec<Claimed>, Error> {
        for (endpoint, off) in self.lines.stuck() {
            self.put_off(endpoint, off).await?;
        }
        let mut claimed = Vec::with_capacity(most);
        let (mut limit, mut filter) = (most, self.due());
        for _ in 0..PAGES {
            if claimed.len() >= most {
                break;
            }
            let rows = u32::try_from(limit).unwrap_or(u32::MAX);
            let due = self.engine.own_rows::<WebhookDelivery>(DELIVERIES, &filter, DUE, rows).await?;
            let Some(last) = due.last().map(|own| (own.row.next_attempt_at, own.row.id)) else { break };
            for own in due {
                let Some(turn) = self.lines.enter(&own.row, most - claimed.len()) else { continue };
                match self.claim(own, turn).await {
                    Ok(taken) => claimed.extend(taken),
                    Err(error) => {
                        tracing::warn!(error = format!("{error:#}"), "a webhook could not be claimed");
                    }
                }
            }
            // The first due deliveries may be of endpoints without capacity: the others do not wait for them.
            filter = json!({"and": [
                self.due(),
                {"or": [{DUE: {"gt": last.0}}, {DUE: last.0, "id": {"gt": last.1}}]},
            ]});
            limit = WIDTH;
        }
        Ok(claimed)
    }

    /// Postpones an endpoint's due deliveries, so that a large backlog is not scanned each time.
    async fn put_off(&self, endpoint: Uuid, off: Duration) -> Result<(), Error> {
        let mut due = waiting();
        due["endpoint_id"] = json!(endpoint);
        due[DUE] = json!({"lte": now()});
        while self.reschedule(&due, PUT_OFF_AT_ONCE, now() + span(off)).await? {}
        Ok(())
    }

    /// Makes some postponed deliveries due now, as their endpoint responds again. Each success makes more of them due.
    async fn follow(&self, endpoint: Uuid, turn: &Turn) -> Result<(), Error> {
        let mut put_off = waiting();
        put_off["endpoint_id"] = json!(endpoint);
        put_off["attempts"] = json!(0);
        // Deliveries that are due sooner may be under way.
        put_off[DUE] = json!({"gt": now() + self.holds() + span(SPARE)});
        if !self.reschedule(&put_off, FOLLOW, now()).await? {
            turn.nothing_put_off();
        }
        self.wake();
        Ok(())
    }

    /// Reschedules the first deliveries that match a filter; returns whether there may be more.
    async fn reschedule(&self, filter: &Json, most: u32, at: DateTime<Utc>) -> Result<bool, Error> {
        let found = self.engine.own_rows::<WebhookDelivery>(DELIVERIES, filter, DUE, most).await?;
        let ids: Vec<Uuid> = found.iter().map(|own| own.row.id).collect();
        let mut these = filter.clone();
        these["id"] = json!({"in": ids});
        self.engine.set_all_own(DELIVERIES, &these, &fields(json!({DUE: at}))).await?;
        Ok(u32::try_from(ids.len()).is_ok_and(|count| count == most))
    }

    /// Filter for due deliveries, without those of endpoints that have no capacity. A time further ahead than the longest
    /// delay was written by a wrong clock: such a delivery is due.
    fn due(&self) -> Json {
        let (mut filter, now) = (waiting(), now());
        filter["or"] = json!([{DUE: {"lte": now}}, {DUE: {"gt": now + self.longest_delay()}}]);
        let busy = self.lines.busy();
        if !busy.is_empty() {
            filter["endpoint_id"] = json!({"nin": busy});
        }
        filter
    }

    /// How long a claim holds.
    fn holds(&self) -> chrono::Duration {
        span(self.webhooks.deadline.saturating_add(ASKED + SPARE))
    }

    /// The longest time between now and the due time of a delivery.
    fn longest_delay(&self) -> chrono::Duration {
        let pause = self.webhooks.pauses.iter().max().copied().unwrap_or_default();
        let pause = span(pause.saturating_add(pause / 10).max(LONGEST_PUT_OFF));
        pause.max(self.holds()) + span(SPARE)
    }

    /// Claims a delivery for this node; `None` where another node was faster.
    async fn claim(&self, own: SystemRow<WebhookDelivery>, turn: Turn) -> Result<Option<Claimed>, Error> {
        let set = fields(json!({DUE: now() + self.holds()}));
        let id = own.row.id.to_string();
        let is_ours = self.engine.set_own(DELIVERIES, &id, own.version, &set).await?;
        Ok(is_ours.then(|| Claimed { own: SystemRow { version: after(own.version), ..own }, turn }))
    }

    /// Attempts a delivery and records the outcome.
    async fn deliver(&self, Claimed { own, turn }: Claimed) {
        let (at, began) = (now(), Instant::now());
        let (mut is_shown, mut took) = (false, Duration::ZERO);
        let mut outcome = match self.addressed(&own.row).await {
            Ok(Ok((endpoint, shown))) => {
                let sending = Instant::now();
                let sent = self.send(&endpoint, &shown, at).await;
                (is_shown, took) = (true, sending.elapsed());
                sent.unwrap_or_else(|error| unprepared(&error))
            }
            Ok(Err(outcome)) => outcome,
            Err(error) => unprepared(&error),
        };
        match &outcome {
            Outcome::Delivered(_) => {
                turn.went(true, took);
                if turn.has_put_off()
                    && let Err(error) = self.follow(own.row.endpoint_id, &turn).await
                {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "webhooks that were put off could not be called up"
                    );
                }
            }
            Outcome::Failed(..) => turn.went(false, took),
            _ => {}
        }
        if let (Outcome::Failed(status, _), true) = (&outcome, is_shown)
            && let Some(reason) = self.loses_patience(&own.row).await
        {
            outcome = Outcome::Refused(*status, reason.into());
        }
        if let Err(error) = self.note(own, outcome, is_shown, at, began.elapsed()).await {
            // It is sent again when the claim ends.
            tracing::warn!(
                error = format!("{error:#}"),
                "what became of a webhook could not be written down"
            );
        }
    }

    /// The reason to disable an endpoint without a successful response for too long; otherwise `None`. A failing delivery
    /// ends after its last attempt; where the backlog is larger than what is attempted, the failures would never end.
    async fn loses_patience(&self, delivery: &WebhookDelivery) -> Option<String> {
        let pauses = self.webhooks.pauses.iter().fold(Duration::ZERO, |sum, one| sum.saturating_add(*one));
        let patience = span(PATIENCE.max(pauses.saturating_mul(2)));
        let was_replayed = i64::try_from(delivery.log.len()).is_ok_and(|tried| tried > delivery.attempts);
        if was_replayed || now() - delivery.created_at < patience {
            return None;
        }
        let filter = json!({
            "endpoint_id": delivery.endpoint_id, "state": State::Delivered,
            "updated_at": {"gt": delivery.created_at},
        });
        let answered = self.engine.own_rows::<WebhookDelivery>(DELIVERIES, &filter, "id", 1).await.ok()?;
        let days = patience.num_days();
        answered.is_empty().then(|| format!("it answered nothing with success for {days} days"))
    }

    /// The endpoint of a delivery and what its owner may see of the event; an outcome where nothing is to be sent. Both
    /// depend on the application's own code, which may be slow or panic.
    async fn addressed(
        &self,
        delivery: &WebhookDelivery,
    ) -> Result<Result<(WebhookEndpoint, Event), Outcome>, Error> {
        let asked = AssertUnwindSafe(self.looked_up(delivery)).catch_unwind();
        match tokio::time::timeout(ASKED, asked).await {
            Ok(Ok(found)) => found,
            Ok(Err(_)) => Err(Error::internal("a rule, or what looks up the owners of webhooks, panicked")),
            Err(_) => Err(Error::internal("a rule, or what looks up the owners of webhooks, took too long")),
        }
    }

    async fn looked_up(
        &self,
        delivery: &WebhookDelivery,
    ) -> Result<Result<(WebhookEndpoint, Event), Outcome>, Error> {
        let filter = json!({"id": delivery.endpoint_id});
        let found = self.engine.own_rows::<WebhookEndpoint>(ENDPOINTS, &filter, "id", 1).await?.pop();
        let Some(endpoint) = found.map(|own| own.row) else {
            return Ok(Err(Outcome::Cancelled("the endpoint was deleted")));
        };
        if !endpoint.enabled {
            return Ok(Err(Outcome::Cancelled("the endpoint is disabled")));
        }
        let recorded = endpoint.owner.clone().map_or(Json::Null, Json::Object);
        let owner = match (self.webhooks.owners)(Actor::read(&recorded)).await {
            Ok(Some(owner)) => owner.with_included(&self.roles),
            Ok(None) => return Ok(Err(Outcome::Refused(None, "its owner is gone".into()))),
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), endpoint = %endpoint.id, "the owner of a webhook could not be looked up");
                return Ok(Err(Outcome::Failed(None, "its owner could not be looked up".to_owned())));
            }
        };
        let event: Event = serde_json::from_str(&delivery.event).map_err(Error::internal)?;
        let shown = self.engine.shown_to(&owner, &event).await?;
        Ok(shown.map(|event| (endpoint, event)).ok_or(Outcome::Withheld))
    }

    async fn send(
        &self,
        endpoint: &WebhookEndpoint,
        event: &Event,
        at: DateTime<Utc>,
    ) -> Result<Outcome, Error> {
        let target = match target(&endpoint.url, self.webhooks.private_targets) {
            Ok(target) => target,
            Err(reason) => return Ok(Outcome::Failed(None, reason)),
        };
        if !endpoint.secrets.iter().any(|secret| secret.holds(at)) {
            let reason = "it has no secret to be signed with: `rotate-secret` mints one";
            return Ok(Outcome::Failed(None, reason.to_owned()));
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
            Ok(status) if status.is_success() => Outcome::Delivered(status),
            Ok(StatusCode::GONE) => Outcome::Refused(Some(StatusCode::GONE), "it answered 410 Gone".into()),
            Ok(status) if status.is_redirection() => {
                Outcome::Failed(Some(status), "redirects are not followed".to_owned())
            }
            Ok(status) => Outcome::Failed(Some(status), "it was not answered with success (2xx)".to_owned()),
            Err(failure) => Outcome::Failed(None, reason(failure.as_ref())),
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

    async fn note(
        &self,
        own: SystemRow<WebhookDelivery>,
        outcome: Outcome,
        is_shown: bool,
        at: DateTime<Utc>,
        took: Duration,
    ) -> Result<(), Error> {
        let SystemRow { row: mut delivery, version } = own;
        let id = delivery.id.to_string();
        let was_shown = delivery.state != State::Queued;
        delivery.attempts += 1;
        let outcome = match outcome {
            Outcome::Refused(status, reason) if !self.disable(delivery.endpoint_id, at, &reason).await? => {
                Outcome::Failed(status, reason.into_owned())
            }
            other => other,
        };
        let (state, next, status, reason) = match outcome {
            Outcome::Delivered(status) => (State::Delivered, None, Some(status), None),
            Outcome::Failed(status, reason) => match self.pause(delivery.attempts) {
                Some(pause) => (State::Pending, Some(now() + pause), status, Some(reason)),
                None => (State::Failed, None, status, Some(reason)),
            },
            Outcome::Refused(status, reason) => {
                (State::Failed, None, status, Some(format!("{reason}: the endpoint is disabled")))
            }
            // A delivery that was never visible to its owner leaves no entry in the log.
            Outcome::Cancelled(_) | Outcome::Withheld if !was_shown => {
                self.engine.drop_own(DELIVERIES, &id, version).await?;
                return Ok(());
            }
            Outcome::Cancelled(reason) => (State::Cancelled, None, None, Some(reason.to_owned())),
            Outcome::Withheld => (
                State::Cancelled,
                None,
                None,
                Some("the endpoint's owner may not see it any more".to_owned()),
            ),
        };
        // Until it is known what the owner may see of the event, the delivery stays hidden.
        let state = if !was_shown && !is_shown && state == State::Pending { State::Queued } else { state };
        if !was_shown && !is_shown && state != State::Queued {
            tracing::warn!(delivery = id, reason, "a webhook is given up before it was sent");
            self.engine.drop_own(DELIVERIES, &id, version).await?;
            return Ok(());
        }
        let milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let status = status.map(|status| status.as_u16());
        delivery.log.push(Attempt { at, status, reason, milliseconds });
        let forgotten = delivery.log.len().saturating_sub(LOGGED);
        delivery.log.drain(..forgotten);
        let set = fields(json!({
            "state": state, "attempts": delivery.attempts, "next_attempt_at": next, "log": delivery.log,
            "updated_at": now(),
        }));
        if !self.engine.set_own(DELIVERIES, &id, version, &set).await? {
            tracing::warn!(delivery = id, "another node sends this webhook now: it may come once more");
        }
        Ok(())
    }

    /// The pause after so many attempts; `None` after the last one.
    fn pause(&self, attempts: i64) -> Option<chrono::Duration> {
        let position = usize::try_from(attempts - 1).ok()?;
        let pause = *self.webhooks.pauses.get(position)?;
        // Up to a tenth longer, so that deliveries that failed together are not retried together for ever.
        let jitter = pause.mul_f64(f64::from(Uuid::new_v4().as_fields().0) / f64::from(u32::MAX) / 10.0);
        Some(span(pause.saturating_add(jitter)))
    }

    /// Disables an endpoint; `false` where it was changed since then, so that the reason may no longer hold.
    async fn disable(&self, endpoint: Uuid, since: DateTime<Utc>, reason: &str) -> Result<bool, Error> {
        let filter = json!({"id": endpoint, "updated_at": {"lte": since}});
        if self.engine.own_rows::<WebhookEndpoint>(ENDPOINTS, &filter, "id", 1).await?.is_empty() {
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
fn waiting() -> Json {
    json!({"state": {"in": [State::Queued, State::Pending]}})
}

/// The outcome of a message that could not be prepared: it is tried again.
fn unprepared(error: &Error) -> Outcome {
    tracing::warn!(error = format!("{error:#}"), "a webhook could not be prepared");
    Outcome::Failed(None, format!("it could not be prepared: {}", error.detail()))
}

fn fields(json: Json) -> Map<String, Json> {
    match json {
        Json::Object(fields) => fields,
        _ => Map::new(),
    }
}

/// The version of a row after one more change.
fn after(version: Version) -> Version {
    match version {
        Version::Counter(count) => Version::Counter(count + 1),
        other => other,
    }
}

/// The reason for a failed request, with all its known causes.
fn reason(failure: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(failure), |failure| failure.source());
    let said: Vec<String> = causes.map(ToString::to_string).collect();
    let mut reason = said.join(": ");
    reason.retain(|character| !character.is_control());
    reason.chars().take(500).collect()
}
