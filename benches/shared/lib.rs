//! What several of the benchmarks measure with.

pub mod client;
pub mod figures;
