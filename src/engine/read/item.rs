//! Read: one item by its id.

use crate::resource::id_text;
use resourceful_contract::{Filter, Position, Query, Rows, Test, Value, Version};

use super::include;
use crate::access::Operation;
use crate::authz::{decision, redact};
use crate::catalog::Mask;
use crate::catalog::RowFilter;
use crate::catalog::Visibility;
use crate::engine::write::bulk;
use crate::engine::write::input::Fields;
use crate::engine::{Call, Item, PartDigest};
use crate::error::{Error, ErrorKind, Fault};
use crate::query::{Deleted, ItemRequest, Selection};
use crate::resource::Right;

/// A parsed item request.
#[derive(Debug)]
pub(crate) struct ItemQuery {
    pub(in crate::engine) id: Value,
    pub(in crate::engine) request: ItemRequest,
}

impl ItemQuery {
    /// The item's id, in the spelling of every response.
    pub(crate) fn id_text(&self) -> String {
        id_text(&self.id)
    }
}

impl Call<'_> {
    /// Returns an item, or the selected part of it.
    pub(crate) async fn read(&self, query: &ItemQuery) -> Result<Item, Error> {
        let ItemQuery { id, request } = query;
        let id = id.clone();
        if let Some(at) = request.as_of {
            if request.deleted.is_some() || !request.selection.includes.is_empty() {
                let detail = "`as_of` cannot be combined with `include` or `deleted`.";
                return Err(Error::invalid_query(vec![Fault::parameter("as_of", "value", detail)]));
            }
            return Box::pin(self.item_as_of(id, &request.selection, at)).await;
        }
        match request.deleted {
            None => self.item(id, &request.selection).await,
            Some(deleted) => {
                let visibility = self.visibility_with_deleted(deleted).await?;
                let rows = visibility.rows.as_ref().ok_or_else(Error::not_found)?;
                self.fetch_item(rows, id, &request.selection).await
            }
        }
    }

    /// The caller's visibility in a request for deleted items.
    pub(in crate::engine) async fn visibility_with_deleted(
        &self,
        deleted: Deleted,
    ) -> Result<Visibility, Error> {
        let mask = self.mask().clone();
        let visible =
            decision::visibility_with_deleted(&self.engine.catalog, self.entry, self.actor, mask, deleted);
        Box::pin(visible).await
    }

    /// The item of this id in the form that a response shows.
    pub(in crate::engine) async fn item(&self, id: Value, selection: &Selection) -> Result<Item, Error> {
        self.fetch_item(self.visible_rows()?, id, selection).await
    }

    async fn fetch_item(&self, visible: &RowFilter, id: Value, selection: &Selection) -> Result<Item, Error> {
        let fields = self.fields(selection);
        let query = Query {
            includes: include::storage_includes(self, selection).await?,
            keys: include::keys(selection),
            ..self.item_query(id, fields.clone())
        };
        let mut query = visible.guard_query(query);
        query.resolve(self.entry, &self.engine.catalog).await?;
        let mut json = self.entry.response_buffer(1);
        let rows = self.entry.storage.fetch(&query, &mut json).await?;
        let version = single_version(&rows)?;
        include::splice(self, selection, &rows, 0, &mut json).await?;
        self.entry.record_size(json.len(), 1);
        redact::redact_row(&self.reader(), selection, &mut json)?;
        let part = self.part(selection, &fields, &json);
        Ok(Item { json, version: self.engine.digest_key.public_version(version), part })
    }

    /// Identifies the part of the item that a response shows; `None` for the complete item.
    pub(in crate::engine) fn part(
        &self,
        selection: &Selection,
        fields: &[usize],
        json: &[u8],
    ) -> Option<PartDigest> {
        let mask = self.mask();
        let is_whole = selection.is_default() && mask.is_fully_readable();
        (!is_whole).then(|| part(fields, mask, !selection.includes.is_empty(), json))
    }

    /// The item of this id with every stored field of the model, including hidden ones, as the basis of a change.
    pub(crate) async fn current(&self, id: Value) -> Result<(Fields, Version), Error> {
        let visible = self.visible_rows()?.resolved(self.entry, &self.engine.catalog).await?;
        self.fetch_stored(&visible, id).await
    }

    /// The same within the rows that an operation admits: an item that the caller may see but not change is refused, not
    /// absent.
    pub(in crate::engine) async fn current_within(
        &self,
        changeable: &RowFilter,
        id: Value,
        right: impl Into<Right>,
    ) -> Result<(Fields, Version), Error> {
        match self.fetch_stored(changeable, id.clone()).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Err(self.access_error(id, right).await),
            found => found,
        }
    }

    /// Explains why a row was not found for an operation: 403 where the caller may see it, 404 otherwise.
    pub(in crate::engine) async fn access_error(&self, id: Value, right: impl Into<Right>) -> Error {
        let right = right.into();
        if !self.addressed.is_unrestricted()
            && let Ok(allowed_rows) = self.allowed_rows().await
            && self.fetch_stored(&allowed_rows, id.clone()).await.is_ok()
        {
            return bulk::no_longer_matching();
        }
        match self.current(id).await {
            Ok(_) => decision::denied(self.entry, self.actor, right),
            Err(error) => error,
        }
    }

    /// The rows that the caller may see and apply the operation to, whether or not the request addresses them.
    async fn allowed_rows(&self) -> Result<RowFilter, Error> {
        self.visible_rows()?.and(&self.allowed).resolved(self.entry, &self.engine.catalog).await
    }

    /// The rows that this call may change: visible to the caller, admitted by the operation, and addressed by the
    /// request.
    pub(in crate::engine) async fn changeable(&self) -> Result<RowFilter, Error> {
        let rows = self.visible_rows()?.and(&self.allowed).and(&self.addressed);
        rows.resolved(self.entry, &self.engine.catalog).await
    }

    /// The same for a right that also covers deleted items.
    pub(in crate::engine) async fn changeable_with_deleted(&self) -> Result<RowFilter, Error> {
        let read = decision::decide(&self.engine.catalog, self.entry, self.actor, Operation::Read).await;
        let visible = decision::allowed_rows(read, self.entry, self.actor, Operation::Read.into())?;
        visible.and(&self.allowed).resolved(self.entry, &self.engine.catalog).await
    }

    pub(in crate::engine) async fn fetch_stored(
        &self,
        admitted: &RowFilter,
        id: Value,
    ) -> Result<(Fields, Version), Error> {
        let query = admitted.guard_query(self.item_query(id, self.entry.definition.model_fields.clone()));
        let mut json = self.entry.response_buffer(1);
        let rows = self.entry.storage.fetch(&query, &mut json).await?;
        let version = single_version(&rows)?;
        let row = serde_json::from_slice(&json).map_err(Error::internal)?;
        Ok((row, version))
    }

    /// The fields of a response: the selected ones, or all that this caller is shown.
    pub(crate) fn fields(&self, selection: &Selection) -> Vec<usize> {
        selection.fields.clone().unwrap_or_else(|| self.visible_fields())
    }

    fn item_query(&self, id: Value, fields: Vec<usize>) -> Query {
        let schema = &self.entry.schema;
        Query {
            filter: Filter::Compare(schema.id, Test::Eq(id)),
            sort: Vec::new(),
            fields,
            includes: Vec::new(),
            keys: Vec::new(),
            versions: true,
            position: Position::Start,
            limit: 1,
            count: None,
            schema: schema.clone(),
        }
    }
}

fn single_version(rows: &Rows) -> Result<Version, Error> {
    rows.versions.first().copied().ok_or_else(Error::not_found)
}

/// Identifies the part of the item that this caller was shown. Included items change without the item's version, so their
/// content is part of the digest.
fn part(fields: &[usize], mask: &Mask, with_content: bool, json: &[u8]) -> PartDigest {
    let mut hasher = blake3::Hasher::new();
    for field in fields {
        hasher.update(&(*field as u64).to_le_bytes());
    }
    for (field, substitute) in mask.redacted() {
        hasher.update(b"*").update(&(*field as u64).to_le_bytes()).update(substitute.as_bytes());
    }
    if with_content {
        hasher.update(b"+").update(json);
    }
    let mut digest = [0; 16];
    digest.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    PartDigest(digest)
}
