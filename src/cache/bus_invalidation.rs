//! Cache invalidation over the bus: nodes announce their changes, so that no node serves a response that a change on
//! another one has outdated.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use resourceful_contract::{Bus, BusEvent, Listener, StorageError};
use uuid::Uuid;

use super::responses::ResponseCache;
use super::tags::Forget;
use crate::access::Following;

/// The bus channel of invalidation messages.
const CHANNEL: &str = "cache";
/// How long a node that lost the bus waits before it retries.
const PAUSE: Duration = Duration::from_millis(250);

impl ResponseCache {
    /// Publishes the invalidations of this node and applies those of other nodes, for as long as the returned handles
    /// are held.
    ///
    /// # Errors
    /// If the bus cannot be listened to.
    pub(crate) async fn follow(self: &Arc<Self>, bus: &Arc<dyn Bus>) -> Result<[Following; 2], StorageError> {
        let listener = bus.listen(CHANNEL).await?;
        self.generations().begin_telling();
        let node = Uuid::new_v4().into_bytes();
        let listening = tokio::spawn(listen(self.clone(), node, listener));
        let telling = tokio::spawn(tell(self.clone(), node, bus.clone()));
        Ok([Following::new(&listening), Following::new(&telling)])
    }
}

async fn listen(answers: Arc<ResponseCache>, node: [u8; 16], mut listener: Box<dyn Listener>) {
    loop {
        match listener.heard().await {
            Ok(heard) => {
                match (heard, answers.is_deaf()) {
                    (BusEvent::Message(message), false) => match message.strip_prefix(&node) {
                        // A message of this node: it was applied here before it was published.
                        Some(_) => {}
                        None => match Forget::of_bytes(message.get(node.len()..).unwrap_or_default()) {
                            Forget::Tags { tags, events, unsaid } => {
                                answers.generations().told(&tags, &events, unsaid);
                            }
                            Forget::Everything => answers.generations().forget_all(),
                        },
                    },
                    // The first event after an interruption: messages may have been missed.
                    _ => answers.generations().forget_all(),
                }
                answers.is_deaf.store(false, Ordering::SeqCst);
            }
            Err(error) => {
                if !answers.is_deaf.swap(true, Ordering::SeqCst) {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "the bus is away: no remembered answers are given until it is back"
                    );
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn tell(answers: Arc<ResponseCache>, node: [u8; 16], bus: Arc<dyn Bus>) {
    loop {
        let forget = answers.generations().to_tell().await;
        let message = [&node[..], &forget.to_bytes()].concat();
        while let Err(error) = bus.publish(CHANNEL, message.clone()).await {
            tracing::debug!(%error, "cache invalidations could not be published to other nodes");
            tokio::time::sleep(PAUSE).await;
        }
    }
}
