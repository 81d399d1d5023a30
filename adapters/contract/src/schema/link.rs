//! How the rows of one resource belong to those of another.

use std::sync::Arc;

use super::Schema;

/// A relation, resolved: the rows of `target` whose `remote` field equals this row's `local` field.
#[derive(Debug)]
pub struct Link {
    /// The relation's name, as in `include=` and in dotted filters; unique within the declaring resource.
    pub name: String,
    /// Whether there is at most one such row.
    pub cardinality: Cardinality,
    /// Position of the local field in the declaring resource's schema.
    pub local: usize,
    /// The other resource.
    pub target: Arc<Schema>,
    /// Position of the field in the target's schema.
    pub remote: usize,
}

/// How many rows a relation leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cardinality {
    /// One or none: the local field refers to the target (`belongs_to`).
    One,
    /// Any number: the target's field refers to this row (`has_many`).
    Many,
}
