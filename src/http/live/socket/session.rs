//! The session of one socket: client messages are answered in turn, and messages of subscriptions are sent as they
//! come.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message as Frame, Utf8Bytes, WebSocket};
use futures::stream::{self, AbortHandle, BoxStream, SelectAll, Stream};
use futures::{FutureExt as _, SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::message;
use super::message::{ClientMessage, Join, Subscribe, invalid};
use super::room::RoomSession;
use crate::error::{Error, ErrorKind, Fault};
use crate::http::live::subscription::{
    EventsSubscription, ResourceSubscription, SubscribingCaller, parse_types, subscriber_identity,
};
use crate::http::{Context, problem};
use crate::live::{Feed, Live, SocketMessage, Subscription, SubscriptionEnd, SubscriptionRequest};
use crate::nearest::suggest;
use crate::query::invalid_cursor;

/// The most subscriptions and rooms over one socket.
const MAX_SUBSCRIPTIONS: usize = 100;
/// The timeout for beginning a subscription, and for the client to receive what is sent.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The timeout for the client to close its side.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a socket closes (RFC 6455, 7.4): a code, and a text for people.
type CloseReason = (u16, &'static str);
const IDLE: CloseReason = (1000, "no subscription is open");
const CLOSING: CloseReason = (1001, "the server stops: connect again");
const UNREADABLE: CloseReason = (1002, "a frame cannot be read");
const BINARY: CloseReason = (1003, "messages are text");
const TOO_LARGE: CloseReason = (1009, "a message may have 64 KiB");
const UNAVAILABLE: CloseReason = (1013, "try again");
const UNAUTHENTICATED: CloseReason = (4401, "unauthenticated");
const FORBIDDEN: CloseReason = (4403, "forbidden");
const TOO_MANY: CloseReason = (4429, "too many streams");

/// The subscriptions and rooms of one client over one socket.
pub(super) struct SocketSession {
    live: Arc<Live>,
    caller: Arc<SubscribingCaller>,
    /// The socket's own subscription in the hub, by which it is counted and ended.
    slot: Subscription,
    problem_context: Arc<ProblemContext>,
    messages: SelectAll<BoxStream<'static, (Arc<str>, SocketMessage)>>,
    open: HashMap<Arc<str>, OpenSubscription>,
}

/// A subscription or room under one id.
struct OpenSubscription {
    /// Ends it.
    end: AbortHandle,
    /// For a room: requests the list of its members.
    list_requests: Option<Arc<Notify>>,
}

/// What error messages to the client are made of.
pub(super) struct ProblemContext {
    pub(super) problem_base: String,
    pub(super) instance: String,
    pub(super) context: Context,
}

impl ProblemContext {
    fn error_message(&self, id: Option<&str>, error: &Error) -> String {
        let problem = problem::json(error, &self.problem_base, &self.instance, &self.context);
        json!({"type": "error", "id": id, "problem": problem}).to_string()
    }
}

/// The next event of a session.
enum SessionEvent {
    Received(Option<Result<Frame, axum::Error>>),
    Outgoing(Arc<str>, SocketMessage),
    Heartbeat,
    Closing,
}

/// How a session continues: with a message to send, without one, or not at all.
type StepResult = Result<Option<String>, Option<CloseReason>>;

impl SocketSession {
    pub(super) fn new(
        live: Arc<Live>,
        caller: Arc<SubscribingCaller>,
        slot: Subscription,
        problem_context: ProblemContext,
    ) -> Self {
        let problem_context = Arc::new(problem_context);
        Self { live, caller, slot, problem_context, messages: SelectAll::new(), open: HashMap::new() }
    }

    /// Runs the session until either side ends it.
    pub(super) async fn run(mut self, mut socket: WebSocket) {
        let close = self.run_loop(&mut socket).await;
        // Subscriptions are released before the client is waited for.
        let Self { slot, messages, .. } = self;
        drop(messages);
        if let Some((code, reason)) = close {
            let frame = CloseFrame { code, reason: Utf8Bytes::from_static(reason) };
            let close_handshake = async {
                if socket.send(Frame::Close(Some(frame))).await.is_ok() {
                    while let Some(Ok(_)) = socket.recv().await {}
                }
            };
            // A client that does not answer is gone.
            _ = timeout(CLOSE_TIMEOUT, close_handshake).await;
        }
        drop(slot);
    }

    async fn run_loop(&mut self, socket: &mut WebSocket) -> Option<CloseReason> {
        let limits = self.live.hub.limits().clone();
        let mut next_heartbeat = Instant::now() + limits.heartbeat;
        let (mut last_received, mut last_active) = (Instant::now(), Instant::now());
        loop {
            let next = tokio::select! {
                _ = self.slot.next() => SessionEvent::Closing,
                frame = socket.recv() => SessionEvent::Received(frame),
                Some((id, message)) = self.messages.next() => SessionEvent::Outgoing(id, message),
                () = tokio::time::sleep_until(next_heartbeat) => SessionEvent::Heartbeat,
            };
            let now = Instant::now();
            let step = match next {
                SessionEvent::Closing => return Some(CLOSING),
                SessionEvent::Received(None) => return None,
                SessionEvent::Received(Some(Err(error))) if is_too_large(&error) => return Some(TOO_LARGE),
                SessionEvent::Received(Some(Err(_))) => return Some(UNREADABLE),
                SessionEvent::Received(Some(Ok(frame))) => {
                    last_received = now;
                    if matches!(frame, Frame::Ping(_) | Frame::Close(_)) && !self.flush(socket).await {
                        return None;
                    }
                    self.handle_frame(frame).await
                }
                SessionEvent::Outgoing(id, message) => self.forward(&id, message),
                SessionEvent::Heartbeat => {
                    next_heartbeat = now + limits.heartbeat;
                    if !self.open.is_empty() {
                        last_active = now;
                    }
                    if now - last_received > 3 * limits.heartbeat {
                        // The client answers no pings: it is gone.
                        return None;
                    } else if now - last_active > limits.idle {
                        return Some(IDLE);
                    }
                    if let Err(close) = self.check_credential().await {
                        return Some(close);
                    }
                    if let Err(close) = self.send(socket, Frame::Ping(bytes::Bytes::new())).await {
                        return close;
                    }
                    Ok(None)
                }
            };
            match step {
                Ok(None) => {}
                Ok(Some(text)) => {
                    if let Err(close) = self.send(socket, Frame::Text(text.into())).await {
                        return close;
                    }
                }
                Err(close) => return close,
            }
        }
    }

    /// Checks again whether the credential is valid.
    async fn check_credential(&mut self) -> Result<(), CloseReason> {
        let actor = tokio::select! {
            actor = timeout(TIMEOUT, self.caller.actor()) => actor,
            _ = self.slot.next() => return Err(CLOSING),
        };
        actor.map_err(|_| UNAVAILABLE)?.map(drop).map_err(|error| close_reason(&error))
    }

    /// Sends a frame. A client that receives nothing for long is gone, and not waited for at the end.
    async fn send(&mut self, socket: &mut WebSocket, frame: Frame) -> Result<(), Option<CloseReason>> {
        tokio::select! {
            sent = timeout(TIMEOUT, socket.send(frame)) => match sent {
                Ok(Ok(())) => Ok(()),
                _ => Err(None),
            },
            _ = self.slot.next() => Err(Some(CLOSING)),
        }
    }

    /// Sends the replies of the protocol itself, which wait for a flush; returns whether the client received them.
    async fn flush(&mut self, socket: &mut WebSocket) -> bool {
        tokio::select! {
            flushed = timeout(TIMEOUT, socket.flush()) => matches!(flushed, Ok(Ok(()))),
            _ = self.slot.next() => true,
        }
    }

    /// Passes on a message under an id.
    fn forward(&mut self, id: &Arc<str>, message: SocketMessage) -> StepResult {
        match message.end {
            Some(SubscriptionEnd::Unauthenticated) => return Err(Some(UNAUTHENTICATED)),
            Some(SubscriptionEnd::KeepSocket) => drop(self.open.remove(id)),
            None => {}
        }
        Ok(message.text)
    }

    /// Handles a frame from the client.
    async fn handle_frame(&mut self, frame: Frame) -> StepResult {
        let text = match frame {
            Frame::Text(text) if text.len() > message::MAX_MESSAGE_BYTES => return Err(Some(TOO_LARGE)),
            Frame::Text(text) => text,
            Frame::Binary(_) => return Err(Some(BINARY)),
            Frame::Ping(_) | Frame::Pong(_) => return Ok(None),
            Frame::Close(_) => return Err(None),
        };
        let (id, parsed) = message::parse(&text);
        let outcome = match parsed {
            Ok(ClientMessage::Subscribe(id, request)) => self.subscribe(id, *request),
            Ok(ClientMessage::Join(id, request)) => self.join(id, request),
            Ok(ClientMessage::Members(id)) => self.request_members(&id),
            Ok(ClientMessage::Complete(id)) => Ok(Some(self.complete(&id))),
            Ok(ClientMessage::Authenticate(authorization)) => {
                self.authenticate(&authorization).await?;
                Ok(Some(json!({"type": "authenticated"}).to_string()))
            }
            Ok(ClientMessage::Ping) => Ok(Some(json!({"type": "pong"}).to_string())),
            Ok(ClientMessage::Pong) => Ok(None),
            Err(error) => Err(error),
        };
        outcome.or_else(|error| Ok(Some(self.problem_context.error_message(id.as_deref(), &error))))
    }

    /// Ends what runs under an id. If nothing does any more, that is what was requested.
    fn complete(&mut self, id: &str) -> String {
        if let Some(open) = self.open.remove(id) {
            open.end.abort();
        }
        json!({"type": "complete", "id": id}).to_string()
    }

    async fn authenticate(&mut self, authorization: &str) -> Result<(), Option<CloseReason>> {
        let authenticated = tokio::select! {
            authenticated = timeout(TIMEOUT, self.caller.reauthenticate(authorization)) => authenticated,
            _ = self.slot.next() => return Err(Some(CLOSING)),
        };
        let actor = match authenticated {
            Ok(Ok(actor)) => actor,
            Ok(Err(error)) => return Err(Some(close_reason(&error))),
            Err(_) => return Err(Some(UNAVAILABLE)),
        };
        // From here on the socket is counted as theirs.
        self.live.hub.change_identity(&mut self.slot, subscriber_identity(&actor)).map_err(|_| Some(TOO_MANY))
    }

    fn subscribe(&mut self, id: String, mut request: Subscribe) -> Result<Option<String>, Error> {
        let id = self.check_id(id)?;
        let claim = self.subscription_request(&mut request)?;
        let (live, after, name) = (self.live.clone(), request.after, id.clone());
        let opened = with_timeout(async move { Feed::open(live, claim, after, invalid_position).await });
        self.add_messages(id, opened, None, move |feed| feed_messages(feed, name));
        Ok(None)
    }

    fn join(&mut self, id: String, request: Join) -> Result<Option<String>, Error> {
        let id = self.check_id(id)?;
        let list_requests = Arc::<Notify>::default();
        let (live, caller) = (self.live.clone(), self.caller.clone());
        let room_session = RoomSession::join(live, caller, id.clone(), request, list_requests.clone());
        self.add_messages(id, with_timeout(room_session), Some(list_requests), room_messages);
        Ok(None)
    }

    /// Has a room send the list of its members.
    fn request_members(&mut self, id: &str) -> Result<Option<String>, Error> {
        match self.open.get(id).and_then(|open| open.list_requests.as_ref()) {
            Some(list_requests) => list_requests.notify_one(),
            None => return Err(invalid("/id", "unknown", "No room is joined under this id: `join` one.")),
        }
        Ok(None)
    }

    /// An id that is not in use yet, if the limit allows another one.
    fn check_id(&self, id: String) -> Result<Arc<str>, Error> {
        let id: Arc<str> = id.into();
        if self.open.contains_key(&id) {
            let detail = "A subscription with this id is open already: end it, or use another id.";
            return Err(Error::new(ErrorKind::Conflict, "id-taken", detail));
        }
        if self.open.len() >= MAX_SUBSCRIPTIONS {
            let detail = format!("At most {MAX_SUBSCRIPTIONS} subscriptions are allowed over one socket.");
            return Err(Error::new(ErrorKind::TooManyRequests, "too-many-streams", detail));
        }
        Ok(id)
    }

    /// Passes on the messages under an id, once what was requested has begun.
    fn add_messages<T, S: Stream<Item = SocketMessage> + Send + 'static>(
        &mut self,
        id: Arc<str>,
        opened: impl Future<Output = Result<T, Error>> + Send + 'static,
        list_requests: Option<Arc<Notify>>,
        into_messages: impl FnOnce(T) -> S + Send + 'static,
    ) where
        T: Send + 'static,
    {
        let (problem_context, name) = (self.problem_context.clone(), id.clone());
        let mut into_messages = Some(into_messages);
        let followed = stream::once(opened).flat_map(move |opened| match (opened, into_messages.take()) {
            (Ok(begun), Some(into_messages)) => into_messages(begun).boxed(),
            (Ok(_), None) => stream::empty().boxed(),
            (Err(error), _) => {
                let text = problem_context.error_message(Some(&name), &error);
                stream::iter([SocketMessage { text: Some(text), end: Some(SubscriptionEnd::KeepSocket) }])
                    .boxed()
            }
        });
        let (followed, end) = stream::abortable(followed);
        let named = id.clone();
        self.messages.push(followed.map(move |message| (named.clone(), message)).boxed());
        self.open.insert(id, OpenSubscription { end, list_requests });
    }

    /// The subscription that a message requests.
    fn subscription_request(&self, request: &mut Subscribe) -> Result<Arc<dyn SubscriptionRequest>, Error> {
        let (engine, caller) = (&self.caller.state.engine, self.caller.clone());
        let body = request.body();
        match (&request.resource, &request.types) {
            (Some(_), Some(_)) => Err(invalid("/types", "unknown", "Either `resource` or `types`.")),
            (Some(name), None) => {
                let entries =
                    || engine.catalog.entries().iter().filter(|entry| entry.definition.has_streams());
                let Some(entry) = entries().find(|entry| *entry.name == **name).cloned() else {
                    let detail = format!("`{name}` is not a resource that can be subscribed to.");
                    let detail = suggest(detail, name, entries().map(|entry| &*entry.name));
                    return Err(invalid("/resource", "unknown", detail));
                };
                Ok(Arc::new(ResourceSubscription { caller, entry, body: Some(Box::new(body)) }))
            }
            (None, patterns) => {
                if let Some((name, _)) = body.as_object().and_then(|members| members.iter().next()) {
                    return Err(invalid(&format!("/{name}"), "unknown", "Name a `resource` for this."));
                }
                let patterns = patterns.iter().flatten().map(String::as_str);
                let types = parse_types(engine, patterns).map_err(|unknown| {
                    let (index, detail) = unknown.into_iter().next().unwrap_or_default();
                    invalid(&format!("/types/{index}"), "unknown", detail)
                })?;
                Ok(Arc::new(EventsSubscription { caller, types }))
            }
        }
    }
}

/// Begins what is requested, with a timeout and with panics caught.
async fn with_timeout<T>(opening: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    match timeout(TIMEOUT, AssertUnwindSafe(opening).catch_unwind()).await {
        Ok(Ok(opened)) => opened,
        Ok(Err(_)) => Err(Error::internal("a subscription panicked")),
        Err(_) => Err(Error::unavailable()),
    }
}

fn invalid_position() -> Error {
    let error = invalid_cursor("after");
    let detail = error.detail().to_owned();
    error.with_faults(vec![Fault::pointer("/after", "invalid-cursor", detail)])
}

/// The messages of a feed, which is dropped after its end.
fn feed_messages(feed: Feed, id: Arc<str>) -> impl Stream<Item = SocketMessage> + Send {
    stream::unfold(Some((feed, id)), |feed_state| async move {
        let (mut feed, id) = feed_state?;
        let item = AssertUnwindSafe(feed.next()).catch_unwind().await;
        let message = match item {
            Ok(item) => SocketMessage::of(&feed, &id, item?),
            Err(_) => SocketMessage::complete(&id, "unavailable"),
        };
        let feed_state = message.end.is_none().then_some((feed, id));
        Some((message, feed_state))
    })
}

/// The messages of a room, until the client leaves it.
fn room_messages(room_session: RoomSession) -> impl Stream<Item = SocketMessage> + Send {
    stream::unfold(Some(room_session), |feed_state| async move {
        let mut room_session = feed_state?;
        let message = AssertUnwindSafe(room_session.next()).catch_unwind().await;
        let message = message.unwrap_or_else(|_| SocketMessage::complete(room_session.id(), "unavailable"));
        let feed_state = message.end.is_none().then_some(room_session);
        Some((message, feed_state))
    })
}

/// Whether a message was not read for its size. The protocol's own error type is not available here; its text
/// identifies it.
fn is_too_large(error: &axum::Error) -> bool {
    let is_size_error = |error: &dyn std::error::Error| error.to_string().starts_with("Space limit exceeded");
    std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source()).any(is_size_error)
}

/// Why a socket closes whose caller is not admitted any more.
fn close_reason(error: &Error) -> CloseReason {
    match error.kind() {
        ErrorKind::Unauthenticated => UNAUTHENTICATED,
        ErrorKind::Forbidden | ErrorKind::NotFound => FORBIDDEN,
        _ => UNAVAILABLE,
    }
}
