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
use super::message::{Join, Message, Subscribe, invalid};
use super::room::Inside;
use crate::error::{Error, ErrorKind, Fault};
use crate::http::live::subscription::{
    EventsSubscription, ResourceSubscription, SubscribingCaller, types, who,
};
use crate::http::{Context, problem};
use crate::live::{Ending, Feed, Live, SocketMessage, Subscription, SubscriptionRequest};
use crate::nearest::suggest;
use crate::query::invalid_cursor;

/// The most subscriptions and rooms over one socket.
const MOST: usize = 100;
/// The timeout for beginning a subscription, and for the client to receive what is sent.
const PATIENCE: Duration = Duration::from_secs(30);
/// The timeout for the client to close its side.
const FAREWELL: Duration = Duration::from_secs(2);

/// Why a socket closes (RFC 6455, 7.4): a code, and a text for people.
type Close = (u16, &'static str);
const IDLE: Close = (1000, "nothing is followed");
const CLOSING: Close = (1001, "the server stops: connect again");
const UNREADABLE: Close = (1002, "a frame cannot be read");
const BINARY: Close = (1003, "messages are text");
const TOO_LARGE: Close = (1009, "a message may have 64 KiB");
const UNAVAILABLE: Close = (1013, "try again");
const UNAUTHENTICATED: Close = (4401, "unauthenticated");
const FORBIDDEN: Close = (4403, "forbidden");
const TOO_MANY: Close = (4429, "too many streams");

/// The subscriptions and rooms of one client over one socket.
pub(super) struct SocketSession {
    live: Arc<Live>,
    caller: Arc<SubscribingCaller>,
    /// The socket's own subscription in the hub, by which it is counted and ended.
    seat: Subscription,
    refusals: Arc<Refusals>,
    following: SelectAll<BoxStream<'static, (Arc<str>, SocketMessage)>>,
    open: HashMap<Arc<str>, Open>,
}

/// A subscription or room under one id.
struct Open {
    /// Ends it.
    end: AbortHandle,
    /// For a room: requests the list of its members.
    list: Option<Arc<Notify>>,
}

/// What error messages to the client are made of.
pub(super) struct Refusals {
    pub(super) base: String,
    pub(super) instance: String,
    pub(super) context: Context,
}

impl Refusals {
    fn text(&self, id: Option<&str>, error: &Error) -> String {
        let problem = problem::json(error, &self.base, &self.instance, &self.context);
        json!({"type": "error", "id": id, "problem": problem}).to_string()
    }
}

/// The next event of a session.
enum Next {
    Heard(Option<Result<Frame, axum::Error>>),
    Told(Arc<str>, SocketMessage),
    Beat,
    Closing,
}

/// How a session continues: with a message to send, without one, or not at all.
type Turn = Result<Option<String>, Option<Close>>;

impl SocketSession {
    pub(super) fn new(
        live: Arc<Live>,
        caller: Arc<SubscribingCaller>,
        seat: Subscription,
        refusals: Refusals,
    ) -> Self {
        let refusals = Arc::new(refusals);
        Self { live, caller, seat, refusals, following: SelectAll::new(), open: HashMap::new() }
    }

    /// Runs the session until either side ends it.
    pub(super) async fn over(mut self, mut socket: WebSocket) {
        let close = self.talk(&mut socket).await;
        // Subscriptions are released before the client is waited for.
        let Self { seat, following, .. } = self;
        drop(following);
        if let Some((code, reason)) = close {
            let frame = CloseFrame { code, reason: Utf8Bytes::from_static(reason) };
            let farewell = async {
                if socket.send(Frame::Close(Some(frame))).await.is_ok() {
                    while let Some(Ok(_)) = socket.recv().await {}
                }
            };
            // A client that does not answer is gone.
            _ = timeout(FAREWELL, farewell).await;
        }
        drop(seat);
    }

    async fn talk(&mut self, socket: &mut WebSocket) -> Option<Close> {
        let limits = self.live.hub.limits().clone();
        let mut beat = Instant::now() + limits.heartbeat;
        let (mut heard_at, mut followed_at) = (Instant::now(), Instant::now());
        loop {
            let next = tokio::select! {
                _ = self.seat.next() => Next::Closing,
                frame = socket.recv() => Next::Heard(frame),
                Some((id, told)) = self.following.next() => Next::Told(id, told),
                () = tokio::time::sleep_until(beat) => Next::Beat,
            };
            let now = Instant::now();
            let turn = match next {
                Next::Closing => return Some(CLOSING),
                Next::Heard(None) => return None,
                Next::Heard(Some(Err(error))) if is_too_large(&error) => return Some(TOO_LARGE),
                Next::Heard(Some(Err(_))) => return Some(UNREADABLE),
                Next::Heard(Some(Ok(frame))) => {
                    heard_at = now;
                    if matches!(frame, Frame::Ping(_) | Frame::Close(_)) && !self.flushed(socket).await {
                        return None;
                    }
                    self.answer(frame).await
                }
                Next::Told(id, told) => self.pass_on(&id, told),
                Next::Beat => {
                    beat = now + limits.heartbeat;
                    if !self.open.is_empty() {
                        followed_at = now;
                    }
                    if now - heard_at > 3 * limits.heartbeat {
                        // The client answers no pings: it is gone.
                        return None;
                    } else if now - followed_at > limits.idle {
                        return Some(IDLE);
                    }
                    if let Err(close) = self.look_again().await {
                        return Some(close);
                    }
                    if let Err(close) = self.send(socket, Frame::Ping(bytes::Bytes::new())).await {
                        return close;
                    }
                    Ok(None)
                }
            };
            match turn {
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
    async fn look_again(&mut self) -> Result<(), Close> {
        let actor = tokio::select! {
            actor = timeout(PATIENCE, self.caller.actor()) => actor,
            _ = self.seat.next() => return Err(CLOSING),
        };
        actor.map_err(|_| UNAVAILABLE)?.map(drop).map_err(|error| because(&error))
    }

    /// Sends a frame. A client that receives nothing for long is gone, and not waited for at the end.
    async fn send(&mut self, socket: &mut WebSocket, frame: Frame) -> Result<(), Option<Close>> {
        tokio::select! {
            sent = timeout(PATIENCE, socket.send(frame)) => match sent {
                Ok(Ok(())) => Ok(()),
                _ => Err(None),
            },
            _ = self.seat.next() => Err(Some(CLOSING)),
        }
    }

    /// Sends the replies of the protocol itself, which wait for a flush; returns whether the client received them.
    async fn flushed(&mut self, socket: &mut WebSocket) -> bool {
        tokio::select! {
            flushed = timeout(PATIENCE, socket.flush()) => matches!(flushed, Ok(Ok(()))),
            _ = self.seat.next() => true,
        }
    }

    /// Passes on a message under an id.
    fn pass_on(&mut self, id: &Arc<str>, told: SocketMessage) -> Turn {
        match told.end {
            Some(Ending::Unauthenticated) => return Err(Some(UNAUTHENTICATED)),
            Some(Ending::Alone) => drop(self.open.remove(id)),
            None => {}
        }
        Ok(told.text)
    }

    /// Handles a frame from the client.
    async fn answer(&mut self, frame: Frame) -> Turn {
        let text = match frame {
            Frame::Text(text) if text.len() > message::MOST_BYTES => return Err(Some(TOO_LARGE)),
            Frame::Text(text) => text,
            Frame::Binary(_) => return Err(Some(BINARY)),
            Frame::Ping(_) | Frame::Pong(_) => return Ok(None),
            Frame::Close(_) => return Err(None),
        };
        let (id, understood) = message::read(&text);
        let outcome = match understood {
            Ok(Message::Subscribe(id, asked)) => self.subscribe(id, *asked),
            Ok(Message::Join(id, asked)) => self.join(id, asked),
            Ok(Message::Members(id)) => self.list(&id),
            Ok(Message::Complete(id)) => Ok(Some(self.complete(&id))),
            Ok(Message::Authenticate(authorization)) => {
                self.authenticate(&authorization).await?;
                Ok(Some(json!({"type": "authenticated"}).to_string()))
            }
            Ok(Message::Ping) => Ok(Some(json!({"type": "pong"}).to_string())),
            Ok(Message::Pong) => Ok(None),
            Err(error) => Err(error),
        };
        outcome.or_else(|error| Ok(Some(self.refusals.text(id.as_deref(), &error))))
    }

    /// Ends what runs under an id. If nothing does any more, that is what was requested.
    fn complete(&mut self, id: &str) -> String {
        if let Some(open) = self.open.remove(id) {
            open.end.abort();
        }
        json!({"type": "complete", "id": id}).to_string()
    }

    async fn authenticate(&mut self, authorization: &str) -> Result<(), Option<Close>> {
        let shown = tokio::select! {
            shown = timeout(PATIENCE, self.caller.show(authorization)) => shown,
            _ = self.seat.next() => return Err(Some(CLOSING)),
        };
        let actor = match shown {
            Ok(Ok(actor)) => actor,
            Ok(Err(error)) => return Err(Some(because(&error))),
            Err(_) => return Err(Some(UNAVAILABLE)),
        };
        // From here on the socket is counted as theirs.
        self.live.hub.hand_over(&mut self.seat, who(&actor)).map_err(|_| Some(TOO_MANY))
    }

    fn subscribe(&mut self, id: String, mut asked: Subscribe) -> Result<Option<String>, Error> {
        let id = self.free(id)?;
        let claim = self.claim(&mut asked)?;
        let (live, after, name) = (self.live.clone(), asked.after, id.clone());
        let opened = in_time(async move { Feed::open(live, claim, after, invalid_place).await });
        self.follow(id, opened, None, move |feed| told(feed, name));
        Ok(None)
    }

    fn join(&mut self, id: String, asked: Join) -> Result<Option<String>, Error> {
        let id = self.free(id)?;
        let list = Arc::<Notify>::default();
        let (live, caller) = (self.live.clone(), self.caller.clone());
        let inside = Inside::enter(live, caller, id.clone(), asked, list.clone());
        self.follow(id, in_time(inside), Some(list), happening);
        Ok(None)
    }

    /// Has a room send the list of its members.
    fn list(&mut self, id: &str) -> Result<Option<String>, Error> {
        match self.open.get(id).and_then(|open| open.list.as_ref()) {
            Some(list) => list.notify_one(),
            None => return Err(invalid("/id", "unknown", "You are in no room under this id: `join` one.")),
        }
        Ok(None)
    }

    /// An id that is not in use yet, if the limit allows another one.
    fn free(&self, id: String) -> Result<Arc<str>, Error> {
        let id: Arc<str> = id.into();
        if self.open.contains_key(&id) {
            let detail = "Something is followed under this id already: end it, or give another.";
            return Err(Error::new(ErrorKind::Conflict, "id-taken", detail));
        }
        if self.open.len() >= MOST {
            let detail = format!("At most {MOST} are followed over one socket.");
            return Err(Error::new(ErrorKind::TooManyRequests, "too-many-streams", detail));
        }
        Ok(id)
    }

    /// Passes on the messages under an id, once what was requested has begun.
    fn follow<T, S: Stream<Item = SocketMessage> + Send + 'static>(
        &mut self,
        id: Arc<str>,
        opened: impl Future<Output = Result<T, Error>> + Send + 'static,
        list: Option<Arc<Notify>>,
        told: impl FnOnce(T) -> S + Send + 'static,
    ) where
        T: Send + 'static,
    {
        let (refusals, name) = (self.refusals.clone(), id.clone());
        let mut told = Some(told);
        let followed = stream::once(opened).flat_map(move |opened| match (opened, told.take()) {
            (Ok(begun), Some(told)) => told(begun).boxed(),
            (Ok(_), None) => stream::empty().boxed(),
            (Err(error), _) => {
                let text = refusals.text(Some(&name), &error);
                stream::iter([SocketMessage { text: Some(text), end: Some(Ending::Alone) }]).boxed()
            }
        });
        let (followed, end) = stream::abortable(followed);
        let named = id.clone();
        self.following.push(followed.map(move |told| (named.clone(), told)).boxed());
        self.open.insert(id, Open { end, list });
    }

    /// The subscription that a message requests.
    fn claim(&self, asked: &mut Subscribe) -> Result<Arc<dyn SubscriptionRequest>, Error> {
        let (engine, caller) = (&self.caller.boundary.engine, self.caller.clone());
        let body = asked.body();
        match (&asked.resource, &asked.types) {
            (Some(_), Some(_)) => Err(invalid("/types", "unknown", "Either `resource` or `types`.")),
            (Some(name), None) => {
                let entries = || engine.catalog.entries().iter().filter(|entry| entry.definition.streams());
                let Some(entry) = entries().find(|entry| *entry.name == **name).cloned() else {
                    let detail = format!("`{name}` is no resource that can be followed.");
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
                let types = types(engine, patterns).map_err(|unknown| {
                    let (index, detail) = unknown.into_iter().next().unwrap_or_default();
                    invalid(&format!("/types/{index}"), "unknown", detail)
                })?;
                Ok(Arc::new(EventsSubscription { caller, types }))
            }
        }
    }
}

/// Begins what is requested, with a timeout and with panics caught.
async fn in_time<T>(opening: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    match timeout(PATIENCE, AssertUnwindSafe(opening).catch_unwind()).await {
        Ok(Ok(opened)) => opened,
        Ok(Err(_)) => Err(Error::internal("a subscription panicked")),
        Err(_) => Err(Error::unavailable()),
    }
}

fn invalid_place() -> Error {
    let error = invalid_cursor("after");
    let detail = error.detail().to_owned();
    error.with_faults(vec![Fault::pointer("/after", "invalid-cursor", detail)])
}

/// The messages of a feed, which is dropped after its end.
fn told(feed: Feed, id: Arc<str>) -> impl Stream<Item = SocketMessage> + Send {
    stream::unfold(Some((feed, id)), |going_on| async move {
        let (mut feed, id) = going_on?;
        let said = AssertUnwindSafe(feed.next()).catch_unwind().await;
        let told = match said {
            Ok(said) => SocketMessage::of(&feed, &id, said?),
            Err(_) => SocketMessage::ended(&id, "unavailable"),
        };
        let going_on = told.end.is_none().then_some((feed, id));
        Some((told, going_on))
    })
}

/// The messages of a room, until the client leaves it.
fn happening(inside: Inside) -> impl Stream<Item = SocketMessage> + Send {
    stream::unfold(Some(inside), |going_on| async move {
        let mut inside = going_on?;
        let told = AssertUnwindSafe(inside.next()).catch_unwind().await;
        let told = told.unwrap_or_else(|_| SocketMessage::ended(inside.id(), "unavailable"));
        let going_on = told.end.is_none().then_some(inside);
        Some((told, going_on))
    })
}

/// Whether a message was not read for its size. The protocol's own error type is not available here; its text
/// identifies it.
fn is_too_large(error: &axum::Error) -> bool {
    let words = |error: &dyn std::error::Error| error.to_string().starts_with("Space limit exceeded");
    std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source()).any(words)
}

/// Why a socket closes whose caller is not admitted any more.
fn because(error: &Error) -> Close {
    match error.kind() {
        ErrorKind::Unauthenticated => UNAUTHENTICATED,
        ErrorKind::Forbidden | ErrorKind::NotFound => FORBIDDEN,
        _ => UNAVAILABLE,
    }
}
