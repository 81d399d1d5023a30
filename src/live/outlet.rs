//! What waits to be sent to one subscriber: bounded, and given up where it is not fetched.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::hub::Notice;

/// Why nothing more comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The subscriber did not keep up.
    Lagged,
    /// The application is about to stop.
    Closing,
}

/// What a subscriber fetches next.
#[derive(Debug)]
pub(crate) enum Next {
    Notice(Arc<Notice>),
    End(End),
}

/// The queue of one subscriber.
#[derive(Debug)]
pub(super) struct Outlet {
    state: Mutex<State>,
    most: usize,
    wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Arc<Notice>>,
    end: Option<End>,
}

impl Outlet {
    pub(super) fn new(most: usize) -> Self {
        Self { state: Mutex::default(), most, wake: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a notice; where there are too many the subscriber gets none any more: what was missed is read again from
    /// where they stopped.
    pub(super) fn offer(&self, notice: &Arc<Notice>) {
        let mut state = self.state();
        if state.end.is_some() {
            return;
        }
        if state.waiting.len() >= self.most {
            state.end = Some(End::Lagged);
            state.waiting = VecDeque::new();
        } else {
            state.waiting.push_back(notice.clone());
        }
        drop(state);
        self.wake.notify_one();
    }

    pub(super) fn end(&self, end: End) {
        self.state().end.get_or_insert(end);
        self.wake.notify_one();
    }

    pub(super) fn is_closing(&self) -> bool {
        self.state().end == Some(End::Closing)
    }

    /// What is there already.
    pub(super) fn take(&self) -> Option<Next> {
        let mut state = self.state();
        let next = state.waiting.pop_front().map(Next::Notice);
        if state.waiting.is_empty() {
            // Whoever is told of little should not hold the room of a burst.
            state.waiting.shrink_to(4);
        }
        next.or_else(|| state.end.map(Next::End))
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
