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
use crate::http::live::subscription::{SubscribingCaller, subscriber_identity};
use crate::live::{
    Live, PresenceEvent, Present, RoomId, SocketMessage, SubscriberIdentity, Subscription, SubscriptionSpec,
};
use crate::nearest::suggest;

/// The shortest time between two full lists of members.
const LIST_INTERVAL: Duration = Duration::from_secs(1);

/// A member of a room.
pub(super) struct RoomSession {
    live: Arc<Live>,
    caller: Arc<SubscribingCaller>,
    id: Arc<str>,
    target: Arc<RoomTarget>,
    actor: Option<Arc<str>>,
    local_member: Present,
    /// Its subscription in the hub, by which it is counted and ended.
    slot: Subscription,
    /// Whether a full list of members is due, and from when on it may be sent.
    is_list_due: bool,
    list_due_at: Instant,
    list_requests: Arc<Notify>,
    rights: watch::Receiver<u64>,
    credential_changes: watch::Receiver<u64>,
    next_heartbeat: Instant,
}

/// The item or resource that a room belongs to.
struct RoomTarget {
    entry: Arc<Entry>,
    item: Option<String>,
}

impl RoomTarget {
    /// The room for a caller, who must be allowed to read the item, or to list the resource where there is no item.
    async fn room(&self, caller: &SubscribingCaller) -> Result<(RoomId, SubscriberIdentity), Error> {
        let actor = caller.actor().await?;
        let engine = &caller.state.engine;
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
        let room = RoomId::of(actor.tenant(), &self.entry.name, item.as_deref());
        Ok((room, subscriber_identity(&actor)))
    }
}

/// The room for a caller who may be in it, decided within the limit on concurrent decisions.
async fn authorize_limited(
    live: &Live,
    target: &Arc<RoomTarget>,
    caller: &Arc<SubscribingCaller>,
) -> Result<(RoomId, SubscriberIdentity), Error> {
    let (target, caller) = (target.clone(), caller.clone());
    live.hub.authorization_limiter.run(async move { target.room(&caller).await }).await
}

impl RoomSession {
    /// Has a caller join the requested room.
    ///
    /// # Errors
    /// If there is none that the caller may join, or it is full.
    pub(super) async fn join(
        live: Arc<Live>,
        caller: Arc<SubscribingCaller>,
        id: Arc<str>,
        request: Join,
        list_requests: Arc<Notify>,
    ) -> Result<Self, Error> {
        let engine = &caller.state.engine;
        let entries = || engine.catalog.entries().iter().filter(|entry| entry.definition.presence);
        let Some(entry) = entries().find(|entry| *entry.name == *request.resource).cloned() else {
            let detail = format!("`{}` does not offer presence.", request.resource);
            let detail = suggest(detail, &request.resource, entries().map(|entry| &*entry.name));
            return Err(invalid("/resource", "unknown", detail));
        };
        // Subscribed first, so that no change meanwhile is missed.
        let (rights, own) = (live.rights.subscribe(), caller.changed());
        let target = Arc::new(RoomTarget { entry, item: request.item });
        let (room, identity) = authorize_limited(&live, &target, &caller).await?;
        let actor = identity.actor.clone();
        let slot = live.hub.join(SubscriptionSpec::empty(identity))?;
        let local_member = live.presence.join(room, actor.clone(), request.state)?;
        let now = Instant::now();
        let next_heartbeat = now + live.hub.limits().heartbeat;
        Ok(Self {
            live,
            caller,
            id,
            target,
            actor,
            local_member,
            slot,
            is_list_due: true,
            list_due_at: now,
            list_requests,
            rights,
            credential_changes: own,
            next_heartbeat,
        })
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// The next message to the client.
    pub(super) async fn next(&mut self) -> SocketMessage {
        loop {
            let is_recheck_due = tokio::select! {
                biased;
                changed = self.rights.changed() => {
                    if changed.is_err() {
                        return SocketMessage::complete(&self.id, "closing");
                    }
                    true
                }
                Ok(()) = self.credential_changes.changed() => true,
                () = tokio::time::sleep_until(self.next_heartbeat) => true,
                _ = self.slot.next() => return SocketMessage::complete(&self.id, "closing"),
                () = tokio::time::sleep_until(self.list_due_at), if self.is_list_due => return self.members_message(),
                () = self.list_requests.notified() => {
                    self.is_list_due = true;
                    false
                }
                event = self.local_member.next_event() => match event {
                    Some(event) => return self.event_message(event),
                    None => {
                        self.is_list_due = true;
                        false
                    }
                },
            };
            if is_recheck_due {
                self.next_heartbeat = Instant::now() + self.live.hub.limits().heartbeat;
                if let Some(end) = self.reauthorize().await {
                    return end;
                }
            }
        }
    }

    /// Checks again whether the caller is the same actor and may still be in the room; returns the closing message if
    /// not.
    async fn reauthorize(&self) -> Option<SocketMessage> {
        let reason = match authorize_limited(&self.live, &self.target, &self.caller).await {
            Ok((room, identity)) if room == self.local_member.room && identity.actor == self.actor => {
                return None;
            }
            Ok(_) => "forbidden",
            Err(error) => match error.kind() {
                ErrorKind::Unauthenticated => "unauthenticated",
                ErrorKind::Forbidden | ErrorKind::NotFound | ErrorKind::BadRequest => "forbidden",
                _ => "unavailable",
            },
        };
        Some(SocketMessage::complete(&self.id, reason))
    }

    fn members_message(&mut self) -> SocketMessage {
        (self.is_list_due, self.list_due_at) = (false, Instant::now() + LIST_INTERVAL);
        let members = self.local_member.members();
        let own = self.local_member.member;
        SocketMessage::from_json(
            &json!({"type": "members", "id": &*self.id, "member": own, "members": members}),
        )
    }

    fn event_message(&self, event: PresenceEvent) -> SocketMessage {
        SocketMessage::from_json(&match event {
            PresenceEvent::Joined(member) => json!({"type": "joined", "id": &*self.id, "member": &*member}),
            PresenceEvent::Left(member) => json!({"type": "left", "id": &*self.id, "member": member}),
        })
    }
}
