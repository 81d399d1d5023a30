//! The notice of one change for all subscribers of a class: serialized once, and shared by all of them.

use std::sync::OnceLock;

use bytes::Bytes;

use crate::tables::events::Position;

/// The effect of a change on subscribers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoticeKind {
    /// The change concerns an item in view.
    Event,
    /// The change brought an item into view.
    Added,
    /// The change took an item out of view.
    Removed,
    /// Earlier notices are not to be relied on any more.
    Reset,
}

/// What subscribers of one class receive about one change.
#[derive(Debug)]
pub(crate) struct Notice {
    pub(crate) kind: NoticeKind,
    pub(crate) database: usize,
    pub(crate) position: Position,
    pub(crate) event_type: String,
    /// The event as JSON; empty for a reset.
    pub(crate) json: Bytes,
    /// The encrypted position of subscribers that follow one database and have received everything up to here; set on first
    /// use.
    pub(super) shared_position: OnceLock<Box<str>>,
    /// The complete server-sent event for the same subscribers; set on first use.
    pub(super) sse_frame: OnceLock<Bytes>,
}

impl Notice {
    pub(super) fn new(
        kind: NoticeKind,
        database: usize,
        position: Position,
        event_type: String,
        json: Vec<u8>,
    ) -> Self {
        let (shared_position, sse_frame) = (OnceLock::new(), OnceLock::new());
        Self { kind, database, position, event_type, json: json.into(), shared_position, sse_frame }
    }

    pub(super) fn reset(database: usize, position: Position) -> Self {
        Self::new(NoticeKind::Reset, database, position, String::new(), Vec::new())
    }

    /// The event name that clients see.
    pub(super) fn event_name(&self) -> &str {
        match self.kind {
            NoticeKind::Added => "added",
            NoticeKind::Removed => "removed",
            NoticeKind::Event | NoticeKind::Reset => &self.event_type,
        }
    }
}
