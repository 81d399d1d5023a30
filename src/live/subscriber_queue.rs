//! Bounded buffer of notices for one subscriber; discarded when the subscriber does not keep up.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::notification::Notice;

/// How many bytes of events may wait for one subscriber; the events themselves are shared by all subscribers of a class.
const MOST_BYTES: usize = 4 << 20;

/// Why a subscription ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The subscriber did not keep up.
    Lagged,
    /// The application is about to stop.
    Closing,
}

/// The next item of a subscriber.
#[derive(Debug)]
pub(crate) enum Next {
    /// Rights may have changed: they are checked again before anything more is sent.
    Look,
    Notice(Arc<Notice>),
    End(End),
}

/// The queue of one subscriber.
#[derive(Debug)]
pub(super) struct SubscriberQueue {
    state: Mutex<State>,
    most: usize,
    wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Arc<Notice>>,
    /// The size of these in bytes.
    bytes: usize,
    end: Option<End>,
    /// Whether the subscriber is to check its rights again.
    looks: bool,
}

impl SubscriberQueue {
    pub(super) fn new(most: usize) -> Self {
        Self { state: Mutex::default(), most, wake: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a notice. On overflow the queue is discarded and the subscription ends: missed events are read again from the
    /// subscriber's last position.
    pub(super) fn offer(&self, notice: &Arc<Notice>) {
        let mut state = self.state();
        if state.end.is_some() {
            return;
        }
        let bytes = state.bytes + notice.json.len();
        // A single notice is accepted whatever its size.
        let is_full = state.waiting.len() >= self.most || (bytes > MOST_BYTES && !state.waiting.is_empty());
        if is_full {
            *state = State { end: Some(End::Lagged), looks: state.looks, ..State::default() };
        } else {
            state.bytes = bytes;
            state.waiting.push_back(notice.clone());
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Requests that the subscriber checks its rights again.
    pub(super) fn look(&self) {
        self.state().looks = true;
        self.wake.notify_one();
    }

    /// Clears that request: the subscriber checks its rights by itself.
    pub(super) fn looked(&self) {
        self.state().looks = false;
    }

    pub(super) fn end(&self, end: End) {
        self.state().end.get_or_insert(end);
        self.wake.notify_one();
    }

    pub(super) fn is_closing(&self) -> bool {
        self.state().end == Some(End::Closing)
    }

    /// The next item, where there is one already.
    pub(super) fn take(&self) -> Option<Next> {
        let mut state = self.state();
        if std::mem::take(&mut state.looks) {
            return Some(Next::Look);
        }
        let next = state.waiting.pop_front();
        state.bytes -= next.as_ref().map_or(0, |notice| notice.json.len());
        if state.waiting.is_empty() {
            // Most subscribers receive few events: their empty queues keep no capacity.
            state.waiting = VecDeque::new();
        }
        next.map(Next::Notice).or_else(|| state.end.map(Next::End))
    }

    pub(super) async fn next(&self) -> Next {
        loop {
            if let Some(next) = self.take() {
                return next;
            }
            self.wake.notified().await;
        }
    }
}
