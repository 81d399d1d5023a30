//! Notifies the nodes of an application through its bus that events were published. Only how soon they read depends on it.

use std::sync::Arc;
use std::time::Duration;

use resourceful_contract::Bus;

use super::queue::Outbox;

/// How long to wait after the bus failed.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Sends and receives notifications of published events over the bus.
#[derive(Debug)]
pub(crate) struct PublishNotifier {
    bus: Arc<dyn Bus>,
    channel: String,
}

impl PublishNotifier {
    /// `application` is a name that all nodes of an application share and no other application has.
    pub(crate) fn new(bus: Arc<dyn Bus>, application: &str) -> Self {
        Self { bus, channel: format!("published.{application}") }
    }

    /// Notifies all nodes that events were published.
    pub(crate) async fn notify(&self) {
        if let Err(error) = self.bus.publish(&self.channel, Vec::new()).await {
            tracing::debug!(%error, "the bus is unavailable: other nodes poll instead");
        }
    }

    /// Receives notifications from other nodes, for as long as the application runs.
    pub(crate) async fn listen(&self, outbox: &Outbox) {
        loop {
            let Ok(mut listener) = self.bus.listen(&self.channel).await else {
                tokio::time::sleep(RETRY_DELAY).await;
                continue;
            };
            while listener.recv().await.is_ok() {
                outbox.published.send_modify(|count| *count += 1);
            }
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }
}
