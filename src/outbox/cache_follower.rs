//! The response cache as a follower of published events.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::tail::Follower;
use crate::cache::WriteObserver;
use crate::tables::events::{EventRow, Position};

impl Follower for WriteObserver {
    fn is_active(&self, _: usize) -> bool {
        true
    }

    fn start_from(&self, _: usize, at: Position) {
        self.restart_from(at);
    }

    fn handle_events<'a>(&'a self, _: usize, rows: &'a [Arc<EventRow>]) -> BoxFuture<'a, ()> {
        self.apply(rows);
        Box::pin(std::future::ready(()))
    }
}
