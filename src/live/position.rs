//! Where a stream stands, as its client holds it: sealed, so that it cannot be read, altered or brought elsewhere.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::engine::{Engine, Position};
use crate::query::Binding;

/// What the positions of a stream belong to, and what they are of.
#[derive(Debug)]
pub(crate) struct Scope {
    pub(crate) binding: Binding,
    /// Names what the decisions about the caller came to.
    pub(crate) policy: [u8; 16],
    /// The databases that are followed, by their places among those that keep records, in ascending order.
    pub(crate) databases: Vec<usize>,
}

/// A position in every database that a stream follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StreamPosition {
    /// In the order of the scope's databases.
    pub(crate) at: Vec<Position>,
    /// Events that are known already and come only after it, by number, and in which database.
    pub(crate) known: Vec<(usize, i64)>,
}

/// A place as it is written.
#[derive(Serialize, Deserialize)]
struct Written {
    p: Vec<(i64, i64)>,
    d: [u8; 16],
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    k: Vec<(usize, i64)>,
    /// What it is written with to be unlike others.
    #[serde(default)]
    u: u32,
}

impl StreamPosition {
    /// Written unlike any other time, so that it does not show whether anything happened since.
    pub(crate) fn seal(&self, engine: &Engine, scope: &Scope) -> String {
        self.sealed(engine, scope, Uuid::new_v4().as_fields().0)
    }

    /// Written alike by everyone, on every node: of an event that its reader is told of.
    pub(super) fn seal_alike(&self, engine: &Engine, scope: &Scope) -> String {
        self.sealed(engine, scope, 0)
    }

    fn sealed(&self, engine: &Engine, scope: &Scope, unlike: u32) -> String {
        let written = Written {
            p: self.at.iter().map(|at| (at.batch, at.sequence)).collect(),
            d: scope.policy,
            k: self.known.clone(),
            u: unlike,
        };
        let text = serde_json::to_string(&written).unwrap_or_default();
        engine.cursors.seal_text(&scope.binding, &text)
    }

    /// The place that a client holds, and whether the caller's rights are what they were; `None` where it was altered, or is
    /// of another stream.
    pub(crate) fn open(engine: &Engine, scope: &Scope, sealed: &str) -> Option<(Self, bool)> {
        let text = engine.cursors.open_text(&scope.binding, sealed)?;
        let written: Written = serde_json::from_str(&text).ok()?;
        let at = written.p.iter().map(|(batch, sequence)| Position { batch: *batch, sequence: *sequence });
        let place = Self { at: at.collect(), known: written.k };
        // Where there is another number of databases by now, it is of another application than it was.
        Some((place, written.d == scope.policy && written.p.len() == scope.databases.len()))
    }
}
