//! What a change is known by, so that it happens once.

use chrono::{DateTime, Duration, Utc};
use resourceful_contract::{Version, Written};

use super::record::{Record, spelled};
use crate::resource::Operation;
use crate::tables::keys::KeyRow;

/// A client's claim that it asks for one thing, however often it asks.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    /// A digest of everything that the key stands for.
    pub(crate) id: String,
    /// A digest of what is asked.
    pub(crate) fingerprint: String,
    /// How long the answer is kept.
    pub(crate) kept: Duration,
}

impl Claim {
    /// The row that remembers the answer.
    pub(super) fn row(&self, at: DateTime<Utc>, first: Option<&Record>, written: &[&Written]) -> KeyRow {
        let status = match first.map(|record| record.operation) {
            Some(Operation::Create) => 201,
            Some(Operation::Delete) => 204,
            _ => 200,
        };
        let one = match written {
            [one] => Some(*one),
            _ => None,
        };
        KeyRow {
            id: self.id.clone(),
            fingerprint: self.fingerprint.clone(),
            status,
            item: one.map(|row| spelled(&row.id)),
            version: one.and_then(|row| row.version).map(version),
            body: one
                .filter(|row| !row.json.is_empty())
                .map(|row| String::from_utf8_lossy(&row.json).into_owned()),
            expires_at: at + self.kept,
        }
    }
}

fn version(version: Version) -> String {
    match version {
        Version::Counter(counter) => counter.to_string(),
        Version::Digest(digest) => digest.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}
