//! The query cache: answers that are given again until something that they are made of changes.

mod answers;
mod course;
mod flight;
mod follow;
mod kept;
mod nodes;
mod settings;
mod shared;
mod tags;
mod watch;

pub(crate) use answers::{Answers, Came, Key, Lookup, Refreshing, Sharing};
pub(crate) use kept::{CACHE_STATUS, Content, Kept};
pub use settings::{CacheCounts, QueryCache};
pub(crate) use tags::{Generations, Tag};
pub(crate) use watch::{Watch, Watched, tenant_of};
