//! What stands in for notifications where there is no session to listen in.

use std::time::Duration;

use resourceful_contract::{Answer, NotificationStream};
use tokio::time::{Interval, MissedTickBehavior, interval};

/// How often changes of other nodes are looked for.
const PAUSE: Duration = Duration::from_millis(500);

/// A bell that rings at intervals, since what other nodes ring cannot be heard.
#[derive(Debug)]
pub(crate) struct Polling(Interval);

impl Polling {
    pub(crate) fn new() -> Self {
        let mut ticks = interval(PAUSE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self(ticks)
    }
}

impl NotificationStream for Polling {
    fn rung(&mut self) -> Answer<'_, ()> {
        Box::pin(async {
            self.0.tick().await;
            Ok(())
        })
    }
}
