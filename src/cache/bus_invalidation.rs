//! Cache invalidation over the bus: nodes announce their changes, so that no node serves a response that a change on
//! another one has outdated.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use resourceful_contract::{Bus, BusEvent, Listener, StorageError};
use uuid::Uuid;

use super::responses::ResponseCache;
use super::tags::Invalidation;
use crate::access::AbortOnDrop;

/// The bus channel of invalidation messages.
const CHANNEL: &str = "cache";
/// How long a node that lost the bus waits before it retries.
const RETRY_DELAY: Duration = Duration::from_millis(250);

impl ResponseCache {
    /// Publishes the invalidations of this node and applies those of other nodes, for as long as the returned handles
    /// are held.
    ///
    /// # Errors
    /// If the bus cannot be listened to.
    pub(crate) async fn start_invalidation(
        self: &Arc<Self>,
        bus: &Arc<dyn Bus>,
    ) -> Result<[AbortOnDrop; 2], StorageError> {
        let listener = bus.listen(CHANNEL).await?;
        self.tag_versions().start_publishing();
        let node = Uuid::new_v4().into_bytes();
        let receiver = tokio::spawn(receive_invalidations(self.clone(), node, listener));
        let publisher = tokio::spawn(publish_invalidations(self.clone(), node, bus.clone()));
        Ok([AbortOnDrop::new(&receiver), AbortOnDrop::new(&publisher)])
    }
}

async fn receive_invalidations(cache: Arc<ResponseCache>, node: [u8; 16], mut listener: Box<dyn Listener>) {
    loop {
        match listener.recv().await {
            Ok(event) => {
                match (event, cache.is_disconnected()) {
                    (BusEvent::Message(message), false) => match message.strip_prefix(&node) {
                        // A message of this node: it was applied here before it was published.
                        Some(_) => {}
                        None => match Invalidation::from_bytes(message.get(node.len()..).unwrap_or_default())
                        {
                            Invalidation::Tags { tags, events, has_unpublished } => {
                                cache.tag_versions().apply_invalidation(&tags, &events, has_unpublished);
                            }
                            Invalidation::Everything => cache.tag_versions().invalidate_all(),
                        },
                    },
                    // The first event after an interruption: messages may have been missed.
                    _ => cache.tag_versions().invalidate_all(),
                }
                cache.is_disconnected.store(false, Ordering::SeqCst);
            }
            Err(error) => {
                if !cache.is_disconnected.swap(true, Ordering::SeqCst) {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "the bus is unavailable: cached responses are not served until it is back"
                    );
                }
                tokio::time::sleep(RETRY_DELAY).await;
            }
        }
    }
}

async fn publish_invalidations(cache: Arc<ResponseCache>, node: [u8; 16], bus: Arc<dyn Bus>) {
    loop {
        let invalidation = cache.tag_versions().next_invalidation().await;
        let message = [&node[..], &invalidation.to_bytes()].concat();
        while let Err(error) = bus.publish(CHANNEL, message.clone()).await {
            tracing::debug!(%error, "cache invalidations could not be published to other nodes");
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }
}
