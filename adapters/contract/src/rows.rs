//! What a storage answers.

use crate::Value;

/// The answer to a [`Query`](crate::Query).
///
/// The rows themselves were appended to the caller's buffer as JSON objects separated by commas, without
/// brackets around them, so that an answer is written once.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Rows {
    /// How many rows were written.
    pub len: usize,
    /// Where each row's JSON ends in the buffer; only filled where the query asks for keys, versions or both.
    /// A row begins at the end of the one before it plus one comma, the first where the buffer ended before.
    pub ends: Vec<usize>,
    /// Each row's version, where the query asks for them.
    pub versions: Vec<Version>,
    /// Each row's values of the query's `keys`.
    pub keys: Vec<Vec<Value>>,
    /// The sort keys of the first row; where one of them does not read as its field's type it is
    /// [`Value::Opaque`].
    pub first: Option<Vec<Value>>,
    /// The sort keys of the last row.
    pub last: Option<Vec<Value>>,
    /// Whether there are more rows beyond this page, in the direction of the query's position.
    pub more: bool,
    /// The number of all rows that match, where the query asks for it.
    pub total: Option<Total>,
}

/// The number of all rows that match a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Total {
    /// The number.
    pub rows: u64,
    /// Whether it was counted, rather than estimated.
    pub exact: bool,
}

/// Which state of a row this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// The row's version counter.
    Counter(i64),
    /// A digest of the row's whole content, for rows without a counter.
    Digest([u8; 16]),
}

impl Version {
    /// The digest of a row, given the JSON object of all its fields in the schema's order, hidden ones too.
    #[must_use]
    pub fn of_content(json: &[u8]) -> Self {
        let mut digest = [0; 16];
        digest.copy_from_slice(&blake3::hash(json).as_bytes()[..16]);
        Self::Digest(digest)
    }
}
