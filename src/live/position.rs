//! Stream positions as clients hold them: encrypted, so that they cannot be read, altered or used elsewhere.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::engine::Engine;
use crate::query::Binding;
use crate::tables::events::Position;

/// What the positions of a stream are bound to, and the databases that they cover.
#[derive(Debug)]
pub(crate) struct StreamScope {
    pub(crate) binding: Binding,
    /// Digest of the access decisions about the caller.
    pub(crate) policy: [u8; 16],
    /// The databases that are followed, as indexes among those that keep records, in ascending order.
    pub(crate) databases: Vec<usize>,
}

/// A position in every database that a stream follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StreamPosition {
    /// In the order of the scope's databases.
    pub(crate) positions: Vec<Position>,
    /// Events that the client knows already although they come after this position, as database and sequence number.
    pub(crate) known: Vec<(usize, i64)>,
}

/// The serialized form of a position.
#[derive(Serialize, Deserialize)]
struct SerializedPosition {
    p: Vec<(i64, i64)>,
    d: [u8; 16],
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    k: Vec<(usize, i64)>,
    /// Makes encrypted positions differ where it is random; 0 where they are to be equal.
    #[serde(default)]
    u: u32,
}

impl StreamPosition {
    /// Encrypts the position differently each time, so that it does not show whether anything happened since.
    pub(crate) fn seal(&self, engine: &Engine, scope: &StreamScope) -> String {
        self.seal_with(engine, scope, Uuid::new_v4().as_fields().0)
    }

    /// Encrypts the position identically on every node: for an event that the client receives.
    pub(super) fn seal_deterministic(&self, engine: &Engine, scope: &StreamScope) -> String {
        self.seal_with(engine, scope, 0)
    }

    fn seal_with(&self, engine: &Engine, scope: &StreamScope, salt: u32) -> String {
        let serialized = SerializedPosition {
            p: self.positions.iter().map(|at| (at.batch, at.sequence)).collect(),
            d: scope.policy,
            k: self.known.clone(),
            u: salt,
        };
        let text = serde_json::to_string(&serialized).unwrap_or_default();
        engine.cursor_key.seal_text(&scope.binding, &text)
    }

    /// The position that a client holds, and whether the caller's rights are unchanged; `None` where it was altered, or
    /// belongs to another stream.
    pub(crate) fn open(engine: &Engine, scope: &StreamScope, sealed: &str) -> Option<(Self, bool)> {
        let text = engine.cursor_key.open_text(&scope.binding, sealed)?;
        let serialized: SerializedPosition = serde_json::from_str(&text).ok()?;
        let at = serialized.p.iter().map(|(batch, sequence)| Position { batch: *batch, sequence: *sequence });
        let position = Self { positions: at.collect(), known: serialized.k };
        // Another number of databases means that the application has changed since.
        Some((position, serialized.d == scope.policy && serialized.p.len() == scope.databases.len()))
    }
}
