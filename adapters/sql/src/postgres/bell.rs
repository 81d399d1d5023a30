//! Bells between nodes: LISTEN and NOTIFY.

use std::time::Duration;

use resourceful_contract::{Answer, NotificationStream};
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};

use crate::failure;

/// Rings a bell.
pub(super) const RING: &str = "SELECT pg_notify($1, '')";

/// A connection that listens and does nothing else.
#[derive(Debug)]
struct Listening(PgListener);

impl NotificationStream for Listening {
    fn rung(&mut self) -> Answer<'_, ()> {
        // Where the connection is lost it is made again, and what was rung meanwhile counts as heard.
        Box::pin(async { self.0.try_recv().await.map(drop).map_err(failure::connection) })
    }
}

pub(super) async fn hear(
    options: &PgConnectOptions,
    timeout: Duration,
    bell: &str,
) -> Result<Option<Box<dyn NotificationStream>>, sqlx::Error> {
    // Not one of the pool's, which are counted.
    let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(timeout);
    let own = pool.connect_with(options.clone()).await?;
    let mut listener = PgListener::connect_with(&own).await?;
    listener.listen(bell).await?;
    Ok(Some(Box::new(Listening(listener))))
}
