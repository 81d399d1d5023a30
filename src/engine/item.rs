//! Items in responses: their versions, and the parts of them that are shown.

use resourceful_contract::{Value, Version};

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
