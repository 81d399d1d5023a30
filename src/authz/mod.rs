//! Authorization: which rows an operation is permitted on, and which rows and fields its caller may read.

pub(crate) mod decision;
mod permitted_operations;
pub(crate) mod redact;
mod rules;

pub(crate) use permitted_operations::{PermittedOperations, permitted_operations};
pub(crate) use rules::compile_all;
