//! Presence: the members of rooms, on all nodes.
//!
//! A room belongs to one tenant and one item, or to one tenant and one resource as a whole. It is named by a digest, so
//! that its name in messages between nodes reveals nothing confidential. Each node knows its own members for certain and
//! those of the other nodes as far as these have announced them ([`presence_sync`](super::presence_sync)).

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use tokio::sync::{Notify, broadcast};
use uuid::Uuid;

use crate::digest;
use crate::error::{Error, ErrorKind};

/// The most members of one room.
const MOST: usize = 1_000;
/// How many joins and leaves are announced to other nodes one by one; where there are more, a full snapshot is sent.
const MOST_UNTOLD: usize = 1_000;
/// How often one actor may be in one room, and how many anonymous members there may be.
const MOST_OF_ONE: usize = 10;
const MOST_UNKNOWN: usize = 100;
/// Event buffer of one member; on overflow the member gets a full snapshot.
const QUEUE: usize = 64;

/// The name of a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Room([u8; 16]);

impl Room {
    pub(crate) fn of(tenant: Option<&str>, resource: &str, item: Option<&str>) -> Self {
        let mut fed = digest::DigestInput::default();
        digest::maybe_text(&mut fed, tenant);
        digest::text(&mut fed, resource);
        digest::maybe_text(&mut fed, item);
        let mut name = [0; 16];
        name.copy_from_slice(&fed.digest().as_bytes()[..16]);
        Self(name)
    }
}

/// A member of a room, one for each time that a caller joined.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Member {
    /// Unique id of this member.
    #[serde(rename = "id")]
    pub(crate) member: Uuid,
    /// The actor; `None` for an anonymous caller.
    pub(crate) actor: Option<Arc<str>>,
    /// State that the client has set.
    #[serde(default, skip_serializing_if = "Json::is_null")]
    pub(crate) state: Json,
}

/// A change of a room's members.
#[derive(Clone, Debug)]
pub(crate) enum PresenceEvent {
    Joined(Arc<Member>),
    Left(Uuid),
}

/// The members of all rooms, as far as this node knows.
#[derive(Debug, Default)]
pub(crate) struct Presence {
    state: Mutex<State>,
    /// Notified when there is something to announce to other nodes.
    pub(super) news: Notify,
}

#[derive(Debug, Default)]
pub(super) struct State {
    rooms: HashMap<Room, Inside>,
    /// Changes on this node that are not announced yet; `None` where no other nodes listen.
    pub(super) untold: Option<PendingBroadcast>,
    /// The number of joins and leaves on this node.
    pub(super) count: u64,
}

/// Changes to be announced to other nodes.
#[derive(Debug, Default)]
pub(super) struct PendingBroadcast {
    pub(super) happened: Vec<PresenceMessage>,
    /// Whether there were so many changes that a full snapshot is announced instead.
    pub(super) everyone: bool,
}

/// A join or leave on this node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum PresenceMessage {
    Joined(Room, Arc<Member>),
    Left(Room, Uuid),
}

#[derive(Debug)]
struct Inside {
    members: BTreeMap<Uuid, (Arc<Member>, Where)>,
    stirs: broadcast::Sender<PresenceEvent>,
}

/// The node of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Where {
    Here,
    On(Uuid),
}

impl Default for Inside {
    fn default() -> Self {
        Self { members: BTreeMap::new(), stirs: broadcast::Sender::new(QUEUE) }
    }
}

/// A member on this node, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    presence: Arc<Presence>,
    pub(crate) room: Room,
    pub(crate) member: Uuid,
    stirs: broadcast::Receiver<PresenceEvent>,
}

impl Presence {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a member to a room.
    ///
    /// # Errors
    /// Where the room is full.
    pub(crate) fn join(
        self: &Arc<Self>,
        room: Room,
        actor: Option<Arc<str>>,
        state: Json,
    ) -> Result<Place, Error> {
        let member = Uuid::now_v7();
        let someone = Arc::new(Member { member, actor, state });
        let mut known = self.state();
        if !known.has_place(room, someone.actor.as_deref()) {
            let detail = "As many are there as there may be. Try again.";
            return Err(Error::new(ErrorKind::TooManyRequests, "room-full", detail));
        }
        known.enter(room, someone.clone(), Where::Here);
        let stirs = known.rooms.entry(room).or_default().stirs.subscribe();
        known.note(PresenceMessage::Joined(room, someone));
        drop(known);
        self.news.notify_one();
        Ok(Place { presence: self.clone(), room, member, stirs })
    }
}

impl State {
    /// The members of a room, in the order in which they joined.
    fn members(&self, room: Room) -> Vec<Arc<Member>> {
        let members = self.rooms.get(&room).map(|inside| inside.members.values());
        members.into_iter().flatten().map(|(member, _)| member.clone()).collect()
    }

    /// Whether another member may join a room.
    fn has_place(&self, room: Room, actor: Option<&str>) -> bool {
        let Some(inside) = self.rooms.get(&room) else { return true };
        let own = inside.members.values().filter(|(member, _)| member.actor.as_deref() == actor).count();
        let most = if actor.is_some() { MOST_OF_ONE } else { MOST_UNKNOWN };
        inside.members.len() < MOST && own < most
    }

    pub(super) fn enter(&mut self, room: Room, member: Arc<Member>, place: Where) {
        let inside = self.rooms.entry(room).or_default();
        if inside.members.insert(member.member, (member.clone(), place)).is_none() {
            // It fails only where no receiver listens.
            let _ = inside.stirs.send(PresenceEvent::Joined(member));
        }
    }

    pub(super) fn leave(&mut self, room: Room, member: Uuid) {
        let Some(inside) = self.rooms.get_mut(&room) else { return };
        if inside.members.remove(&member).is_some() {
            let _ = inside.stirs.send(PresenceEvent::Left(member));
        }
        if inside.members.is_empty() {
            self.rooms.remove(&room);
        }
    }

    /// Removes the members on another node, except for some.
    pub(super) fn keep_of(&mut self, node: Uuid, is_there: impl Fn(Uuid) -> bool) {
        self.rooms.retain(|_, inside| {
            inside.members.retain(|member, (_, place)| {
                let stays = *place != Where::On(node) || is_there(*member);
                if !stays {
                    let _ = inside.stirs.send(PresenceEvent::Left(*member));
                }
                stays
            });
            !inside.members.is_empty()
        });
    }

    /// All members on this node.
    pub(super) fn here(&self) -> Vec<(Room, Arc<Member>)> {
        let of = |(room, inside): (&Room, &Inside)| {
            let here = inside.members.values().filter(|(_, place)| *place == Where::Here);
            here.map(|(member, _)| (*room, member.clone())).collect::<Vec<_>>()
        };
        self.rooms.iter().flat_map(of).collect()
    }

    fn note(&mut self, told: PresenceMessage) {
        self.count += 1;
        let Some(untold) = &mut self.untold else { return };
        if untold.happened.len() >= MOST_UNTOLD {
            untold.everyone = true;
        }
        if untold.everyone {
            untold.happened = Vec::new();
        } else {
            untold.happened.push(told);
        }
    }
}

impl Place {
    /// All members of the room, this one included. Earlier events are covered by the result and discarded.
    pub(crate) fn members(&mut self) -> Vec<Arc<Member>> {
        let state = self.presence.state();
        // Under one lock: members that join from here on come as events.
        self.stirs = self.stirs.resubscribe();
        state.members(self.room)
    }

    /// The next event; `None` where more occurred than the buffer holds.
    pub(crate) async fn stir(&mut self) -> Option<PresenceEvent> {
        self.stirs.recv().await.ok()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.presence.state();
        state.leave(self.room, self.member);
        state.note(PresenceMessage::Left(self.room, self.member));
        drop(state);
        self.presence.news.notify_one();
    }
}
