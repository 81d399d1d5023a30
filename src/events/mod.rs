//! What tells others of changes: events, and how they get to whom they are for.

mod event;

pub use event::Event;
