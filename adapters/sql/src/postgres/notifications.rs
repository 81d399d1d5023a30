//! Notifications between nodes: LISTEN and NOTIFY.

use std::time::Duration;

use resourceful_contract::{Answer, NotificationStream};
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};

use crate::error_mapping;

/// The statement that sends a notification.
pub(super) const NOTIFY: &str = "SELECT pg_notify($1, '')";

/// A connection that is used for LISTEN only.
#[derive(Debug)]
struct PgNotificationStream(PgListener);

impl NotificationStream for PgNotificationStream {
    fn notified(&mut self) -> Answer<'_, ()> {
        // A lost connection is opened again, and a gap counts as a notification, since some may have been missed meanwhile.
        Box::pin(async { self.0.try_recv().await.map(drop).map_err(error_mapping::connection_error) })
    }
}

pub(super) async fn listen(
    options: &PgConnectOptions,
    timeout: Duration,
    channel: &str,
) -> Result<Option<Box<dyn NotificationStream>>, sqlx::Error> {
    // Not one of the pool's connections, which are limited in number.
    let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(timeout);
    let listener_pool = pool.connect_with(options.clone()).await?;
    let mut listener = PgListener::connect_with(&listener_pool).await?;
    listener.listen(channel).await?;
    Ok(Some(Box::new(PgNotificationStream(listener))))
}
