//! A change of one item, as hooks and actions see it, and what they may do beside it.

use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json};

use super::Operation;
use super::codec::written;
use crate::access::Actor;
use crate::error::Error;

/// A change of one item, as [hooks](crate::Hook) see it.
#[derive(Clone, Debug)]
pub struct Change {
    pub(crate) actor: Actor,
    pub(crate) resource: Arc<str>,
    pub(crate) operation: Operation,
    pub(crate) current: Option<Map<String, Json>>,
    pub(crate) item: Option<Map<String, Json>>,
    /// What becomes so together with it.
    pub(crate) enlisted: Vec<Enlisted>,
    pub(crate) dry_run: bool,
    pub(crate) action: Option<Arc<str>>,
    pub(crate) surroundings: Arc<dyn Surroundings>,
}

/// What is around a change: the rows of the application, as they are and as its commit will leave them.
pub(crate) trait Surroundings: fmt::Debug + Send + Sync {
    /// The name of the field that holds the ids of the resource that is changed.
    fn id_field(&self) -> &str;
    /// An id of that resource that stands in a field of an item, as in a path; nothing where there is none yet.
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
        most: u32,
        with_deleted: bool,
    ) -> BoxFuture<'a, Result<Vec<Map<String, Json>>, Error>>;
    fn lists<'a>(
        &'a self,
        actor: &'a Actor,
        resource: &'a str,
        filter: Json,
    ) -> BoxFuture<'a, Result<bool, Error>>;
    /// The field within whose values alone unique fields are unique.
    fn unique_within(&self) -> Option<&str>;
    fn lock<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), Error>>;
}

/// A change of another item, in the same commit.
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
    /// Who makes it.
    #[must_use]
    pub const fn actor(&self) -> &Actor {
        &self.actor
    }

    /// The resource's name.
    #[must_use]
    pub fn resource(&self) -> &str {
        &self.resource
    }

    /// What is done: [`Operation::Create`], [`Operation::Update`], [`Operation::Replace`] or [`Operation::Delete`]. A
    /// PUT that creates is a create.
    #[must_use]
    pub const fn operation(&self) -> Operation {
        self.operation
    }

    /// Whether it is only tried (`Prefer: dry-run`): it will be taken back, so nothing may be done for it that cannot.
    #[must_use]
    pub const fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    /// The item's id, as in a path; `None` where it is new and the database will mint it.
    #[must_use]
    pub fn id(&self) -> Option<String> {
        self.id_in(self.item.as_ref().or(self.current.as_ref())?, self.id_field())
    }

    /// The name of the field that holds the ids of the resource.
    #[must_use]
    pub fn id_field(&self) -> &str {
        self.surroundings.id_field()
    }

    /// An id of this resource that stands in a field of an item, as in a path; `None` where there is none. Ids that are
    /// the same are spelled the same, whatever a body wrote.
    #[must_use]
    pub fn id_in(&self, item: &Map<String, Json>, field: &str) -> Option<String> {
        self.surroundings.id_in(item, field)
    }

    /// The item as it was before, by field names; `None` where it is new.
    #[must_use]
    pub const fn current(&self) -> Option<&Map<String, Json>> {
        self.current.as_ref()
    }

    /// The item as it will be, or is after the commit; `None` where it is deleted.
    #[must_use]
    pub const fn item(&self) -> Option<&Map<String, Json>> {
        self.item.as_ref()
    }

    /// The item as it will be, to be set before the commit. Its id and version are not a hook's to set.
    pub const fn item_mut(&mut self) -> Option<&mut Map<String, Json>> {
        self.item.as_mut()
    }

    /// Creates an item of a resource in the same commit: both become so, or neither. The application itself does it, so
    /// that no permission is asked and no hook runs; fields that are left out are set as for any new item. The resource
    /// must be kept in the same database.
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

    /// Changes fields of an item of a resource in the same commit, by a merge patch (RFC 7396); otherwise as
    /// [`create`](Self::create). Where another change of that item comes between, everything is made again.
    pub fn update(&mut self, resource: impl Into<String>, id: impl Into<String>, patch: impl Into<Json>) {
        self.enlist(resource, EnlistedWrite::Update(id.into(), patch.into()));
    }

    /// Deletes an item of a resource in the same commit; otherwise as [`create`](Self::create).
    pub fn delete(&mut self, resource: impl Into<String>, id: impl Into<String>) {
        self.enlist(resource, EnlistedWrite::Delete(id.into()));
    }

    /// An item of a resource by its id, as in a path; `None` where there is none.
    ///
    /// It is read as the application itself: under no policy, with hidden fields, and where deleted items are kept those
    /// too. It is as the database has it now, or as the earlier changes of the same commit leave it (in bulk, say). What is
    /// read may have changed until the commit, unless both changes take a [`lock`](Self::lock).
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
    /// Where there is no such resource, or its storage fails.
    pub async fn read(&self, resource: &str, id: &str) -> Result<Option<Map<String, Json>>, Error> {
        self.surroundings.row(resource, id).await
    }

    /// Items of a resource that match a filter, as in the body of a query (`{"article_id": 7}`), by ascending id and
    /// at most so many; otherwise as [`read`](Self::read), but for deleted items, which are left out.
    ///
    /// # Errors
    /// As [`read`](Self::read), and where the filter is none of this resource's.
    pub async fn list(
        &self,
        resource: &str,
        filter: impl Into<Json>,
        most: u32,
    ) -> Result<Vec<Map<String, Json>>, Error> {
        self.surroundings.rows(resource, filter.into(), most, false).await
    }

    /// Whether an item of a resource matches a filter, one that is deleted and still there among them, since that holds its
    /// unique values too; otherwise as [`list`](Self::list).
    ///
    /// # Errors
    /// As [`list`](Self::list).
    pub async fn exists(&self, resource: &str, filter: impl Into<Json>) -> Result<bool, Error> {
        Ok(!self.surroundings.rows(resource, filter.into(), 1, true).await?.is_empty())
    }

    /// Whether the actor's own list of a resource holds an item that matches a filter, as far as the database has it now: for
    /// an answer that must not tell of items which the actor does not see.
    ///
    /// # Errors
    /// As [`list`](Self::list).
    pub async fn lists(&self, resource: &str, filter: impl Into<Json>) -> Result<bool, Error> {
        self.surroundings.lists(&self.actor, resource, filter.into()).await
    }

    /// The field within whose values alone the unique fields of this resource are unique: the tenant's, with the preset
    /// [`multi_tenant`](crate::presets::multi_tenant).
    #[must_use]
    pub fn unique_within(&self) -> Option<&str> {
        self.surroundings.unique_within()
    }

    /// Takes a lock of this name in the resource's database: what is read from here on holds until the commit, as far as
    /// whoever changes it takes the same lock. Nobody waits for it: of two changes that take it at a time one is committed,
    /// and the hooks of the other run again on what that left. So it is for what is rare, such as moves in a tree, and
    /// its name for what they share.
    ///
    /// # Errors
    /// Where the storage fails.
    pub async fn lock(&self, name: &str) -> Result<(), Error> {
        self.surroundings.lock(name).await
    }

    fn enlist(&mut self, resource: impl Into<String>, write: EnlistedWrite) {
        self.enlisted.push(Enlisted { resource: resource.into(), write });
    }

    /// What is done, where it is an action: its name.
    #[must_use]
    pub fn action(&self) -> Option<&str> {
        self.action.as_deref()
    }

    /// Has a function change the item as a value.
    pub(crate) fn with_model<M: Serialize + DeserializeOwned>(
        &mut self,
        work: impl FnOnce(&mut M, &mut Self) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut model: M = self.model()?;
        work(&mut model, self)?;
        let Some(item) = &mut self.item else { return Ok(()) };
        match written(&model).map_err(Error::internal)? {
            // What the type does not write stays as it is.
            Json::Object(written) => item.extend(written),
            _ => return Err(Error::internal("the model does not serialize as an object")),
        }
        Ok(())
    }

    /// The item as a value: as it will be, or as it was where it is deleted.
    pub(crate) fn model<M: DeserializeOwned>(&self) -> Result<M, Error> {
        let item = self.item.as_ref().or(self.current.as_ref()).cloned().unwrap_or_default();
        serde_json::from_value(Json::Object(item)).map_err(Error::internal)
    }
}
