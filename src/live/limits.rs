//! Limits and settings of live streams.

use std::time::Duration;

/// Limits of live streams: their number, how far a client may fall behind, how often each is checked.
///
/// ```
/// use std::time::Duration;
/// use resourceful::prelude::*;
/// use resourceful::live::Streams;
///
/// # let _ =
/// create_app(AppPreset::Production)
///     .streams(Streams::new().max_streams(20_000).max_per_actor(10).heartbeat(Duration::from_secs(10)))
/// # ;
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Streams {
    pub(crate) max_streams: usize,
    pub(crate) max_per_tenant: usize,
    pub(crate) max_per_actor: usize,
    pub(crate) max_anonymous: usize,
    pub(crate) queue: usize,
    pub(crate) heartbeat: Duration,
    pub(crate) idle: Duration,
    pub(crate) sockets: bool,
}

impl Default for Streams {
    fn default() -> Self {
        Self::new()
    }
}

impl Streams {
    /// The defaults that are documented at each setting.
    pub const fn new() -> Self {
        Self {
            max_streams: 20_000,
            max_per_tenant: 5_000,
            max_per_actor: 100,
            max_anonymous: 10_000,
            queue: 256,
            heartbeat: Duration::from_secs(15),
            idle: Duration::from_secs(60),
            sockets: true,
        }
    }

    /// The most streams of a node, sockets, their subscriptions and rooms included; 20,000 by default. A further one gets
    /// 503.
    pub const fn max_streams(mut self, streams: usize) -> Self {
        self.max_streams = streams;
        self
    }

    /// The most streams of a node for one tenant; 5,000 by default. A further one gets 429.
    pub const fn max_per_tenant(mut self, streams: usize) -> Self {
        self.max_per_tenant = streams;
        self
    }

    /// The most streams of a node for one actor; 100 by default. A further one gets 429.
    pub const fn max_per_actor(mut self, streams: usize) -> Self {
        self.max_per_actor = streams;
        self
    }

    /// The most streams of a node for all anonymous callers together; 10,000 by default. A further one gets 429.
    pub const fn max_anonymous(mut self, streams: usize) -> Self {
        self.max_anonymous = streams;
        self
    }

    /// How many events may wait for one client; 256 by default, at least 1. Where more wait, or more than 4 MiB of them,
    /// the client is notified and its stream ends.
    pub const fn queue(mut self, events: usize) -> Self {
        self.queue = if events == 0 { 1 } else { events };
        self
    }

    /// How often a stream without events sends a heartbeat, and checks whether its credential and rights still hold; 15 s
    /// by default.
    pub const fn heartbeat(mut self, duration: Duration) -> Self {
        self.heartbeat = if duration.is_zero() { Duration::from_millis(1) } else { duration };
        self
    }

    /// How long a socket may follow nothing; 60 s by default. It is closed then (1000).
    pub const fn idle(mut self, duration: Duration) -> Self {
        self.idle = duration;
        self
    }

    /// Whether `GET /ws` is served; by default it is, where a resource has streams or presence.
    pub const fn sockets(mut self, sockets: bool) -> Self {
        self.sockets = sockets;
        self
    }
}
