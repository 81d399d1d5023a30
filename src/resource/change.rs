//! The change that hooks and actions receive: its item, reads of other items, and enlisted changes.

use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json};

use super::model_codec::to_json;
use crate::access::Actor;
use crate::access::Operation;
use crate::error::Error;

/// A change of one item, as passed to [hooks](crate::Hook) and [actions](crate::Action).
#[derive(Clone, Debug)]
pub struct Change {
    pub(crate) actor: Actor,
    pub(crate) resource: Arc<str>,
    pub(crate) operation: Operation,
    pub(crate) current: Option<Map<String, Json>>,
    pub(crate) item: Option<Map<String, Json>>,
    /// Further changes in the same commit.
    pub(crate) enlisted: Vec<Enlisted>,
    pub(crate) dry_run: bool,
    pub(crate) action: Option<Arc<str>>,
    pub(crate) reader: Arc<dyn HookReader>,
}

/// Access to the application's rows from inside a change, as stored and as its commit will leave them.
pub(crate) trait HookReader: fmt::Debug + Send + Sync {
    /// The name of the changed resource's id field.
    fn id_field(&self) -> &str;
    /// An id of that resource held in a field of an item, in the form of a path segment; `None` if there is none yet.
    fn id_in(&self, item: &Map<String, Json>, field: &str) -> Option<String>;
    fn row<'a>(
        &'a self,
        resource: &'a str,
        id: &'a str,
    ) -> BoxFuture<'a, Result<Option<Map<String, Json>>, Error>>;
    fn rows<'a>(
        &'a self,
        resource: &'a str,
        filter: Json,
        limit: u32,
        include_deleted: bool,
    ) -> BoxFuture<'a, Result<Vec<Map<String, Json>>, Error>>;
    fn lists<'a>(
        &'a self,
        actor: &'a Actor,
        resource: &'a str,
        filter: Json,
    ) -> BoxFuture<'a, Result<bool, Error>>;
    /// The field that scopes unique fields: values are unique only among items that have the same value here.
    fn unique_within(&self) -> Option<&str>;
    fn lock<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), Error>>;
}

/// An enlisted change: a write to another item in the same commit.
#[derive(Clone, Debug)]
pub(crate) struct Enlisted {
    pub(crate) resource: String,
    pub(crate) write: EnlistedWrite,
}

#[derive(Clone, Debug)]
pub(crate) enum EnlistedWrite {
    Create(Json),
    /// The id, and a merge patch (RFC 7396).
    Update(String, Json),
    Delete(String),
}

impl Change {
    /// The actor that makes the change.
    #[must_use]
    pub const fn actor(&self) -> &Actor {
        &self.actor
    }

    /// The resource's name.
    #[must_use]
    pub fn resource(&self) -> &str {
        &self.resource
    }

    /// The operation: [`Operation::Create`], [`Operation::Update`], [`Operation::Replace`] or [`Operation::Delete`]. A
    /// PUT that creates an item is a create.
    #[must_use]
    pub const fn operation(&self) -> Operation {
        self.operation
    }

    /// Whether the change is a dry run (`Prefer: dry-run`): it will be rolled back, so hooks must not cause effects
    /// that cannot be.
    #[must_use]
    pub const fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    /// The item's id, in the form of a path segment; `None` for a new item whose id the database will generate.
    #[must_use]
    pub fn id(&self) -> Option<String> {
        self.id_in(self.item.as_ref().or(self.current.as_ref())?, self.id_field())
    }

    /// The name of the resource's id field.
    #[must_use]
    pub fn id_field(&self) -> &str {
        self.reader.id_field()
    }

    /// An id of this resource held in a field of an item, in the form of a path segment; `None` if there is none. Equal
    /// ids have equal text, however a body spelled them.
    #[must_use]
    pub fn id_in(&self, item: &Map<String, Json>, field: &str) -> Option<String> {
        self.reader.id_in(item, field)
    }

    /// The item before the change, by field names; `None` for a new item.
    #[must_use]
    pub const fn current(&self) -> Option<&Map<String, Json>> {
        self.current.as_ref()
    }

    /// The item as it will be, or is after the commit, by field names; `None` for a delete.
    #[must_use]
    pub const fn item(&self) -> Option<&Map<String, Json>> {
        self.item.as_ref()
    }

    /// The item as it will be, for modification before the commit. Hooks must not set its id or version.
    pub const fn item_mut(&mut self) -> Option<&mut Map<String, Json>> {
        self.item.as_mut()
    }

    /// Enlists the creation of an item of a resource: both changes are committed atomically. The application itself is
    /// the writer, so no permission is checked and no hook runs; omitted fields are set as for any new item. The
    /// resource must be stored in the same database.
    ///
    /// ```
    /// use resourceful::prelude::*;
    /// use resourceful::Change;
    ///
    /// # #[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
    /// # struct Order { id: Uuid, product_id: Uuid, quantity: i64 }
    /// # let builder = define_resource::<Order>("orders");
    /// builder.before([Operation::Create], |order: &mut Order, change: &mut Change| {
    ///     change.create("movements", serde_json::json!({"product_id": order.product_id, "by": -order.quantity}));
    ///     Ok(())
    /// })
    /// # ;
    /// ```
    pub fn create(&mut self, resource: impl Into<String>, item: impl Into<Json>) {
        self.enlist(resource, EnlistedWrite::Create(item.into()));
    }

    /// Enlists an update of an item of a resource, as a merge patch (RFC 7396); otherwise as [`create`](Self::create).
    /// On a conflict with a concurrent change of that item the whole write is retried.
    pub fn update(&mut self, resource: impl Into<String>, id: impl Into<String>, patch: impl Into<Json>) {
        self.enlist(resource, EnlistedWrite::Update(id.into(), patch.into()));
    }

    /// Enlists the deletion of an item of a resource; otherwise as [`create`](Self::create).
    pub fn delete(&mut self, resource: impl Into<String>, id: impl Into<String>) {
        self.enlist(resource, EnlistedWrite::Delete(id.into()));
    }

    /// Reads an item of a resource by its id, in the form of a path segment; `None` if there is none.
    ///
    /// The read bypasses permissions: no policy applies, and hidden fields and soft-deleted items are included. The
    /// item is as currently stored, or as the earlier changes of the same commit leave it (in a bulk request, for
    /// example). It may change before the commit, unless both changes take a [`lock`](Self::lock).
    ///
    /// ```
    /// use resourceful::{Change, Error, ErrorKind, Hook};
    ///
    /// /// No comment on what is closed.
    /// struct Open;
    ///
    /// impl Hook for Open {
    ///     fn before<'a>(&'a self, change: &'a mut Change) -> futures::future::BoxFuture<'a, Result<(), Error>> {
    ///         Box::pin(async move {
    ///             let article = change.item().and_then(|comment| comment["article_id"].as_str());
    ///             let Some(article) = article else { return Ok(()) };
    ///             match change.read("articles", article).await? {
    ///                 Some(article) if article["closed"] == true => {
    ///                     Err(Error::new(ErrorKind::Conflict, "closed", "This article takes no comments any more."))
    ///                 }
    ///                 _ => Ok(()),
    ///             }
    ///         })
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// If there is no such resource, or its storage fails.
    pub async fn read(&self, resource: &str, id: &str) -> Result<Option<Map<String, Json>>, Error> {
        self.reader.row(resource, id).await
    }

    /// Reads items of a resource that match a filter, in the form of a query's body (`{"article_id": 7}`), by ascending
    /// id and at most `most` of them; otherwise as [`read`](Self::read), except that soft-deleted items are left out.
    ///
    /// # Errors
    /// As [`read`](Self::read), and if the filter is not valid for this resource.
    pub async fn list(
        &self,
        resource: &str,
        filter: impl Into<Json>,
        limit: u32,
    ) -> Result<Vec<Map<String, Json>>, Error> {
        self.reader.rows(resource, filter.into(), limit, false).await
    }

    /// Whether an item of a resource matches a filter. Soft-deleted items count, since they still hold their unique
    /// values; otherwise as [`list`](Self::list).
    ///
    /// # Errors
    /// As [`list`](Self::list).
    pub async fn exists(&self, resource: &str, filter: impl Into<Json>) -> Result<bool, Error> {
        Ok(!self.reader.rows(resource, filter.into(), 1, true).await?.is_empty())
    }

    /// Whether the actor's own list of a resource, as currently stored, contains an item that matches a filter: for
    /// responses that must not reveal items that the actor cannot see.
    ///
    /// # Errors
    /// As [`list`](Self::list).
    pub async fn lists(&self, resource: &str, filter: impl Into<Json>) -> Result<bool, Error> {
        self.reader.lists(&self.actor, resource, filter.into()).await
    }

    /// The field that scopes the unique fields of this resource: the tenant's, with the preset
    /// [`multi_tenant`](crate::presets::multi_tenant).
    #[must_use]
    pub fn unique_within(&self) -> Option<&str> {
        self.reader.unique_within()
    }

    /// Takes a named lock in the resource's database: what is read from here on stays valid until the commit, if every
    /// change to it takes the same lock. The lock never blocks: of two concurrent changes that take it one is
    /// committed, and the hooks of the other run again on the result. It is meant for rare changes, such as moves in a
    /// tree; its name identifies what they share.
    ///
    /// # Errors
    /// If the storage fails.
    pub async fn lock(&self, name: &str) -> Result<(), Error> {
        self.reader.lock(name).await
    }

    fn enlist(&mut self, resource: impl Into<String>, write: EnlistedWrite) {
        self.enlisted.push(Enlisted { resource: resource.into(), write });
    }

    /// The action's name; `None` for other operations.
    #[must_use]
    pub fn action(&self) -> Option<&str> {
        self.action.as_deref()
    }

    /// Applies a function to the item as a value of the model type.
    pub(crate) fn with_model<M: Serialize + DeserializeOwned>(
        &mut self,
        work: impl FnOnce(&mut M, &mut Self) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut model: M = self.model()?;
        work(&mut model, self)?;
        let Some(item) = &mut self.item else { return Ok(()) };
        match to_json(&model).map_err(Error::internal)? {
            // Members that the type does not serialize stay unchanged.
            Json::Object(written) => item.extend(written),
            _ => return Err(Error::internal("the model does not serialize as an object")),
        }
        Ok(())
    }

    /// The item as a value of the model type: as it will be, or as it was for a delete.
    pub(crate) fn model<M: DeserializeOwned>(&self) -> Result<M, Error> {
        let item = self.item.as_ref().or(self.current.as_ref()).cloned().unwrap_or_default();
        serde_json::from_value(Json::Object(item)).map_err(Error::internal)
    }
}
