//! The response cache as a follower of published events.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::tail::Follower;
use crate::cache::Watch;
use crate::tables::events::{EventRow, Position};

impl Follower for Watch {
    fn listens(&self, _: usize) -> bool {
        true
    }

    fn begins(&self, _: usize, at: Position) {
        self.begin(at);
    }

    fn published<'a>(&'a self, _: usize, rows: &'a [Arc<EventRow>]) -> BoxFuture<'a, ()> {
        self.apply(rows);
        Box::pin(std::future::ready(()))
    }
}
