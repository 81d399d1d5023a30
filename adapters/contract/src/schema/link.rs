//! Relations between the rows of two resources.

use std::sync::Arc;

use super::Schema;

/// A resolved relation: the rows of `target` whose `remote` field equals this row's `local` field.
#[derive(Debug)]
pub struct Link {
    /// The relation's name, as in `include=` and in dotted filters; unique within the declaring resource.
    pub name: String,
    /// Whether there is at most one related row.
    pub cardinality: Cardinality,
    /// Position of the local field in the declaring resource's schema.
    pub local: usize,
    /// The other resource.
    pub target: Arc<Schema>,
    /// Position of the field in the target's schema.
    pub remote: usize,
}

/// The cardinality of a relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cardinality {
    /// One or none: the local field references the target (`belongs_to`).
    One,
    /// Any number: the target's field references this row (`has_many`).
    Many,
}
