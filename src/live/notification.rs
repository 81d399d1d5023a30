//! What subscribers who are told alike are told of one change: written once, and shared by all of them.

use std::sync::OnceLock;

use bytes::Bytes;

use crate::engine::Position;

/// What a change is to subscribers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It happened to an item in view.
    Event,
    /// By it an item came into view.
    Added,
    /// By it an item went out of view.
    Removed,
    /// What was told before is not to be relied on any more.
    Reset,
}

/// What subscribers of one class are told of one change.
#[derive(Debug)]
pub(crate) struct Notice {
    pub(crate) kind: Kind,
    pub(crate) database: usize,
    pub(crate) position: Position,
    pub(crate) event_type: String,
    /// The event as JSON; empty for a reset.
    pub(crate) json: Bytes,
    /// Where it leaves those who follow one database and were told of everything up to here, sealed by whoever says it first.
    pub(super) place: OnceLock<Box<str>>,
    /// The whole as it is sent as a server-sent event, for the same, made by whoever sends it first.
    pub(super) sent: OnceLock<Bytes>,
}

impl Notice {
    pub(super) fn new(
        kind: Kind,
        database: usize,
        position: Position,
        event_type: String,
        json: Vec<u8>,
    ) -> Self {
        let (place, sent) = (OnceLock::new(), OnceLock::new());
        Self { kind, database, position, event_type, json: json.into(), place, sent }
    }

    pub(super) fn reset(database: usize, position: Position) -> Self {
        Self::new(Kind::Reset, database, position, String::new(), Vec::new())
    }

    /// What it is called where it is told.
    pub(super) fn name(&self) -> &str {
        match self.kind {
            Kind::Added => "added",
            Kind::Removed => "removed",
            Kind::Event | Kind::Reset => &self.event_type,
        }
    }
}
