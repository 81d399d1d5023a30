//! What nodes tell each other of who is where.
//!
//! Each node counts who joins and leaves on it and tells that number with everything, so that another one sees by itself
//! whether it missed something, and asks. A node that says nothing for a while is gone, with all who were on it: whoever is
//! killed cannot say so.

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
/// How many members a message holds.
const PART: usize = 500;

/// A message between nodes.
#[derive(Debug, Serialize, Deserialize)]
struct Message {
    node: Uuid,
    /// How often somebody had joined or left there, this included.
    count: u64,
    says: Says,
}

#[derive(Debug, Serialize, Deserialize)]
enum Says {
    /// Who joined or left, one after the other.
    Happened(Vec<PresenceMessage>),
    /// Everyone who is there, in parts, which are numbered.
    Everyone { members: Vec<(Room, Arc<Member>)>, part: usize, is_last: bool },
    /// It is still there.
    Beat,
    /// Who is there? Asked of one node, or of all.
    Ask(Option<Uuid>),
}

/// What a node knows of another one.
#[derive(Debug)]
struct Peer {
    heard: Instant,
    /// Up to where everything is known.
    count: Option<u64>,
    /// When it was asked who is there, unless it has answered.
    asked: Option<Instant>,
    /// What of a whole has come so far; nothing where a part is missing.
    coming: Option<Coming>,
}

/// Those of another node, as far as they have come.
#[derive(Debug, Default)]
struct Coming {
    /// The number of the part that comes next.
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

/// Tells other nodes who is here, and hears who is there, for as long as the answer is held. A node says that it is alive
/// each `beat`, and is gone after three of them in silence.
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
        // What is to be said besides what happens here.
        let mut to_say = vec![Says::Ask(None)];
        let mut says_all = false;
        let mut beat = Instant::now() + self.beat;
        loop {
            if !self.say(&mut to_say, &mut says_all).await {
                tokio::time::sleep(PAUSE).await;
            }
            // What is heard first: a node that was held up knows who is alive before it counts the silence.
            tokio::select! {
                biased;
                heard = listener.heard() => match heard {
                    Ok(BusEvent::Message(bytes)) => match serde_json::from_slice(&bytes) {
                        Ok(message) => self.hear(&mut peers, message, &mut to_say, &mut says_all),
                        Err(error) => tracing::warn!(error = format!("{error:#}"), "what a node told of who is there cannot be read"),
                    },
                    Ok(BusEvent::Missed | BusEvent::Back) => {
                        for peer in peers.values_mut() {
                            (peer.count, peer.coming) = (None, None);
                        }
                        to_say.push(Says::Ask(None));
                        says_all = true;
                    }
                    Err(error) => {
                        tracing::debug!(%error, "the bus is away: who is on other nodes is not known");
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

    /// Says what there is to say; answers whether the bus took it. Where it did not, everyone is told of later.
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
        // In this order: what is said of the number has been told of before.
        messages.append(to_say);
        for says in messages {
            let message = Message { node: self.id, count, says };
            let bytes = serde_json::to_vec(&message).unwrap_or_default();
            if let Err(error) = self.bus.publish(&self.channel, bytes).await {
                tracing::debug!(%error, "other nodes could not be told who is here");
                *says_all = true;
                // Whatever was to be asked.
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

    /// Asks a node who is there: something that it told did not come.
    fn missed(&self, peer: &mut Peer, node: Uuid, to_say: &mut Vec<Says>) {
        peer.count = None;
        if peer.asked.is_none_or(|asked| asked.elapsed() > self.beat) {
            peer.asked = Some(Instant::now());
            to_say.push(Says::Ask(Some(node)));
        }
    }

    /// Has everyone leave whose node says nothing any more.
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
