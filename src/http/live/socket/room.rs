//! A presence room as one of its members sees it: the members, arrivals and departures.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::message::{Join, invalid};
use crate::access::Operation;
use crate::catalog::Entry;
use crate::engine::{ListQuery, ReadResult};
use crate::error::{Error, ErrorKind};
use crate::http::live::subscription::{SubscribingCaller, who};
use crate::live::{Live, PresenceEvent, Present, Room, SocketMessage, Subscription, Wanted, Who};
use crate::nearest::suggest;

/// The shortest time between two full lists of members.
const AGAIN: Duration = Duration::from_secs(1);

/// A member of a room.
pub(super) struct Inside {
    live: Arc<Live>,
    caller: Arc<SubscribingCaller>,
    id: Arc<str>,
    which: Arc<Which>,
    actor: Option<Arc<str>>,
    present: Present,
    /// Its subscription in the hub, by which it is counted and ended.
    seat: Subscription,
    /// Whether a full list of members is due, and from when on it may be sent.
    lists: bool,
    lists_at: Instant,
    list: Arc<Notify>,
    rights: watch::Receiver<u64>,
    own: watch::Receiver<u64>,
    beat: Instant,
}

/// The item or resource that a room belongs to.
struct Which {
    entry: Arc<Entry>,
    item: Option<String>,
}

impl Which {
    /// The room for a caller, who must be allowed to read the item, or to list the resource where there is no item.
    async fn room(&self, caller: &SubscribingCaller) -> Result<(Room, Who), Error> {
        let actor = caller.actor().await?;
        let engine = &caller.boundary.engine;
        let item = match &self.item {
            Some(id) => {
                let call = engine.call(&self.entry, &actor, Operation::Read, false).await?;
                match call.prepare_item(id, None)?.run().await? {
                    ReadResult::Item(_, id) => Some(id),
                    ReadResult::Page(_) => None,
                }
            }
            None => {
                let call = engine.call(&self.entry, &actor, Operation::List, false).await?;
                call.prepare_list(ListQuery::Url(None), None)?;
                None
            }
        };
        let room = Room::of(actor.tenant(), &self.entry.name, item.as_deref());
        Ok((room, who(&actor)))
    }
}

/// The room for a caller who may be in it, decided within the limit on concurrent decisions.
async fn decided(
    live: &Live,
    which: &Arc<Which>,
    caller: &Arc<SubscribingCaller>,
) -> Result<(Room, Who), Error> {
    let (which, caller) = (which.clone(), caller.clone());
    live.hub.deciding.take(async move { which.room(&caller).await }).await
}

impl Inside {
    /// Has a caller join the requested room.
    ///
    /// # Errors
    /// If there is none that the caller may join, or it is full.
    pub(super) async fn enter(
        live: Arc<Live>,
        caller: Arc<SubscribingCaller>,
        id: Arc<str>,
        asked: Join,
        list: Arc<Notify>,
    ) -> Result<Self, Error> {
        let engine = &caller.boundary.engine;
        let entries = || engine.catalog.entries().iter().filter(|entry| entry.definition.presence);
        let Some(entry) = entries().find(|entry| *entry.name == *asked.resource).cloned() else {
            let detail = format!("`{}` does not offer presence.", asked.resource);
            let detail = suggest(detail, &asked.resource, entries().map(|entry| &*entry.name));
            return Err(invalid("/resource", "unknown", detail));
        };
        // Subscribed first, so that no change meanwhile is missed.
        let (rights, own) = (live.rights.subscribe(), caller.changed());
        let which = Arc::new(Which { entry, item: asked.item });
        let (room, who) = decided(&live, &which, &caller).await?;
        let actor = who.actor.clone();
        let seat = live.hub.join(Wanted::nothing(who))?;
        let present = live.presence.join(room, actor.clone(), asked.state)?;
        let now = Instant::now();
        let beat = now + live.hub.limits().heartbeat;
        Ok(Self {
            live,
            caller,
            id,
            which,
            actor,
            present,
            seat,
            lists: true,
            lists_at: now,
            list,
            rights,
            own,
            beat,
        })
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// The next message to the client.
    pub(super) async fn next(&mut self) -> SocketMessage {
        loop {
            let may_have_changed = tokio::select! {
                biased;
                changed = self.rights.changed() => {
                    if changed.is_err() {
                        return SocketMessage::ended(&self.id, "closing");
                    }
                    true
                }
                Ok(()) = self.own.changed() => true,
                () = tokio::time::sleep_until(self.beat) => true,
                _ = self.seat.next() => return SocketMessage::ended(&self.id, "closing"),
                () = tokio::time::sleep_until(self.lists_at), if self.lists => return self.members(),
                () = self.list.notified() => {
                    self.lists = true;
                    false
                }
                stir = self.present.stir() => match stir {
                    Some(stir) => return self.stirred(stir),
                    None => {
                        self.lists = true;
                        false
                    }
                },
            };
            if may_have_changed {
                self.beat = Instant::now() + self.live.hub.limits().heartbeat;
                if let Some(end) = self.look_again().await {
                    return end;
                }
            }
        }
    }

    /// Checks again whether the caller is the same actor and may still be in the room; returns the closing message if
    /// not.
    async fn look_again(&self) -> Option<SocketMessage> {
        let why = match decided(&self.live, &self.which, &self.caller).await {
            Ok((room, who)) if room == self.present.room && who.actor == self.actor => return None,
            Ok(_) => "forbidden",
            Err(error) => match error.kind() {
                ErrorKind::Unauthenticated => "unauthenticated",
                ErrorKind::Forbidden | ErrorKind::NotFound | ErrorKind::BadRequest => "forbidden",
                _ => "unavailable",
            },
        };
        Some(SocketMessage::ended(&self.id, why))
    }

    fn members(&mut self) -> SocketMessage {
        (self.lists, self.lists_at) = (false, Instant::now() + AGAIN);
        let members = self.present.members();
        let own = self.present.member;
        SocketMessage::message(
            &json!({"type": "members", "id": &*self.id, "member": own, "members": members}),
        )
    }

    fn stirred(&self, stir: PresenceEvent) -> SocketMessage {
        SocketMessage::message(&match stir {
            PresenceEvent::Joined(member) => json!({"type": "joined", "id": &*self.id, "member": &*member}),
            PresenceEvent::Left(member) => json!({"type": "left", "id": &*self.id, "member": member}),
        })
    }
}
