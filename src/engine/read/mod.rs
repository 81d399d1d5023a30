//! Operations that read: one file each, and what they share.

pub(crate) mod cache_key;
pub(super) mod explain;
mod history;
pub(super) mod include;
pub(super) mod item;
pub(super) mod list;
pub(super) mod past_states;
pub(super) mod prepared_read;
mod tree;
