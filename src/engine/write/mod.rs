//! Operations that write: one file each, and the steps that they share, from a body to a commit.

pub(super) mod action;
pub(super) mod batch;
pub(super) mod bulk;
pub(super) mod commit;
pub(super) mod commit_plan;
pub(super) mod contention;
pub(super) mod context;
mod create;
mod delete;
mod dry_run;
mod enlist;
mod hook_reads;
mod hooks;
pub(super) mod idempotency;
pub(super) mod input;
pub(super) mod load;
mod purge;
pub(super) mod records;
mod replace;
pub(super) mod row_check;
mod scheduled;
mod subscriber_changes;
#[cfg(feature = "webhooks")]
pub(super) mod system_rows;
pub(super) mod update;
