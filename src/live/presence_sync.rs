//! Synchronizes presence between nodes, over the bus.
//!
//! Each node counts the joins and leaves on it and sends that number with every message, so that other nodes detect missed
//! messages, and ask for a snapshot. A node that is silent for a while is gone, with all its members: a killed node cannot
//! announce its end.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use resourceful_contract::{Bus, BusEvent, Listener, StorageError};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use uuid::Uuid;

use super::presence::{Member, PendingBroadcast, Presence, PresenceMessage, Room, Where};
use crate::access::Following;

/// How long to wait after the bus failed.
const PAUSE: Duration = Duration::from_millis(250);
/// How many members a message holds at most.
const PART: usize = 500;

/// A message between nodes.
#[derive(Debug, Serialize, Deserialize)]
struct Message {
    node: Uuid,
    /// The number of joins and leaves on that node, including those of this message.
    count: u64,
    says: Says,
}

#[derive(Debug, Serialize, Deserialize)]
enum Says {
    /// Joins and leaves, in order.
    Happened(Vec<PresenceMessage>),
    /// A snapshot of all members on the node, in numbered parts.
    Everyone { members: Vec<(Room, Arc<Member>)>, part: usize, is_last: bool },
    /// A heartbeat.
    Beat,
    /// A request for a snapshot, to one node or to all.
    Ask(Option<Uuid>),
}

/// What a node knows of another one.
#[derive(Debug)]
struct Peer {
    heard: Instant,
    /// The number up to which all joins and leaves are known.
    count: Option<u64>,
    /// When a snapshot was requested, unless it has arrived.
    asked: Option<Instant>,
    /// The parts of a snapshot received so far; `None` where a part is missing.
    coming: Option<Coming>,
}

/// A snapshot of another node, as far as it has been received.
#[derive(Debug, Default)]
struct Coming {
    /// The number of the next part.
    next: usize,
    members: Vec<(Room, Arc<Member>)>,
}

/// One node among the others.
#[derive(Debug)]
struct Node {
    id: Uuid,
    presence: Arc<Presence>,
    bus: Arc<dyn Bus>,
    channel: String,
    beat: Duration,
}

/// Announces this node's members and receives those of other nodes, for as long as the returned value is held. A node sends
/// a heartbeat each `beat`, and is gone after three of them in silence.
///
/// # Errors
/// Where the bus cannot be listened to.
pub(crate) async fn follow(
    presence: &Arc<Presence>,
    bus: &Arc<dyn Bus>,
    application: &str,
    beat: Duration,
) -> Result<Following, StorageError> {
    let channel = format!("presence.{application}");
    let listener = bus.listen(&channel).await?;
    presence.state().untold = Some(PendingBroadcast::default());
    let node = Node { id: Uuid::new_v4(), presence: presence.clone(), bus: bus.clone(), channel, beat };
    Ok(Following::new(&tokio::spawn(node.live(listener))))
}

impl Node {
    async fn live(self, mut listener: Box<dyn Listener>) {
        let mut peers: HashMap<Uuid, Peer> = HashMap::new();
        // Messages to send besides the changes on this node.
        let mut to_say = vec![Says::Ask(None)];
        let mut says_all = false;
        let mut beat = Instant::now() + self.beat;
        loop {
            if !self.say(&mut to_say, &mut says_all).await {
                tokio::time::sleep(PAUSE).await;
            }
            // Received messages first: a node that was held up learns which nodes are alive before it counts their silence.
            tokio::select! {
                biased;
                heard = listener.heard() => match heard {
                    Ok(BusEvent::Message(bytes)) => match serde_json::from_slice(&bytes) {
                        Ok(message) => self.hear(&mut peers, message, &mut to_say, &mut says_all),
                        Err(error) => tracing::warn!(error = format!("{error:#}"), "a presence message of another node cannot be read"),
                    },
                    Ok(BusEvent::Missed | BusEvent::Back) => {
                        for peer in peers.values_mut() {
                            (peer.count, peer.coming) = (None, None);
                        }
                        to_say.push(Says::Ask(None));
                        says_all = true;
                    }
                    Err(error) => {
                        tracing::debug!(%error, "the bus is unavailable: presence on other nodes is unknown");
                        self.forget_silent(&mut peers);
                        tokio::time::sleep(PAUSE).await;
                    }
                },
                () = self.presence.news.notified() => {}
                () = tokio::time::sleep_until(beat) => {
                    beat = Instant::now() + self.beat;
                    self.forget_silent(&mut peers);
                    to_say.push(Says::Beat);
                }
            }
        }
    }

    /// Publishes pending messages; returns whether the bus accepted them. Where it did not, a full snapshot follows later.
    async fn say(&self, to_say: &mut Vec<Says>, says_all: &mut bool) -> bool {
        let (happened, count, everyone) = {
            let mut state = self.presence.state();
            let PendingBroadcast { happened, everyone } =
                state.untold.as_mut().map(std::mem::take).unwrap_or_default();
            *says_all |= everyone;
            let everyone = says_all.then(|| state.here());
            (happened, state.count, everyone)
        };
        let mut messages = Vec::new();
        match everyone {
            Some(everyone) => {
                let last = everyone.len().div_ceil(PART).max(1) - 1;
                let mut everyone = everyone.into_iter();
                for part in 0..=last {
                    let members = everyone.by_ref().take(PART).collect();
                    messages.push(Says::Everyone { members, part, is_last: part == last });
                }
            }
            None if happened.is_empty() => {}
            None => messages.push(Says::Happened(happened)),
        }
        // In this order: the changes that the number counts were announced before.
        messages.append(to_say);
        for says in messages {
            let message = Message { node: self.id, count, says };
            let bytes = serde_json::to_vec(&message).unwrap_or_default();
            if let Err(error) = self.bus.publish(&self.channel, bytes).await {
                tracing::debug!(%error, "presence could not be published to other nodes");
                *says_all = true;
                // In place of the requests that were pending.
                to_say.push(Says::Ask(None));
                return false;
            }
        }
        *says_all = false;
        true
    }

    fn hear(
        &self,
        peers: &mut HashMap<Uuid, Peer>,
        message: Message,
        to_say: &mut Vec<Says>,
        says_all: &mut bool,
    ) {
        let Message { node, count, says } = message;
        if node == self.id {
            return;
        }
        let now = Instant::now();
        let peer =
            peers.entry(node).or_insert_with(|| Peer { heard: now, count: None, asked: None, coming: None });
        peer.heard = now;
        let place = Where::On(node);
        match says {
            Says::Happened(happened) => {
                if peer.count.map(|known| known + happened.len() as u64) != Some(count) {
                    return self.missed(peer, node, to_say);
                }
                peer.count = Some(count);
                let mut state = self.presence.state();
                for told in happened {
                    match told {
                        PresenceMessage::Joined(room, member) => state.enter(room, member, place),
                        PresenceMessage::Left(room, member) => state.leave(room, member),
                    }
                }
            }
            Says::Everyone { members, part, is_last } => {
                let before = if part == 0 { Some(Coming::default()) } else { peer.coming.take() };
                let Some(mut coming) = before.filter(|coming| coming.next == part) else {
                    return self.missed(peer, node, to_say);
                };
                coming.members.extend(members);
                if is_last {
                    (peer.count, peer.asked) = (Some(count), None);
                    let known: HashSet<_> = coming.members.iter().map(|(_, one)| one.member).collect();
                    let mut state = self.presence.state();
                    state.keep_of(node, |member| known.contains(&member));
                    for (room, member) in coming.members {
                        state.enter(room, member, place);
                    }
                } else {
                    coming.next += 1;
                    peer.coming = Some(coming);
                }
            }
            Says::Beat if peer.count != Some(count) => self.missed(peer, node, to_say),
            Says::Beat => {}
            Says::Ask(whom) => *says_all |= whom.is_none_or(|whom| whom == self.id),
        }
    }

    /// Requests a snapshot from a node: one of its messages was missed.
    fn missed(&self, peer: &mut Peer, node: Uuid, to_say: &mut Vec<Says>) {
        peer.count = None;
        if peer.asked.is_none_or(|asked| asked.elapsed() > self.beat) {
            peer.asked = Some(Instant::now());
            to_say.push(Says::Ask(Some(node)));
        }
    }

    /// Removes the members of silent nodes.
    fn forget_silent(&self, peers: &mut HashMap<Uuid, Peer>) {
        peers.retain(|node, peer| {
            let is_alive = peer.heard.elapsed() <= 3 * self.beat;
            if !is_alive {
                self.presence.state().keep_of(*node, |_| false);
            }
            is_alive
        });
    }
}
