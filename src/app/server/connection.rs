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
const MAX_CONCURRENT_RESPONSES: usize = 16;

/// How long a connection without a request is kept when the server stops: a request that is under way to it is answered,
/// and the response announces that the connection closes.
pub(super) const LINGER: Duration = Duration::from_millis(500);

/// A connection of the server.
#[derive(Debug)]
pub(in crate::app) struct Connection {
    pub(super) registry: Arc<Registry>,
    pub(in crate::app) peer: IpAddr,
    id: u64,
    /// Whether it exceeds the limit of connections, and is for health checks only.
    pub(in crate::app) is_over_limit: bool,
    /// Permits for the requests of an HTTP/2 connection.
    pub(super) response_permits: Arc<Semaphore>,
    state: Mutex<ConnectionActivity>,
    /// Whether the next byte that is read begins a request head.
    is_awaiting_head: AtomicBool,
    close_requested: Notify,
}

#[derive(Debug)]
struct ConnectionActivity {
    phase: Phase,
    /// Since when it is in that phase.
    phase_since: Instant,
    /// The number of requests under way.
    requests: usize,
    is_http2: bool,
    /// Whether WebSockets may be open inside of it, which no request shows.
    has_tunnels: bool,
    is_closing: bool,
    /// Since when its peer takes nothing that was written.
    blocked_since: Option<Instant>,
    /// How many bodies wait for their HTTP/2 peer to take more, and since when it has taken nothing.
    waiting_bodies: usize,
    last_taken: Instant,
    /// The bytes of large responses that are not taken yet, and since when there are any.
    held_bytes: usize,
    held_since: Instant,
    /// Since when the server is stopping.
    stopping_since: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No request has come yet, or one has begun to.
    Head,
    /// Idle between two requests.
    Idle,
    Busy,
    /// A WebSocket, which has limits of its own.
    Socket,
}

/// The verdict of the limits on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LimitCheck {
    /// It is to be closed, for this reason.
    Close(&'static str),
    /// It is to be checked again at this time.
    CheckAt(Instant),
}

impl Connection {
    pub(super) fn new(registry: Arc<Registry>, peer: IpAddr, id: u64, is_over_limit: bool) -> Self {
        let now = Instant::now();
        let state = ConnectionActivity {
            phase: Phase::Head,
            phase_since: now,
            requests: 0,
            is_http2: false,
            has_tunnels: false,
            is_closing: false,
            blocked_since: None,
            waiting_bodies: 0,
            last_taken: now,
            held_bytes: 0,
            held_since: now,
            stopping_since: None,
        };
        Self {
            registry,
            peer,
            id,
            is_over_limit,
            response_permits: Arc::new(Semaphore::new(MAX_CONCURRENT_RESPONSES)),
            state: Mutex::new(state),
            is_awaiting_head: AtomicBool::new(false),
            close_requested: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, ConnectionActivity> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the connection is to be closed.
    pub(super) async fn closed(&self) {
        self.close_requested.notified().await;
    }

    /// When to check the limits for the first time.
    pub(super) fn first_check(&self, limits: &ConnectionLimits) -> Instant {
        self.state().phase_since + limits.shortest()
    }

    /// Notes that the server is stopping: a connection that waits for a request is closed soon.
    pub(super) fn mark_stopping(&self) {
        self.state().stopping_since = Some(Instant::now());
    }

    /// Whether it uses HTTP/2, as far as its requests have shown.
    pub(super) fn is_http2(&self) -> bool {
        self.state().is_http2
    }

    /// Whether it is to be closed, or when to check again.
    pub(super) fn check_limits(&self, limits: &ConnectionLimits) -> LimitCheck {
        let now = Instant::now();
        let state = self.state();
        if let (Some(stopping), Phase::Head | Phase::Idle, false) =
            (state.stopping_since, state.phase, state.has_tunnels)
        {
            // A request head that has begun does not delay the shutdown; a client may just be sending one.
            let since = if state.phase == Phase::Idle { stopping.max(state.phase_since) } else { stopping };
            let end = since + LINGER;
            return if end <= now { LimitCheck::Close("the server stops") } else { LimitCheck::CheckAt(end) };
        }
        // What begins after this check is seen in time by the next one.
        let shortest =
            if state.stopping_since.is_some() { limits.shortest().min(LINGER) } else { limits.shortest() };
        let mut next = now + shortest;
        let stalled = (state.waiting_bodies > 0).then_some(state.last_taken);
        let phase = match state.phase {
            Phase::Head => {
                Some((state.phase_since, limits.header_timeout, "the head of a request took too long"))
            }
            Phase::Idle if !state.has_tunnels => {
                Some((state.phase_since, limits.idle_timeout, "it was idle too long"))
            }
            Phase::Idle | Phase::Busy | Phase::Socket => None,
        };
        let writes = state.blocked_since.into_iter().chain(stalled);
        let writes = writes.map(|since| (since, limits.write_timeout, "its peer does not read"));
        for (since, limit, reason) in phase.into_iter().chain(writes) {
            let end = since + limit;
            if end <= now {
                return LimitCheck::Close(reason);
            }
            next = next.min(end);
        }
        LimitCheck::CheckAt(next)
    }

    /// Notes that a request has arrived.
    pub(super) fn begin_request(self: &Arc<Self>, is_http2: bool) -> Request {
        let mut state = self.state();
        state.requests += 1;
        state.phase = Phase::Busy;
        state.is_http2 = is_http2;
        drop(state);
        Request { connection: self.clone() }
    }

    /// Notes that a WebSocket was opened inside of it.
    pub(super) fn record_tunnel(&self) {
        self.state().has_tunnels = true;
    }

    /// Notes that it has become a WebSocket.
    pub(super) fn record_upgrade(&self) {
        self.state().phase = Phase::Socket;
    }

    /// Whether no request is under way, and none of its bytes are a WebSocket's.
    pub(super) fn is_awaiting_request(&self) -> bool {
        let state = self.state();
        state.requests == 0 && matches!(state.phase, Phase::Head | Phase::Idle) && !state.has_tunnels
    }

    /// Notes that bytes were read.
    pub(super) fn read(&self) {
        if self.is_awaiting_head.load(Ordering::Relaxed)
            && self.is_awaiting_head.swap(false, Ordering::Relaxed)
        {
            let mut state = self.state();
            if state.phase == Phase::Idle {
                (state.phase, state.phase_since) = (Phase::Head, Instant::now());
            }
        }
    }

    /// Notes that writing is blocked, or continues.
    pub(super) fn record_blocked(&self, is_blocked: bool) {
        self.state().blocked_since = is_blocked.then(Instant::now);
    }

    /// Notes that a body has passed on what it had, and waits for the peer to take it.
    pub(super) fn record_waiting(&self) {
        let mut state = self.state();
        state.waiting_bodies += 1;
        state.last_taken = Instant::now();
    }

    /// Notes that the peer takes more.
    pub(super) fn record_taken(&self) {
        let mut state = self.state();
        state.waiting_bodies = state.waiting_bodies.saturating_sub(1);
        state.last_taken = Instant::now();
    }

    pub(super) fn add_held(&self, bytes: usize) {
        let mut state = self.state();
        if state.held_bytes == 0 {
            state.held_since = Instant::now();
        }
        state.held_bytes += bytes;
    }

    pub(super) fn remove_held(&self, bytes: usize) {
        let mut state = self.state();
        state.held_bytes = state.held_bytes.saturating_sub(bytes);
    }

    /// Since when it has held responses that are not taken.
    pub(super) fn held_since(&self) -> Option<Instant> {
        let state = self.state();
        (state.held_bytes > 0 && !state.is_closing).then_some(state.held_since)
    }

    /// The order in which connections are closed to make room for others: those that have sent no request before idle
    /// ones, and among them the oldest first. `None` where it is busy.
    pub(super) fn eviction_order(&self) -> Option<(bool, Instant)> {
        let state = self.state();
        let is_evictable = match state.phase {
            Phase::Head => true,
            Phase::Idle => !state.has_tunnels,
            Phase::Busy | Phase::Socket => false,
        };
        (is_evictable && !state.is_closing).then_some((state.phase == Phase::Idle, state.phase_since))
    }

    /// Asks for the connection to be closed soon.
    pub(super) fn close(&self) {
        self.state().is_closing = true;
        self.close_requested.notify_one();
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.registry.remove(self.id);
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
            (state.phase, state.phase_since) = (Phase::Idle, Instant::now());
            // A ping on an HTTP/2 connection begins no request.
            self.connection.is_awaiting_head.store(!state.is_http2, Ordering::Relaxed);
        }
    }
}
