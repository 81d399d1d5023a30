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

use super::presence::{Member, MemberLocation, PendingBroadcast, Presence, PresenceMessage, RoomId};
use crate::access::AbortOnDrop;

/// How long to wait after the bus failed.
const RETRY_DELAY: Duration = Duration::from_millis(250);
/// How many members a message holds at most.
const MAX_PART_MEMBERS: usize = 500;

/// A message between nodes.
#[derive(Debug, Serialize, Deserialize)]
struct NodeMessage {
    node: Uuid,
    /// The number of joins and leaves on that node, including those of this message.
    count: u64,
    says: PresencePayload,
}

#[derive(Debug, Serialize, Deserialize)]
enum PresencePayload {
    /// Joins and leaves, in order.
    Happened(Vec<PresenceMessage>),
    /// A snapshot of all members on the node, in numbered parts.
    Everyone { members: Vec<(RoomId, Arc<Member>)>, part: usize, is_last: bool },
    /// A heartbeat.
    Beat,
    /// A request for a snapshot, to one node or to all.
    Ask(Option<Uuid>),
}

/// What a node knows of another one.
#[derive(Debug)]
struct Peer {
    last_seen: Instant,
    /// The number up to which all joins and leaves are known.
    count: Option<u64>,
    /// When a snapshot was requested, unless it has arrived.
    requested_at: Option<Instant>,
    /// The parts of a snapshot received so far; `None` where a part is missing.
    snapshot: Option<PartialSnapshot>,
}

/// A snapshot of another node, as far as it has been received.
#[derive(Debug, Default)]
struct PartialSnapshot {
    /// The number of the next part.
    next_part: usize,
    members: Vec<(RoomId, Arc<Member>)>,
}

/// One node among the others.
#[derive(Debug)]
struct Node {
    id: Uuid,
    presence: Arc<Presence>,
    bus: Arc<dyn Bus>,
    channel: String,
    heartbeat: Duration,
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
    heartbeat: Duration,
) -> Result<AbortOnDrop, StorageError> {
    let channel = format!("presence.{application}");
    let listener = bus.listen(&channel).await?;
    presence.state().pending_broadcast = Some(PendingBroadcast::default());
    let node = Node { id: Uuid::new_v4(), presence: presence.clone(), bus: bus.clone(), channel, heartbeat };
    Ok(AbortOnDrop::new(&tokio::spawn(node.run(listener))))
}

impl Node {
    async fn run(self, mut listener: Box<dyn Listener>) {
        let mut peers: HashMap<Uuid, Peer> = HashMap::new();
        // Messages to send besides the changes on this node.
        let mut outgoing = vec![PresencePayload::Ask(None)];
        let mut is_snapshot_due = false;
        let mut heartbeat = Instant::now() + self.heartbeat;
        loop {
            if !self.publish_pending(&mut outgoing, &mut is_snapshot_due).await {
                tokio::time::sleep(RETRY_DELAY).await;
            }
            // Received messages first: a node that was held up learns which nodes are alive before it counts their silence.
            tokio::select! {
                biased;
                received = listener.recv() => match received {
                    Ok(BusEvent::Message(bytes)) => match serde_json::from_slice(&bytes) {
                        Ok(message) => self.receive(&mut peers, message, &mut outgoing, &mut is_snapshot_due),
                        Err(error) => tracing::warn!(error = format!("{error:#}"), "a presence message of another node cannot be read"),
                    },
                    Ok(BusEvent::Missed | BusEvent::Back) => {
                        for peer in peers.values_mut() {
                            (peer.count, peer.snapshot) = (None, None);
                        }
                        outgoing.push(PresencePayload::Ask(None));
                        is_snapshot_due = true;
                    }
                    Err(error) => {
                        tracing::debug!(%error, "the bus is unavailable: presence on other nodes is unknown");
                        self.remove_silent(&mut peers);
                        tokio::time::sleep(RETRY_DELAY).await;
                    }
                },
                () = self.presence.broadcast_due.notified() => {}
                () = tokio::time::sleep_until(heartbeat) => {
                    heartbeat = Instant::now() + self.heartbeat;
                    self.remove_silent(&mut peers);
                    outgoing.push(PresencePayload::Beat);
                }
            }
        }
    }

    /// Publishes pending messages; returns whether the bus accepted them. Where it did not, a full snapshot follows later.
    async fn publish_pending(&self, outgoing: &mut Vec<PresencePayload>, is_snapshot_due: &mut bool) -> bool {
        let (changes, count, everyone) = {
            let mut state = self.presence.state();
            let PendingBroadcast { changes, is_snapshot: everyone } =
                state.pending_broadcast.as_mut().map(std::mem::take).unwrap_or_default();
            *is_snapshot_due |= everyone;
            let everyone = is_snapshot_due.then(|| state.local_members());
            (changes, state.count, everyone)
        };
        let mut messages = Vec::new();
        match everyone {
            Some(everyone) => {
                let last = everyone.len().div_ceil(MAX_PART_MEMBERS).max(1) - 1;
                let mut everyone = everyone.into_iter();
                for part in 0..=last {
                    let members = everyone.by_ref().take(MAX_PART_MEMBERS).collect();
                    messages.push(PresencePayload::Everyone { members, part, is_last: part == last });
                }
            }
            None if changes.is_empty() => {}
            None => messages.push(PresencePayload::Happened(changes)),
        }
        // In this order: the changes that the number counts were announced before.
        messages.append(outgoing);
        for says in messages {
            let message = NodeMessage { node: self.id, count, says };
            let bytes = serde_json::to_vec(&message).unwrap_or_default();
            if let Err(error) = self.bus.publish(&self.channel, bytes).await {
                tracing::debug!(%error, "presence could not be published to other nodes");
                *is_snapshot_due = true;
                // In place of the requests that were pending.
                outgoing.push(PresencePayload::Ask(None));
                return false;
            }
        }
        *is_snapshot_due = false;
        true
    }

    fn receive(
        &self,
        peers: &mut HashMap<Uuid, Peer>,
        message: NodeMessage,
        outgoing: &mut Vec<PresencePayload>,
        is_snapshot_due: &mut bool,
    ) {
        let NodeMessage { node, count, says } = message;
        if node == self.id {
            return;
        }
        let now = Instant::now();
        let peer = peers.entry(node).or_insert_with(|| Peer {
            last_seen: now,
            count: None,
            requested_at: None,
            snapshot: None,
        });
        peer.last_seen = now;
        let location = MemberLocation::Remote(node);
        match says {
            PresencePayload::Happened(changes) => {
                if peer.count.map(|known| known + changes.len() as u64) != Some(count) {
                    return self.request_snapshot(peer, node, outgoing);
                }
                peer.count = Some(count);
                let mut state = self.presence.state();
                for change in changes {
                    match change {
                        PresenceMessage::Joined(room, member) => state.add_member(room, member, location),
                        PresenceMessage::Left(room, member) => state.remove_member(room, member),
                    }
                }
            }
            PresencePayload::Everyone { members, part, is_last } => {
                let before = if part == 0 { Some(PartialSnapshot::default()) } else { peer.snapshot.take() };
                let Some(mut snapshot) = before.filter(|snapshot| snapshot.next_part == part) else {
                    return self.request_snapshot(peer, node, outgoing);
                };
                snapshot.members.extend(members);
                if is_last {
                    (peer.count, peer.requested_at) = (Some(count), None);
                    let known: HashSet<_> = snapshot.members.iter().map(|(_, one)| one.member).collect();
                    let mut state = self.presence.state();
                    state.retain_remote(node, |member| known.contains(&member));
                    for (room, member) in snapshot.members {
                        state.add_member(room, member, location);
                    }
                } else {
                    snapshot.next_part += 1;
                    peer.snapshot = Some(snapshot);
                }
            }
            PresencePayload::Beat if peer.count != Some(count) => self.request_snapshot(peer, node, outgoing),
            PresencePayload::Beat => {}
            PresencePayload::Ask(target) => *is_snapshot_due |= target.is_none_or(|target| target == self.id),
        }
    }

    /// Requests a snapshot from a node: one of its messages was missed.
    fn request_snapshot(&self, peer: &mut Peer, node: Uuid, outgoing: &mut Vec<PresencePayload>) {
        peer.count = None;
        if peer.requested_at.is_none_or(|requested_at| requested_at.elapsed() > self.heartbeat) {
            peer.requested_at = Some(Instant::now());
            outgoing.push(PresencePayload::Ask(Some(node)));
        }
    }

    /// Removes the members of silent nodes.
    fn remove_silent(&self, peers: &mut HashMap<Uuid, Peer>) {
        peers.retain(|node, peer| {
            let is_alive = peer.last_seen.elapsed() <= 3 * self.heartbeat;
            if !is_alive {
                self.presence.state().retain_remote(*node, |_| false);
            }
            is_alive
        });
    }
}
