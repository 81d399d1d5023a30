//! Polling in place of notifications, for connections that have no session to LISTEN in.

use std::time::Duration;

use resourceful_contract::{Answer, NotificationStream};
use tokio::time::{Interval, MissedTickBehavior, interval};

/// The polling interval for changes of other nodes.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// A notification stream that fires at intervals, since notifications of other nodes cannot be received.
#[derive(Debug)]
pub(crate) struct Polling(Interval);

impl Polling {
    pub(crate) fn new() -> Self {
        let mut ticks = interval(POLL_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self(ticks)
    }
}

impl NotificationStream for Polling {
    fn notified(&mut self) -> Answer<'_, ()> {
        Box::pin(async {
            self.0.tick().await;
            Ok(())
        })
    }
}
