//! One item by its id.

use resourceful_contract::{Filter, Position, Query, Rows, Test, Value, Version};

use super::{Call, Item, Part, include};
use crate::error::Error;
use crate::query::Selection;
use crate::resource::Operation;

impl Call<'_> {
    /// Answers an item, or the part of it that the query string selects.
    pub(crate) async fn read(&self, id: &str, query: Option<&str>) -> Result<Item, Error> {
        self.authorize(Operation::Read)?;
        let selection = self.reader().item(query)?;
        self.item(self.id(id)?, &selection).await
    }

    /// The item of this id as an answer shows it.
    pub(super) async fn item(&self, id: Value, selection: &Selection) -> Result<Item, Error> {
        let query = Query {
            includes: include::shared(self, selection),
            keys: include::keys(selection),
            ..self.one(id, self.fields(selection))
        };
        let mut json = self.entry.buffer(1);
        let rows = self.entry.storage.fetch(&query, &mut json).await?;
        let version = sole_version(&rows)?;
        include::splice(self, selection, &rows, 0, &mut json).await?;
        self.entry.note_size(json.len(), 1);
        let part = part(selection, &json);
        Ok(Item { json, version, part })
    }

    /// The item of this id with every stored field of the model, hidden ones too, for a change to start from.
    pub(super) async fn current(
        &self,
        id: Value,
    ) -> Result<(serde_json::Map<String, serde_json::Value>, Version), Error> {
        let query = self.one(id, self.entry.definition.stored.clone());
        let mut json = self.entry.buffer(1);
        let rows = self.entry.storage.fetch(&query, &mut json).await?;
        let version = sole_version(&rows)?;
        let row = serde_json::from_slice(&json).map_err(Error::internal)?;
        Ok((row, version))
    }

    pub(super) fn fields(&self, selection: &Selection) -> Vec<usize> {
        selection.fields.clone().unwrap_or_else(|| self.entry.definition.visible.clone())
    }

    fn one(&self, id: Value, fields: Vec<usize>) -> Query {
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

fn sole_version(rows: &Rows) -> Result<Version, Error> {
    rows.versions.first().copied().ok_or_else(Error::not_found)
}

/// Which part of the item was selected. Included items change without the item's version, so their content is
/// part of the name.
fn part(selection: &Selection, json: &[u8]) -> Option<Part> {
    if selection.is_whole() {
        return None;
    }
    let mut hasher = blake3::Hasher::new();
    for field in selection.fields.iter().flatten() {
        hasher.update(&(*field as u64).to_le_bytes());
    }
    if !selection.includes.is_empty() {
        hasher.update(b"+");
        hasher.update(json);
    }
    let mut name = [0; 16];
    name.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    Some(Part(name))
}
