//! One connection, as its limits see it: it waits for a request, is idle, is busy, or holds what its peer does not take.
//!
//! No limit has a timer of its own. Events record when something began; one timer per connection checks that when the
//! first of its limits could have passed.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use super::limits::ConnectionLimits;
use super::registry::Registry;

/// How many large responses one HTTP/2 connection may wait for or hold at once; further requests on it wait for a permit,
/// which costs nothing.
const ANSWERS_AT_ONCE: usize = 16;

/// How long a connection without a request is kept when the server stops: a request that is under way to it is answered,
/// and the response announces that the connection closes.
pub(super) const LINGER: Duration = Duration::from_millis(500);

/// A connection of the server.
#[derive(Debug)]
pub(in crate::app) struct Connection {
    pub(super) registry: Arc<Registry>,
    pub(in crate::app) peer: IpAddr,
    number: u64,
    /// Whether it exceeds the limit of connections, and is for health checks only.
    pub(in crate::app) is_beyond: bool,
    /// Permits for the requests of an HTTP/2 connection.
    pub(super) turns: Arc<Semaphore>,
    state: Mutex<State>,
    /// Whether the next byte that is read begins a request head.
    rests: AtomicBool,
    closed: Notify,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// Since when it is in that phase.
    since: Instant,
    /// The number of requests under way.
    requests: usize,
    is_http2: bool,
    /// Whether WebSockets may be open inside of it, which no request shows.
    has_tunnels: bool,
    is_closing: bool,
    /// Since when its peer takes nothing that was written.
    blocked: Option<Instant>,
    /// How many bodies wait for their HTTP/2 peer to take more, and since when it has taken nothing.
    waiting: usize,
    taken: Instant,
    /// The bytes of large responses that are not taken yet, and since when there are any.
    held: usize,
    held_since: Instant,
    /// Since when the server is stopping.
    stopping: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No request has come yet, or one has begun to.
    Head,
    /// Idle between two requests.
    Rest,
    Busy,
    /// A WebSocket, which has limits of its own.
    Socket,
}

/// The verdict of the limits on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is to be closed, for this reason.
    Close(&'static str),
    /// It is to be checked again at this time.
    Until(Instant),
}

impl Connection {
    pub(super) fn new(registry: Arc<Registry>, peer: IpAddr, number: u64, is_beyond: bool) -> Self {
        let now = Instant::now();
        let state = State {
            phase: Phase::Head,
            since: now,
            requests: 0,
            is_http2: false,
            has_tunnels: false,
            is_closing: false,
            blocked: None,
            waiting: 0,
            taken: now,
            held: 0,
            held_since: now,
            stopping: None,
        };
        Self {
            registry,
            peer,
            number,
            is_beyond,
            turns: Arc::new(Semaphore::new(ANSWERS_AT_ONCE)),
            state: Mutex::new(state),
            rests: AtomicBool::new(false),
            closed: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the connection is to be closed.
    pub(super) async fn closed(&self) {
        self.closed.notified().await;
    }

    /// When to check the limits for the first time.
    pub(super) fn first_look(&self, limits: &ConnectionLimits) -> Instant {
        self.state().since + limits.shortest()
    }

    /// Notes that the server is stopping: a connection that waits for a request is closed soon.
    pub(super) fn stop(&self) {
        self.state().stopping = Some(Instant::now());
    }

    /// Whether it uses HTTP/2, as far as its requests have shown.
    pub(super) fn is_http2(&self) -> bool {
        self.state().is_http2
    }

    /// Whether it is to be closed, or when to check again.
    pub(super) fn verdict(&self, limits: &ConnectionLimits) -> Verdict {
        let now = Instant::now();
        let state = self.state();
        if let (Some(stopping), Phase::Head | Phase::Rest, false) =
            (state.stopping, state.phase, state.has_tunnels)
        {
            // A request head that has begun does not delay the shutdown; a client may just be sending one.
            let since = if state.phase == Phase::Rest { stopping.max(state.since) } else { stopping };
            let end = since + LINGER;
            return if end <= now { Verdict::Close("the server stops") } else { Verdict::Until(end) };
        }
        // What begins after this check is seen in time by the next one.
        let shortest =
            if state.stopping.is_some() { limits.shortest().min(LINGER) } else { limits.shortest() };
        let mut next = now + shortest;
        let stalled = (state.waiting > 0).then_some(state.taken);
        let phase = match state.phase {
            Phase::Head => Some((state.since, limits.header_timeout, "the head of a request took too long")),
            Phase::Rest if !state.has_tunnels => {
                Some((state.since, limits.idle_timeout, "it rested too long"))
            }
            Phase::Rest | Phase::Busy | Phase::Socket => None,
        };
        let writes = state.blocked.into_iter().chain(stalled);
        let writes = writes.map(|since| (since, limits.write_timeout, "its peer takes nothing"));
        for (since, limit, why) in phase.into_iter().chain(writes) {
            let end = since + limit;
            if end <= now {
                return Verdict::Close(why);
            }
            next = next.min(end);
        }
        Verdict::Until(next)
    }

    /// Notes that a request has arrived.
    pub(super) fn request(self: &Arc<Self>, is_http2: bool) -> Request {
        let mut state = self.state();
        state.requests += 1;
        state.phase = Phase::Busy;
        state.is_http2 = is_http2;
        drop(state);
        Request { connection: self.clone() }
    }

    /// Notes that a WebSocket was opened inside of it.
    pub(super) fn opens_tunnel(&self) {
        self.state().has_tunnels = true;
    }

    /// Notes that it has become a WebSocket.
    pub(super) fn became_socket(&self) {
        self.state().phase = Phase::Socket;
    }

    /// Whether no request is under way, and none of its bytes are a WebSocket's.
    pub(super) fn waits_for_request(&self) -> bool {
        let state = self.state();
        state.requests == 0 && matches!(state.phase, Phase::Head | Phase::Rest) && !state.has_tunnels
    }

    /// Notes that bytes were read.
    pub(super) fn read(&self) {
        if self.rests.load(Ordering::Relaxed) && self.rests.swap(false, Ordering::Relaxed) {
            let mut state = self.state();
            if state.phase == Phase::Rest {
                (state.phase, state.since) = (Phase::Head, Instant::now());
            }
        }
    }

    /// Notes that writing is blocked, or continues.
    pub(super) fn writes(&self, is_blocked: bool) {
        self.state().blocked = is_blocked.then(Instant::now);
    }

    /// Notes that a body has passed on what it had, and waits for the peer to take it.
    pub(super) fn waits_for_peer(&self) {
        let mut state = self.state();
        state.waiting += 1;
        state.taken = Instant::now();
    }

    /// Notes that the peer takes more.
    pub(super) fn peer_takes(&self) {
        let mut state = self.state();
        state.waiting = state.waiting.saturating_sub(1);
        state.taken = Instant::now();
    }

    pub(super) fn holds(&self, bytes: usize) {
        let mut state = self.state();
        if state.held == 0 {
            state.held_since = Instant::now();
        }
        state.held += bytes;
    }

    pub(super) fn releases(&self, bytes: usize) {
        let mut state = self.state();
        state.held = state.held.saturating_sub(bytes);
    }

    /// Since when it has held responses that are not taken.
    pub(super) fn holds_since(&self) -> Option<Instant> {
        let state = self.state();
        (state.held > 0 && !state.is_closing).then_some(state.held_since)
    }

    /// The order in which connections are closed to make room for others: those that have sent no request before idle
    /// ones, and among them the oldest first. `None` where it is busy.
    pub(super) fn leaves_before(&self) -> Option<(bool, Instant)> {
        let state = self.state();
        let may_leave = match state.phase {
            Phase::Head => true,
            Phase::Rest => !state.has_tunnels,
            Phase::Busy | Phase::Socket => false,
        };
        (may_leave && !state.is_closing).then_some((state.phase == Phase::Rest, state.since))
    }

    /// Asks for the connection to be closed soon.
    pub(super) fn close(&self) {
        self.state().is_closing = true;
        self.closed.notify_one();
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.registry.left(self.number);
    }
}

/// A request under way, until it is dropped.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) connection: Arc<Connection>,
}

impl Drop for Request {
    fn drop(&mut self) {
        let mut state = self.connection.state();
        state.requests = state.requests.saturating_sub(1);
        if state.requests == 0 && state.phase == Phase::Busy {
            (state.phase, state.since) = (Phase::Rest, Instant::now());
            // A ping on an HTTP/2 connection begins no request.
            self.connection.rests.store(!state.is_http2, Ordering::Relaxed);
        }
    }
}
