//! Presets: parts of a declaration that many resources share, one per file, made of public names only.

mod timestamps;

pub use timestamps::{Timestamps, timestamps};
