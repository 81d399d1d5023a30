//! Bounded buffer of notices for one subscriber; discarded when the subscriber does not keep up.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::notification::Notice;

/// How many bytes of events may wait for one subscriber; the events themselves are shared by all subscribers of a class.
const MAX_BYTES: usize = 4 << 20;

/// Why a subscription ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndReason {
    /// The subscriber did not keep up.
    Lagged,
    /// The application is about to stop.
    Closing,
}

/// The next item of a subscriber.
#[derive(Debug)]
pub(crate) enum QueueItem {
    /// Rights may have changed: they are checked again before anything more is sent.
    Recheck,
    Notice(Arc<Notice>),
    End(EndReason),
}

/// The queue of one subscriber.
#[derive(Debug)]
pub(super) struct SubscriberQueue {
    state: Mutex<QueueState>,
    capacity: usize,
    wake: Notify,
}

#[derive(Debug, Default)]
struct QueueState {
    pending: VecDeque<Arc<Notice>>,
    /// The size of these in bytes.
    bytes: usize,
    end: Option<EndReason>,
    /// Whether the subscriber is to check its rights again.
    should_recheck: bool,
}

impl SubscriberQueue {
    pub(super) fn new(capacity: usize) -> Self {
        Self { state: Mutex::default(), capacity, wake: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, QueueState> {
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
        let is_full =
            state.pending.len() >= self.capacity || (bytes > MAX_BYTES && !state.pending.is_empty());
        if is_full {
            *state = QueueState {
                end: Some(EndReason::Lagged),
                should_recheck: state.should_recheck,
                ..QueueState::default()
            };
        } else {
            state.bytes = bytes;
            state.pending.push_back(notice.clone());
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Requests that the subscriber checks its rights again.
    pub(super) fn request_recheck(&self) {
        self.state().should_recheck = true;
        self.wake.notify_one();
    }

    /// Clears that request: the subscriber checks its rights by itself.
    pub(super) fn clear_recheck(&self) {
        self.state().should_recheck = false;
    }

    pub(super) fn end(&self, end: EndReason) {
        self.state().end.get_or_insert(end);
        self.wake.notify_one();
    }

    pub(super) fn is_closing(&self) -> bool {
        self.state().end == Some(EndReason::Closing)
    }

    /// The next item, where there is one already.
    pub(super) fn try_next(&self) -> Option<QueueItem> {
        let mut state = self.state();
        if std::mem::take(&mut state.should_recheck) {
            return Some(QueueItem::Recheck);
        }
        let next = state.pending.pop_front();
        state.bytes -= next.as_ref().map_or(0, |notice| notice.json.len());
        if state.pending.is_empty() {
            // Most subscribers receive few events: their empty queues keep no capacity.
            state.pending = VecDeque::new();
        }
        next.map(QueueItem::Notice).or_else(|| state.end.map(QueueItem::End))
    }

    pub(super) async fn next(&self) -> QueueItem {
        loop {
            if let Some(next) = self.try_next() {
                return next;
            }
            self.wake.notified().await;
        }
    }
}
