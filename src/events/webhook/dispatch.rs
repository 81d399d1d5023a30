//! Sends what is due to its endpoint, and writes down what became of it.
//!
//! Any number of nodes may send. Each claims a delivery before it sends it, by a time after which others may; the row's
//! version is the fence, so that a node which was stopped for longer than that writes down nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::StreamExt as _;
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
use super::{DELIVERIES, ENDPOINTS, Webhooks, span};
use crate::access::{Actor, RoleHierarchy};
use crate::engine::{Engine, Own, now};
use crate::error::Error;
use crate::events::Event;
use crate::outbound::{Client, Failure, Reach};
use crate::resource::EnlistedWrite;

/// How many messages are sent at once, and how many to one endpoint.
const WIDTH: usize = 64;
const EACH: usize = 4;
/// How long no other message is begun to an endpoint after one failed; each failure after doubles it.
const REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(60);
/// How often it is looked for what is due.
const LOOK: Duration = Duration::from_secs(1);
/// How much longer than twice the time that sending may take a claim holds.
const SPARE: Duration = Duration::from_secs(5);
/// How many attempts the log keeps.
const LOGGED: usize = 20;

/// What sends the messages of one application.
pub(crate) struct Dispatcher {
    engine: Arc<Engine>,
    webhooks: Webhooks,
    roles: RoleHierarchy,
    client: Client,
    woken: Notify,
    lines: Arc<Mutex<HashMap<Uuid, Line>>>,
}

/// Room for one message to an endpoint, until it is dropped.
struct Turn {
    lines: Arc<Mutex<HashMap<Uuid, Line>>>,
    endpoint: Uuid,
}

impl Turn {
    fn line(&self, change: impl FnOnce(&mut Line)) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = lines.get_mut(&self.endpoint) {
            change(line);
        }
    }

    /// Notes whether somebody answered as hoped.
    fn went(&self, well: bool) {
        self.line(|line| {
            if well {
                (line.failures, line.rests_until) = (0, None);
                return;
            }
            let rest = REST.saturating_mul(1 << line.failures.min(10)).min(LONGEST_REST);
            line.failures = line.failures.saturating_add(1);
            line.rests_until = Some(Instant::now() + rest);
        });
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.line(|line| line.under_way = line.under_way.saturating_sub(1));
    }
}

/// A delivery that this node may send.
struct Claimed {
    own: Own<WebhookDelivery>,
    turn: Turn,
}

/// How it goes with one endpoint, as this node sees it.
#[derive(Debug, Default)]
struct Line {
    under_way: usize,
    failures: u32,
    rests_until: Option<Instant>,
}

impl Line {
    fn is_busy(&self, now: Instant) -> bool {
        self.under_way >= EACH || self.rests_until.is_some_and(|until| until > now)
    }
}

/// What became of an attempt.
enum Outcome {
    /// It was answered with success.
    Delivered(StatusCode),
    /// It is to be tried again.
    Failed(Option<StatusCode>, String),
    /// The endpoint wants no more: it is disabled, for this reason.
    Refused(Option<StatusCode>, &'static str),
    /// There is nobody to send it to.
    Cancelled(&'static str),
    /// Its owner may not see it.
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
        Ok(Self { engine, webhooks, roles, client, woken: Notify::new(), lines: Arc::default() })
    }

    /// Says that there is something new.
    pub(crate) fn wake(&self) {
        self.woken.notify_one();
    }

    /// Sends what is due, for as long as the application runs.
    pub(crate) async fn run(self: Arc<Self>) {
        // Tasks of their own: what is under way holds connections, and must go on while the next are claimed.
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
                Err(error) => tracing::warn!(%error, "webhooks that are due could not be read"),
            }
            tokio::select! {
                Some(_) = under_way.join_next() => {}
                () = self.woken.notified() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Sends everything that is due now, and comes back when nothing is: for tests, and for programs that end.
    pub(crate) async fn drain(&self) -> Result<(), Error> {
        loop {
            self.rested();
            let claimed = self.next(WIDTH).await?;
            if claimed.is_empty() {
                return Ok(());
            }
            let sent = futures::stream::iter(claimed.into_iter().map(|claimed| self.deliver(claimed)));
            sent.buffer_unordered(WIDTH).collect::<()>().await;
        }
    }

    /// Forgets deliveries that ended long enough ago.
    pub(crate) async fn sweep(&self) -> Result<(), Error> {
        let kept = chrono::Duration::from_std(self.webhooks.kept).ok();
        let Some(before) = kept.and_then(|kept| now().checked_sub_signed(kept)) else { return Ok(()) };
        let filter = json!({"state": {"in": State::ENDED}, "updated_at": {"lt": before}});
        self.engine.drop_all_own(DELIVERIES, &filter).await
    }

    fn lines(&self) -> std::sync::MutexGuard<'_, HashMap<Uuid, Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims deliveries that are due, of endpoints that are not busy, at most so many.
    async fn next(&self, most: usize) -> Result<Vec<Claimed>, Error> {
        if most == 0 {
            return Ok(Vec::new());
        }
        let mut filter = json!({
            "state": {"in": [State::Queued, State::Pending]},
            "next_attempt_at": {"lte": now()},
        });
        let busy = self.busy();
        if !busy.is_empty() {
            filter["endpoint_id"] = json!({"nin": busy});
        }
        let limit = u32::try_from(most).unwrap_or(u32::MAX);
        let due =
            self.engine.own_rows::<WebhookDelivery>(DELIVERIES, &filter, "next_attempt_at", limit).await?;
        let mut claimed = Vec::with_capacity(due.len());
        for own in due {
            let Some(turn) = self.enter(own.row.endpoint_id) else { continue };
            match self.claim(own, turn).await {
                Ok(taken) => claimed.extend(taken),
                Err(error) => tracing::warn!(%error, "a webhook could not be claimed"),
            }
        }
        Ok(claimed)
    }

    /// Lets every endpoint be tried at once, however it went before.
    fn rested(&self) {
        for line in self.lines().values_mut() {
            (line.failures, line.rests_until) = (0, None);
        }
    }

    fn busy(&self) -> Vec<Uuid> {
        let now = Instant::now();
        let mut lines = self.lines();
        lines.retain(|_, line| line.under_way > 0 || line.failures > 0);
        let mut busy: Vec<_> =
            lines.iter().filter(|(_, line)| line.is_busy(now)).map(|(endpoint, _)| *endpoint).collect();
        // What a filter can hold; the others are passed by one by one.
        busy.truncate(1_000);
        busy
    }

    /// Begins something with an endpoint, where it has room.
    fn enter(&self, endpoint: Uuid) -> Option<Turn> {
        let mut lines = self.lines();
        let line = lines.entry(endpoint).or_default();
        if line.is_busy(Instant::now()) {
            return None;
        }
        line.under_way += 1;
        Some(Turn { lines: self.lines.clone(), endpoint })
    }

    /// Takes a delivery for this node; nothing where another one was quicker.
    async fn claim(&self, own: Own<WebhookDelivery>, turn: Turn) -> Result<Option<Claimed>, Error> {
        let holds = span(self.webhooks.deadline.saturating_mul(2).saturating_add(SPARE));
        let set = fields(json!({"next_attempt_at": now() + holds}));
        let id = own.row.id.to_string();
        let is_ours = self.engine.set_own(DELIVERIES, &id, own.version, &set).await?;
        Ok(is_ours.then(|| Claimed { own: Own { version: after(own.version), ..own }, turn }))
    }

    /// Tries a delivery and writes down what became of it.
    async fn deliver(&self, Claimed { own, turn }: Claimed) {
        let (at, began) = (now(), Instant::now());
        let mut event = None;
        let outcome = match self.attempt(&own.row, at, &mut event).await {
            Ok(outcome) => outcome,
            Err(error) => Outcome::Failed(None, format!("it could not be prepared: {}", error.detail())),
        };
        match &outcome {
            Outcome::Delivered(_) => turn.went(true),
            Outcome::Failed(..) => turn.went(false),
            _ => {}
        }
        if let Err(error) = self.note(own, outcome, event, at, began.elapsed()).await {
            // It is sent once more when the claim ends.
            tracing::warn!(%error, "what became of a webhook could not be written down");
        }
    }

    /// Sends a message, where there is somebody who may have it. `shown` is what of the event that was.
    async fn attempt(
        &self,
        delivery: &WebhookDelivery,
        at: DateTime<Utc>,
        shown: &mut Option<Event>,
    ) -> Result<Outcome, Error> {
        let filter = json!({"id": delivery.endpoint_id});
        let found = self.engine.own_rows::<WebhookEndpoint>(ENDPOINTS, &filter, "id", 1).await?.pop();
        let Some(endpoint) = found.map(|own| own.row) else {
            return Ok(Outcome::Cancelled("the endpoint was deleted"));
        };
        if !endpoint.enabled {
            return Ok(Outcome::Cancelled("the endpoint is disabled"));
        }
        let recorded = endpoint.owner.clone().map_or(Json::Null, Json::Object);
        let owner = match (self.webhooks.owners)(Actor::read(&recorded)).await {
            Ok(Some(owner)) => owner.with_included(&self.roles),
            Ok(None) => return Ok(Outcome::Refused(None, "its owner is gone")),
            Err(error) => {
                tracing::warn!(%error, endpoint = %endpoint.id, "the owner of a webhook could not be looked up");
                return Ok(Outcome::Failed(None, "its owner could not be looked up".to_owned()));
            }
        };
        let event: Event = serde_json::from_str(&delivery.event).map_err(Error::internal)?;
        *shown = self.engine.shown_to(&owner, &event).await?;
        match shown {
            Some(event) => self.send(&endpoint, event, at).await,
            None => Ok(Outcome::Withheld),
        }
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
            Ok(StatusCode::GONE) => Outcome::Refused(Some(StatusCode::GONE), "it answered 410 Gone"),
            Ok(status) if status.is_redirection() => {
                Outcome::Failed(Some(status), "redirects are not followed".to_owned())
            }
            Ok(status) => Outcome::Failed(Some(status), "it was not answered with success (2xx)".to_owned()),
            Err(failure) => Outcome::Failed(None, reason(failure.as_ref())),
        })
    }

    /// The event as JSON; without its data where that is too long.
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
        own: Own<WebhookDelivery>,
        outcome: Outcome,
        shown: Option<Event>,
        at: DateTime<Utc>,
        took: Duration,
    ) -> Result<(), Error> {
        let Own { row: mut delivery, version } = own;
        let id = delivery.id.to_string();
        let was_shown = delivery.state != State::Queued;
        delivery.attempts += 1;
        let (state, next, status, reason) = match outcome {
            Outcome::Delivered(status) => (State::Delivered, None, Some(status), None),
            Outcome::Failed(status, reason) => match self.pause(delivery.attempts) {
                Some(pause) => (State::Pending, Some(now() + pause), status, Some(reason)),
                None => (State::Failed, None, status, Some(reason)),
            },
            Outcome::Refused(status, reason) => {
                self.disable(delivery.endpoint_id, reason).await?;
                (State::Failed, None, status, Some(format!("{reason}: the endpoint is disabled")))
            }
            // What nobody was to know of is not in the log.
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
        // Before it is known what may be seen of it, it stays unseen.
        let state =
            if !was_shown && shown.is_none() && state == State::Pending { State::Queued } else { state };
        if !was_shown && shown.is_none() && state != State::Queued {
            tracing::warn!(delivery = id, reason, "a webhook is given up before it was sent");
            self.engine.drop_own(DELIVERIES, &id, version).await?;
            return Ok(());
        }
        let milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let status = status.map(|status| status.as_u16());
        delivery.log.push(Attempt { at, status, reason, milliseconds });
        let forgotten = delivery.log.len().saturating_sub(LOGGED);
        delivery.log.drain(..forgotten);
        let mut set = fields(json!({
            "state": state, "attempts": delivery.attempts, "next_attempt_at": next, "log": delivery.log,
            "updated_at": now(),
        }));
        if let Some(shown) = shown {
            let shown = serde_json::to_string(&shown).map_err(Error::internal)?;
            set.insert("event".to_owned(), shown.into());
        }
        if !self.engine.set_own(DELIVERIES, &id, version, &set).await? {
            tracing::warn!(delivery = id, "another node sends this webhook now: it may come once more");
        }
        Ok(())
    }

    /// How long to wait after so many attempts; `None` where those were all.
    fn pause(&self, attempts: i64) -> Option<chrono::Duration> {
        let position = usize::try_from(attempts - 1).ok()?;
        let pause = *self.webhooks.pauses.get(position)?;
        // Up to a tenth longer, so that what failed together is not tried together for ever.
        let jitter = pause.mul_f64(f64::from(Uuid::new_v4().as_fields().0) / f64::from(u32::MAX) / 10.0);
        Some(span(pause.saturating_add(jitter)))
    }

    async fn disable(&self, endpoint: Uuid, reason: &str) -> Result<(), Error> {
        let patch = json!({"enabled": false, "disabled_reason": reason});
        tracing::info!(%endpoint, reason, "a webhook endpoint is disabled");
        let write = EnlistedWrite::Update(endpoint.to_string(), patch);
        self.engine.change_as_application(ENDPOINTS, write).await
    }
}

impl std::fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dispatcher").finish_non_exhaustive()
    }
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

/// Why nobody answered, as deep as it is known.
fn reason(failure: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(failure), |failure| failure.source());
    let said: Vec<String> = causes.map(ToString::to_string).collect();
    let mut reason = said.join(": ");
    reason.retain(|character| !character.is_control());
    reason.chars().take(500).collect()
}
