//! Items in requests and responses: their versions, and the parts of them that are shown.

use resourceful_contract::{Value, Version};

use crate::error::Error;

/// An item in the response of an operation.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) json: Vec<u8>,
    pub(crate) version: Version,
    /// Identifies the part of the item, where it is not complete.
    pub(crate) part: Option<PartDigest>,
}

/// Identifies a part of an item, for its ETag: the fields shown, and the content where it includes other items.
#[derive(Debug)]
pub(crate) struct PartDigest(pub(crate) [u8; 16]);

/// The result of a request to put an item at an id.
#[derive(Debug)]
pub(crate) enum PutResult {
    Created(Item, Value),
    Changed(Item),
}

/// The versions that a caller expects an item to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// Any version, as long as the item exists.
    Any,
    /// One of these; empty where none of the caller's tags was issued by this application.
    OneOf {
        versions: Vec<Version>,
        /// Whether the caller also sent weak tags, which match nothing.
        has_weak: bool,
    },
}

impl Expected {
    /// Whether a request depends on the item's version: `If-Match: *` asks for any.
    pub(super) fn has_versions(expected: Option<&Self>) -> bool {
        matches!(expected, Some(Self::OneOf { .. }))
    }

    pub(crate) fn admits(&self, version: Version) -> bool {
        match self {
            Self::Any => true,
            Self::OneOf { versions, .. } => versions.contains(&version),
        }
    }

    /// The error for a change to an item in another version.
    pub(super) fn mismatch(&self) -> Error {
        match self {
            Self::OneOf { versions, has_weak: true } if versions.is_empty() => Error::weak_etag(),
            Self::OneOf { versions, .. } if versions.is_empty() => Error::unknown_etag(),
            _ => Error::precondition_failed("if-match"),
        }
    }
}
