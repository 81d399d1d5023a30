//! Descendants of an item: its children as a list, and its subtree by level.

use resourceful_contract::{Count, Filter, Query, Test, Value};
use serde_json::value::RawValue;

use super::list::{ListQuery, Page};
use crate::access::Operation;
use crate::authz::{decision, redact};
use crate::catalog::RowFilter;
use crate::engine::Call;
use crate::error::{Error, Fault};
use crate::query::{Selection, read_parameters};
use crate::resource::TreeParent;

impl Call<'_> {
    /// Returns a page of an item's children.
    pub(crate) async fn children(
        &self,
        id: &str,
        query: Option<&str>,
        count: Option<Count>,
    ) -> Result<Page, Error> {
        self.listed_rows()?;
        let (tree, id) = self.tree_root(id).await?;
        let mut request = self.parse_list_query(ListQuery::Url(query), count)?;
        request.filter = Filter::Compare(tree.parent, Test::Eq(id)).and(request.filter);
        self.list(&request).await
    }

    /// Returns all descendants of an item, level by level. An item that the caller does not see hides its own
    /// descendants.
    ///
    /// # Errors
    /// Where the subtree exceeds the limit of levels or of items.
    pub(crate) async fn subtree(&self, id: &str, query: Option<&str>) -> Result<Vec<u8>, Error> {
        let listed = self.listed_rows()?;
        let (tree, id) = self.tree_root(id).await?;
        let levels = parse_depth(query, tree.max_depth)?;
        let mut body = b"{\"items\":[".to_vec();
        let (mut level, mut depth, mut remaining) = (vec![id], 0, tree.max_items);
        while levels.is_none_or(|levels| depth < levels) {
            let (ids, json) = self.fetch_level(listed, tree, level, remaining).await?;
            if ids.is_empty() {
                break;
            }
            depth += 1;
            if depth > tree.max_depth {
                return Err(too_large(&format!(
                    "Items lie more than {} levels below this one.",
                    tree.max_depth
                )));
            }
            remaining =
                remaining.checked_sub(u32::try_from(ids.len()).unwrap_or(u32::MAX)).ok_or_else(|| {
                    too_large(&format!("More than {} items lie below this one.", tree.max_items))
                })?;
            let items: Vec<&RawValue> = serde_json::from_slice(&json).map_err(Error::internal)?;
            for item in items {
                if !body.ends_with(b"[") {
                    body.push(b',');
                }
                let item = format!("{{\"depth\":{depth},\"item\":{}}}", item.get());
                body.extend_from_slice(item.as_bytes());
            }
            level = ids;
        }
        body.extend_from_slice(b"]}");
        Ok(body)
    }

    /// The item at the top, where the caller may see it and the tree's parent field.
    async fn tree_root(&self, id: &str) -> Result<(TreeParent, Value), Error> {
        let tree = self.definition().tree.filter(|tree| self.mask().can_reveal(tree.parent));
        let tree = tree.ok_or_else(Error::not_found)?;
        let id = self.parse_id(id)?;
        self.current(id.clone()).await?;
        Ok((tree, id))
    }

    fn listed_rows(&self) -> Result<&RowFilter, Error> {
        let refused = || decision::denied(self.entry, self.actor, Operation::List);
        self.visibility().listed.as_ref().ok_or_else(refused)
    }

    /// The children of these items, at most `left` and one more: their ids, and as a JSON array.
    async fn fetch_level(
        &self,
        listed: &RowFilter,
        tree: TreeParent,
        parents: Vec<Value>,
        remaining: u32,
    ) -> Result<(Vec<Value>, Vec<u8>), Error> {
        let schema = &self.entry.schema;
        let query = Query {
            filter: Filter::Compare(tree.parent, Test::In(parents)),
            fields: self.visible_fields(),
            keys: vec![schema.id],
            limit: remaining + 1,
            ..Query::all(schema.clone())
        };
        let mut query = listed.guard_query(query);
        query.resolve(self.entry, &self.engine.catalog).await?;
        let mut json = vec![b'['];
        let rows = self.entry.storage.fetch(&query, &mut json).await?;
        redact::redact_list(&self.reader(), &Selection::default(), 1, &mut json)?;
        json.push(b']');
        Ok((rows.keys.into_iter().flatten().collect(), json))
    }
}

fn parse_depth(query: Option<&str>, max_depth: u32) -> Result<Option<u32>, Error> {
    let mut levels = None;
    let mut faults = Vec::new();
    for parameter in read_parameters(query, &mut faults) {
        let outcome = parameter.single().and_then(|value| match (parameter.name(), value.parse()) {
            ("depth", Ok(requested @ 1..)) if requested <= max_depth => {
                levels = Some(requested);
                Ok(())
            }
            ("depth", _) => {
                let detail = format!("Must be one whole number from 1 to {max_depth}.");
                Err(Fault::parameter("depth", "range", detail))
            }
            _ => Err(parameter.unknown_parameter(["depth"])),
        });
        faults.extend(outcome.err());
    }
    if faults.is_empty() { Ok(levels) } else { Err(Error::invalid_query(faults)) }
}

fn too_large(what: &str) -> Error {
    let detail = format!("{what} Request fewer levels with `depth`, or pages of `children`.");
    Error::invalid_query(vec![Fault::parameter("depth", "limit", detail)])
}
