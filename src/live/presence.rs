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
const MAX_MEMBERS: usize = 1_000;
/// How many joins and leaves are announced to other nodes one by one; where there are more, a full snapshot is sent.
const MAX_PENDING: usize = 1_000;
/// How often one actor may be in one room, and how many anonymous members there may be.
const MAX_PER_ACTOR: usize = 10;
const MAX_ANONYMOUS: usize = 100;
/// Event buffer of one member; on overflow the member gets a full snapshot.
const EVENT_BUFFER: usize = 64;

/// The name of a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct RoomId([u8; 16]);

impl RoomId {
    pub(crate) fn of(tenant: Option<&str>, resource: &str, item: Option<&str>) -> Self {
        let mut input = digest::DigestInput::default();
        digest::add_optional_text(&mut input, tenant);
        digest::add_text(&mut input, resource);
        digest::add_optional_text(&mut input, item);
        let mut name = [0; 16];
        name.copy_from_slice(&input.digest().as_bytes()[..16]);
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
    state: Mutex<PresenceState>,
    /// Notified when there is something to announce to other nodes.
    pub(super) broadcast_due: Notify,
}

#[derive(Debug, Default)]
pub(super) struct PresenceState {
    rooms: HashMap<RoomId, RoomState>,
    /// Changes on this node that are not announced yet; `None` where no other nodes listen.
    pub(super) pending_broadcast: Option<PendingBroadcast>,
    /// The number of joins and leaves on this node.
    pub(super) count: u64,
}

/// Changes to be announced to other nodes.
#[derive(Debug, Default)]
pub(super) struct PendingBroadcast {
    pub(super) changes: Vec<PresenceMessage>,
    /// Whether there were so many changes that a full snapshot is announced instead.
    pub(super) is_snapshot: bool,
}

/// A join or leave on this node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum PresenceMessage {
    Joined(RoomId, Arc<Member>),
    Left(RoomId, Uuid),
}

#[derive(Debug)]
struct RoomState {
    members: BTreeMap<Uuid, (Arc<Member>, MemberLocation)>,
    events: broadcast::Sender<PresenceEvent>,
}

/// The node of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MemberLocation {
    Local,
    Remote(Uuid),
}

impl Default for RoomState {
    fn default() -> Self {
        Self { members: BTreeMap::new(), events: broadcast::Sender::new(EVENT_BUFFER) }
    }
}

/// A member on this node, until it is dropped.
#[derive(Debug)]
pub(crate) struct LocalMember {
    presence: Arc<Presence>,
    pub(crate) room: RoomId,
    pub(crate) member: Uuid,
    events: broadcast::Receiver<PresenceEvent>,
}

impl Presence {
    pub(super) fn state(&self) -> MutexGuard<'_, PresenceState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a member to a room.
    ///
    /// # Errors
    /// Where the room is full.
    pub(crate) fn join(
        self: &Arc<Self>,
        room: RoomId,
        actor: Option<Arc<str>>,
        state: Json,
    ) -> Result<LocalMember, Error> {
        let member = Uuid::now_v7();
        let new_member = Arc::new(Member { member, actor, state });
        let mut guard = self.state();
        if !guard.has_capacity(room, new_member.actor.as_deref()) {
            let detail = "The maximum number of members is reached. Try again.";
            return Err(Error::new(ErrorKind::TooManyRequests, "room-full", detail));
        }
        guard.add_member(room, new_member.clone(), MemberLocation::Local);
        let events = guard.rooms.entry(room).or_default().events.subscribe();
        guard.record(PresenceMessage::Joined(room, new_member));
        drop(guard);
        self.broadcast_due.notify_one();
        Ok(LocalMember { presence: self.clone(), room, member, events })
    }
}

impl PresenceState {
    /// The members of a room, in the order in which they joined.
    fn members(&self, room: RoomId) -> Vec<Arc<Member>> {
        let members = self.rooms.get(&room).map(|room_state| room_state.members.values());
        members.into_iter().flatten().map(|(member, _)| member.clone()).collect()
    }

    /// Whether another member may join a room.
    fn has_capacity(&self, room: RoomId, actor: Option<&str>) -> bool {
        let Some(room_state) = self.rooms.get(&room) else { return true };
        let own = room_state.members.values().filter(|(member, _)| member.actor.as_deref() == actor).count();
        let limit = if actor.is_some() { MAX_PER_ACTOR } else { MAX_ANONYMOUS };
        room_state.members.len() < MAX_MEMBERS && own < limit
    }

    pub(super) fn add_member(&mut self, room: RoomId, member: Arc<Member>, location: MemberLocation) {
        let room_state = self.rooms.entry(room).or_default();
        if room_state.members.insert(member.member, (member.clone(), location)).is_none() {
            // It fails only where no receiver listens.
            let _ = room_state.events.send(PresenceEvent::Joined(member));
        }
    }

    pub(super) fn remove_member(&mut self, room: RoomId, member: Uuid) {
        let Some(room_state) = self.rooms.get_mut(&room) else { return };
        if room_state.members.remove(&member).is_some() {
            let _ = room_state.events.send(PresenceEvent::Left(member));
        }
        if room_state.members.is_empty() {
            self.rooms.remove(&room);
        }
    }

    /// Removes the members on another node, except for some.
    pub(super) fn retain_remote(&mut self, node: Uuid, is_present: impl Fn(Uuid) -> bool) {
        self.rooms.retain(|_, room_state| {
            room_state.members.retain(|member, (_, location)| {
                let is_kept = *location != MemberLocation::Remote(node) || is_present(*member);
                if !is_kept {
                    let _ = room_state.events.send(PresenceEvent::Left(*member));
                }
                is_kept
            });
            !room_state.members.is_empty()
        });
    }

    /// All members on this node.
    pub(super) fn local_members(&self) -> Vec<(RoomId, Arc<Member>)> {
        let of = |(room, room_state): (&RoomId, &RoomState)| {
            let here = room_state.members.values().filter(|(_, location)| *location == MemberLocation::Local);
            here.map(|(member, _)| (*room, member.clone())).collect::<Vec<_>>()
        };
        self.rooms.iter().flat_map(of).collect()
    }

    fn record(&mut self, change: PresenceMessage) {
        self.count += 1;
        let Some(pending_broadcast) = &mut self.pending_broadcast else { return };
        if pending_broadcast.changes.len() >= MAX_PENDING {
            pending_broadcast.is_snapshot = true;
        }
        if pending_broadcast.is_snapshot {
            pending_broadcast.changes = Vec::new();
        } else {
            pending_broadcast.changes.push(change);
        }
    }
}

impl LocalMember {
    /// All members of the room, this one included. Earlier events are covered by the result and discarded.
    pub(crate) fn members(&mut self) -> Vec<Arc<Member>> {
        let state = self.presence.state();
        // Under one lock: members that join from here on come as events.
        self.events = self.events.resubscribe();
        state.members(self.room)
    }

    /// The next event; `None` where more occurred than the buffer holds.
    pub(crate) async fn next_event(&mut self) -> Option<PresenceEvent> {
        self.events.recv().await.ok()
    }
}

impl Drop for LocalMember {
    fn drop(&mut self) {
        let mut state = self.presence.state();
        state.remove_member(self.room, self.member);
        state.record(PresenceMessage::Left(self.room, self.member));
        drop(state);
        self.presence.broadcast_due.notify_one();
    }
}
