//! The result of a query.

use crate::Value;

/// The result of a [`Query`](crate::Query).
///
/// The rows themselves were appended to the caller's buffer as JSON objects separated by commas, without brackets around
/// them, so that a response is written only once.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Rows {
    /// The number of rows written.
    pub len: usize,
    /// The end of each row's JSON in the buffer; filled only if the query requests keys, versions or both. A row begins at
    /// the end of the previous row plus one comma, the first one where the buffer ended before.
    pub ends: Vec<usize>,
    /// The version of each row, if the query requests versions.
    pub versions: Vec<Version>,
    /// The values of the query's `keys`, for each row.
    pub keys: Vec<Vec<Value>>,
    /// The sort keys of the first row; a value that cannot be decoded as its field's type is [`Value::Opaque`].
    pub first: Option<Vec<Value>>,
    /// The sort keys of the last row.
    pub last: Option<Vec<Value>>,
    /// Whether there are more rows beyond this page, in the direction of the query's position.
    pub more: bool,
    /// The number of all matching rows, if the query requests it.
    pub total: Option<Total>,
}

/// The number of all rows that match a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Total {
    /// The number.
    pub rows: u64,
    /// Whether the number was counted rather than estimated.
    pub exact: bool,
}

/// The version of a row, by which changes to it are detected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// The row's version counter.
    Counter(i64),
    /// A digest of the row's whole content, for rows without a counter.
    Digest([u8; 16]),
}

impl Version {
    /// The digest of a row, from the JSON object of all its fields in the schema's order, including hidden ones.
    #[must_use]
    pub fn of_content(json: &[u8]) -> Self {
        let mut digest = [0; 16];
        digest.copy_from_slice(&blake3::hash(json).as_bytes()[..16]);
        Self::Digest(digest)
    }
}
