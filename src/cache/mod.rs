//! The query cache: answers that are given again until something that they are made of changes.

mod answers;
mod flight;
mod follow;
mod nodes;
mod settings;
mod tags;
mod watch;

pub(crate) use answers::{Answers, Came, Content, Kept, Key, Lookup, Refreshing};
pub use settings::{CacheCounts, QueryCache};
pub(crate) use tags::{Generations, Tag};
pub(crate) use watch::{Watch, Watched, tenant_of};
