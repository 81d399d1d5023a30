//! Changes as they happen: who waits for which, what each is told, and how that is sent.

mod body;
mod hub;
mod index;
mod limits;
mod notice;
mod outlet;
mod peers;
mod place;
mod presence;
mod sse;
mod streams;
mod turns;
mod ws;

pub use limits::Streams;

pub(crate) use body::{Claim, Feed};
pub(crate) use hub::{Subscription, Wanted, Who};
pub(crate) use peers::follow as follow_presence;
pub(crate) use place::{Place, Scope};
pub(crate) use presence::{Place as Present, Presence, Room, Stir};
pub(crate) use sse::response as events_of;
pub(crate) use streams::Live;
pub(crate) use ws::{Ending, Told};
