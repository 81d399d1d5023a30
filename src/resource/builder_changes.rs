//! Settings of a declaration for what happens around changes: hooks, actions, records, events.

use std::marker::PhantomData;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::hook::{After, Before};
use super::{
    Action, AuditTrail, Bulk, Change, Hook, Idempotency, PlacedHook, ResourceBuilder, ScheduledWork,
    SoftDelete, StateMachine, Target, Tree, belongs_to, has_many,
};
use crate::access::{CheckError, Operation};
use crate::error::Error;

impl ResourceBuilder {
    /// Runs a function before items are created, changed or deleted: it may set fields, refuse the change with a
    /// problem of its own, and enlist changes of other items into the same commit. Hooks of [`Operation::Update`] apply
    /// to PUT as well. See [`Hook::before`].
    ///
    /// ```
    /// use resourceful::prelude::*;
    /// use resourceful::{Change, Error, ErrorKind};
    ///
    /// #[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
    /// struct Product { id: Uuid, name: String, price_cents: i64 }
    ///
    /// let products = define_resource::<Product>("products")
    ///     .adapter(Memory::new().table("products"))
    ///     .permissions(Permissions::all(anyone()))
    ///     .before([Operation::Create, Operation::Update], |product: &mut Product, change: &mut Change| {
    ///         product.name = product.name.trim().to_owned();
    ///         if product.price_cents > 100_000 && !change.actor().has_role("buyer") {
    ///             return Err(Error::new(ErrorKind::Conflict, "too-expensive", "Ask a buyer."));
    ///         }
    ///         Ok(())
    ///     })
    ///     .build()?;
    /// # let _ = products; Ok::<(), DefinitionErrors>(())
    /// ```
    ///
    /// The function takes the resource's own model, or `serde_json::Map<String, Value>` for any.
    pub fn before<M, F>(mut self, operations: impl IntoIterator<Item = Operation>, hook: F) -> Self
    where
        M: Serialize + DeserializeOwned + 'static,
        F: Fn(&mut M, &mut Change) -> Result<(), Error> + Send + Sync + 'static,
    {
        self.hooks.push(PlacedHook::typed::<M>(operations, Before(hook, PhantomData)));
        self
    }

    /// Runs a function after items were created, changed or deleted, with the item after the change, or before it for a
    /// delete. Its errors are logged and change nothing. See [`Hook::after`].
    pub fn after<M, F, T>(mut self, operations: impl IntoIterator<Item = Operation>, hook: F) -> Self
    where
        M: DeserializeOwned + 'static,
        F: Fn(M, Change) -> T + Send + Sync + 'static,
        T: Future<Output = Result<(), CheckError>> + Send + 'static,
    {
        self.hooks.push(PlacedHook::typed::<M>(operations, After(hook, PhantomData)));
        self
    }

    /// Runs a hook around every change of this resource.
    pub fn hook(mut self, hook: impl Hook) -> Self {
        self.hooks.push(PlacedHook::for_all(hook));
        self
    }

    /// Adds a hook that runs after all others, wherever they are declared: it sees the item as it will be stored.
    pub fn hook_last(mut self, hook: impl Hook) -> Self {
        self.hooks.push(PlacedHook { is_last: true, ..PlacedHook::for_all(hook) });
        self
    }

    /// Adds an action: `POST /{resource}/{id}/{name}`, or `POST /{resource}/{name}` on the collection.
    pub fn action(mut self, name: impl Into<String>, action: Action) -> Self {
        let name = name.into();
        let path = match action.target {
            Target::Item => format!("the path /{{id}}/{name}"),
            Target::Collection => format!("the path /{name}"),
        };
        self.claim(path, &format!(".action(\"{name}\", …)"));
        self.actions.push((name, action));
        self
    }

    /// Adds a state machine: its field changes only by transitions, each of which is an action.
    pub fn states(mut self, machine: StateMachine) -> Self {
        self.claim(format!("the field `{}`", machine.field), ".states(…)");
        self.state_machines.push(machine.clone());
        machine.declare(self)
    }

    /// Whether each change writes an event to the outbox, in the same transaction; on by default. Without events, no
    /// subscriber, stream or webhook receives changes.
    pub fn events(mut self, events: bool) -> Self {
        self.events = events;
        self
    }

    /// Whether clients can subscribe to changes, at `GET /{resource}/stream` and `GET /events`; on by default with events.
    pub fn streams(mut self, streams: bool) -> Self {
        self.streams = streams;
        self
    }

    /// Whether callers who view an item, or the list, can see each other, over a socket (`join` at `GET /ws`); off by
    /// default. Callers who may read an item may join its room, and are shown there by their id to the other members of
    /// their tenant.
    pub fn presence(mut self, presence: bool) -> Self {
        self.presence = presence;
        self
    }

    /// Keeps an audit trail of every change. See also the preset [`audit`](crate::presets::audit).
    pub fn audit_trail(mut self, trail: AuditTrail) -> Self {
        self.claim("the path /{id}/history", ".audit_trail(…)");
        if trail.revert.is_some() {
            self.claim("the path /{id}/revert", ".audit_trail(…)");
        }
        self.audit = Some(trail);
        self
    }

    /// Makes each write with an `Idempotency-Key` take effect once. See also the preset
    /// [`idempotency`](crate::presets::idempotency).
    pub fn idempotent(mut self, idempotency: Idempotency) -> Self {
        self.idempotency = Some(idempotency);
        self
    }

    /// Adds bulk routes, for many items in one request. See also the preset [`bulk`](crate::presets::bulk).
    pub fn bulk(mut self, bulk: Bulk) -> Self {
        self.claim("the path /bulk", ".bulk(…)");
        self.bulk = Some(bulk);
        self
    }

    /// Keeps deleted items, so that they can be restored. See also the preset
    /// [`soft_delete`](crate::presets::soft_delete).
    pub fn soft_delete(mut self, soft_delete: SoftDelete) -> Self {
        self.claim(format!("the field `{}`", soft_delete.field), ".soft_delete(…)");
        self.claim("the path /{id}/restore", ".soft_delete(…)");
        self.presets.push(Arc::new(soft_delete.clone()));
        self.soft_delete = Some(soft_delete);
        self
    }

    /// Adds the routes of a tree, `GET /{resource}/{id}/children` and `GET /{resource}/{id}/subtree`, and two
    /// relations: `children`, and the parent item by the field's name without `_id`. Moves are not checked: see the
    /// preset [`tree`](crate::presets::tree).
    pub fn tree(mut self, tree: Tree) -> Self {
        self.claim(format!("the field `{}`", tree.parent), ".tree(…)");
        self.claim("the path /{id}/children", ".tree(…)");
        self.claim("the path /{id}/subtree", ".tree(…)");
        let parent_relation =
            belongs_to(tree.parent_relation(), self.name.as_str()).key(tree.parent.as_str());
        self.relations.push(parent_relation);
        self.relations.push(has_many("children", self.name.as_str()).key(tree.parent.as_str()));
        self.indexes.push((vec![tree.parent.clone()], false));
        self.tree = Some(tree);
        self
    }

    /// Runs work of the application at an interval, such as removing or closing old items. See [`ScheduledWork`].
    pub fn scheduled(mut self, work: ScheduledWork) -> Self {
        self.claim(format!("the scheduled work `{}`", work.name), ".scheduled(…)");
        self.scheduled.push(work);
        self
    }

    /// Refuses a change without `If-Match` (428, RFC 6585).
    pub fn require_if_match(mut self) -> Self {
        self.require_if_match = true;
        self
    }
}
