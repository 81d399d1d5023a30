//! Bulk writes: many items in one commit, each validated as if it were sent alone, and all of them or none.

use std::collections::HashSet;

use resourceful_contract::{Filter, Position, Query, Test, Value, Version};
use serde_json::Value as Json;

use super::commit::{Failure, Output, PreparedWrite};
use super::contention::ConflictRetry;
use super::input::Fields;
use super::update::UpdateTarget;
use crate::access::Operation;
use crate::authz::decision;
use crate::catalog::RowFilter;
use crate::engine::{Call, Expected, Item};
use crate::error::{Error, ErrorKind, Fault, FaultLocation};
use crate::query::Selection;

/// The patch of one item in a bulk request.
#[derive(Clone, Debug)]
pub(crate) struct Patch {
    /// The item's id, as in a path.
    pub(crate) id: String,
    pub(crate) expected: Option<Expected>,
    pub(crate) patch: Json,
}

/// Limit of faults that are reported at once.
const MAX_FAULTS: usize = 100;
/// Error code for an item that matched the filter of the request and has changed since.
const NO_LONGER_MATCHING: &str = "no-longer-matching";

/// The error for an item that has changed since it matched the filter of the request.
pub(in crate::engine) fn no_longer_matching() -> Error {
    let detail = "The item has changed and no longer matches the filter: it was left unchanged.";
    Error::new(ErrorKind::Conflict, NO_LONGER_MATCHING, detail)
}

impl Call<'_> {
    /// Creates items from bodies.
    pub(crate) async fn create_all(&self, bodies: Vec<Json>) -> Result<Vec<Item>, Error> {
        let mut items = Vec::with_capacity(bodies.len());
        let mut faults = Vec::new();
        for (index, body) in bodies.into_iter().enumerate() {
            match self.new_item(body).map_err(|error| error_at_index(error, "items", index)) {
                Ok(item) => items.push(item),
                Err(error) if error.kind() == ErrorKind::Validation && faults.len() < MAX_FAULTS => {
                    faults.extend_from_slice(error.faults());
                }
                Err(error) => return Err(error),
            }
        }
        if !faults.is_empty() {
            return Err(Error::validation(faults));
        }
        let work = self.create_all_inner(items);
        if self.has_hooks(Operation::Create) {
            return Box::pin(self.run_around_hooks(Operation::Create, work)).await;
        }
        work.await
    }

    async fn create_all_inner(&self, items: Vec<Fields>) -> Result<Vec<Item>, Error> {
        let mut attempts = ConflictRetry::default();
        loop {
            let mut prepared = Vec::with_capacity(items.len());
            for (index, item) in items.iter().enumerate() {
                let one = self.prepare_insert(item.clone()).await;
                prepared.push(one.map_err(|error| error_at_index(error, "items", index))?);
            }
            match self.commit_all(prepared, Output::Items(Vec::new())).await {
                Ok(items) => return Ok(items),
                Err(failure) if failure.is_retryable(true) => {
                    attempts.wait(self.engine, vec![self.resource_queue()]).await?;
                }
                Err(failure) => return Err(self.bulk_error(failure, "items")),
            }
        }
    }

    /// Updates items, each by its patch.
    pub(crate) async fn update_all(&self, patches: &[Patch]) -> Result<Vec<Item>, Error> {
        let work = self.update_all_inner(patches);
        if self.has_hooks(Operation::Update) {
            return Box::pin(self.run_around_hooks(Operation::Update, work)).await;
        }
        work.await
    }

    async fn update_all_inner(&self, patches: &[Patch]) -> Result<Vec<Item>, Error> {
        let ids = self.parse_ids(patches.iter().map(|patch| patch.id.as_str()), "items")?;
        let changeable = self.changeable().await?;
        let mut attempts = ConflictRetry::default();
        loop {
            let mut current_items = self.current_items(&changeable, &ids).await?.into_iter();
            let mut prepared = Vec::with_capacity(patches.len());
            let mut unchanged = Vec::with_capacity(patches.len());
            // Index in the request of each item that changes.
            let mut changed = Vec::with_capacity(patches.len());
            for (index, (id, patch)) in ids.iter().zip(patches).enumerate() {
                let located = |error| error_at_index(error, "items", index);
                let Some(current) = current_items.next().flatten() else {
                    return Err(located(self.access_error(id.clone(), Operation::Update).await));
                };
                match self.prepare_patch(&changeable, id, &current, patch).await.map_err(located)? {
                    Some(one) => {
                        changed.push(index);
                        prepared.push(one);
                        unchanged.push(None);
                    }
                    None => {
                        let item = self.item(id.clone(), &Selection::default()).await.map_err(located)?;
                        unchanged.push(Some(item));
                    }
                }
            }
            match self.commit_all(prepared, Output::Items(unchanged)).await {
                Ok(items) => return Ok(items),
                Err(failure) if self.is_unmatched(&failure) => return Err(no_longer_matching()),
                Err(mut failure) => {
                    failure.item = failure.item.and_then(|item| changed.get(item).copied());
                    let patch = failure.item.and_then(|item| patches.get(item));
                    let expected = patch.and_then(|patch| patch.expected.as_ref());
                    if !failure.is_retryable(Expected::has_versions(expected)) {
                        return Err(self.bulk_error(failure, "items"));
                    }
                    let items = ids.iter().map(|id| self.item_queue(id)).collect();
                    attempts.wait(self.engine, items).await?;
                }
            }
        }
    }

    async fn prepare_patch(
        &self,
        changeable: &RowFilter,
        id: &Value,
        (current, version): &(Fields, Version),
        patch: &Patch,
    ) -> Result<Option<PreparedWrite>, Error> {
        self.require_if_match(patch.expected.as_ref())?;
        let changes = self.parse_patch(patch.patch.clone())?;
        self.check_version(patch.expected.as_ref(), *version)?;
        let next = self.apply_patch(current, &changes)?;
        let blind = self.blind_fields(&changes);
        let step =
            UpdateTarget { operation: Operation::Update, id, current, version: *version, blind: &blind };
        self.prepare_update(changeable, step, next).await
    }

    /// Deletes items; returns how many.
    pub(crate) async fn delete_all(&self, ids: &[String]) -> Result<usize, Error> {
        let work = self.delete_all_inner(ids);
        if self.has_hooks(Operation::Delete) {
            return Box::pin(self.run_around_hooks(Operation::Delete, work)).await;
        }
        work.await
    }

    async fn delete_all_inner(&self, ids: &[String]) -> Result<usize, Error> {
        self.require_if_match(None)?;
        let ids = self.parse_ids(ids.iter().map(String::as_str), "ids")?;
        let changeable = self.changeable().await?;
        let output = serde_json::json!({"affected": ids.len()});
        let mut attempts = ConflictRetry::default();
        loop {
            let mut prepared = Vec::with_capacity(ids.len());
            for (index, (id, current)) in
                ids.iter().zip(self.current_items(&changeable, &ids).await?).enumerate()
            {
                let located = |error| error_at_index(error, "ids", index);
                let Some((current, version)) = current else {
                    return Err(located(self.access_error(id.clone(), Operation::Delete).await));
                };
                let one = self.prepare_delete_of(&changeable, id, current, version).await;
                prepared.push(one.map_err(located)?);
            }
            match self.commit_all(prepared, Output::Json(&output)).await {
                Ok(_) => return Ok(ids.len()),
                Err(failure) if failure.is_retryable(false) => {
                    let items = ids.iter().map(|id| self.item_queue(id)).collect();
                    attempts.wait(self.engine, items).await?;
                }
                Err(failure) if self.is_unmatched(&failure) => return Err(no_longer_matching()),
                Err(failure) => return Err(self.bulk_error(failure, "ids")),
            }
        }
    }

    /// The call that changes the items that the caller may list and that match a filter, each only as long as it matches.
    ///
    /// # Errors
    /// Every fault of the filter, and where the caller may not list the resource.
    pub(crate) fn by_filter(&self, filter: &Json) -> Result<Call<'_>, Error> {
        let refused = || decision::denied(self.entry, self.actor, Operation::List);
        let listed = self.visibility().listed.as_ref().ok_or_else(refused)?;
        let filter = self.reader().filter(filter)?;
        if !has_condition(&filter) {
            return Err(empty_filter());
        }
        Ok(self.restricted_to(listed.restrict(filter)))
    }

    /// Updates every item that matches, by one patch.
    ///
    /// # Errors
    /// Where more match than are allowed.
    pub(crate) async fn update_matching(&self, patch: &Json, max_items: usize) -> Result<Vec<Item>, Error> {
        let work = async {
            let mut attempts = ConflictRetry::default();
            loop {
                let one = |id| Patch { id, expected: None, patch: patch.clone() };
                let patches: Vec<_> = self.matching(max_items).await?.into_iter().map(one).collect();
                match self.update_all_inner(&patches).await {
                    Err(error) if error.code() == NO_LONGER_MATCHING => self.context.reset(),
                    committed => return committed,
                }
                attempts.wait(self.engine, vec![self.resource_queue()]).await?;
            }
        };
        if self.has_hooks(Operation::Update) {
            return Box::pin(self.run_around_hooks(Operation::Update, work)).await;
        }
        work.await
    }

    /// Deletes every item that matches; returns how many.
    ///
    /// # Errors
    /// Where more match than are allowed.
    pub(crate) async fn delete_matching(&self, max_items: usize) -> Result<usize, Error> {
        let work = async {
            let mut attempts = ConflictRetry::default();
            loop {
                match self.delete_all_inner(&self.matching(max_items).await?).await {
                    Err(error) if error.code() == NO_LONGER_MATCHING => self.context.reset(),
                    committed => return committed,
                }
                attempts.wait(self.engine, vec![self.resource_queue()]).await?;
            }
        };
        if self.has_hooks(Operation::Delete) {
            return Box::pin(self.run_around_hooks(Operation::Delete, work)).await;
        }
        work.await
    }

    /// The ids of the items that the request addresses and that the operation is allowed on.
    ///
    /// # Errors
    /// Where there are more than are allowed.
    pub(crate) async fn matching(&self, max_items: usize) -> Result<Vec<String>, Error> {
        let schema = &self.entry.schema;
        let query = Query {
            fields: vec![schema.id],
            keys: vec![schema.id],
            limit: u32::try_from(max_items).unwrap_or(u32::MAX).saturating_add(1),
            position: Position::Start,
            ..Query::all(schema.clone())
        };
        let query = self.changeable().await?.guard_query(query);
        let rows = self.entry.storage.fetch(&query, &mut Vec::new()).await?;
        if rows.len > max_items {
            let detail =
                format!("More than {max_items} items match, so nothing was changed. Narrow the filter.");
            return Err(Error::new(ErrorKind::Conflict, "too-many-affected", detail));
        }
        Ok(rows.keys.iter().flatten().map(crate::resource::id_text).collect())
    }

    /// Refuses a list that contains an item twice, in whichever spelling of its id; a malformed id identifies no item.
    ///
    /// # Errors
    /// Every repetition, with its position in the list.
    pub(crate) fn reject_duplicates<'s>(
        &self,
        ids: impl Iterator<Item = &'s str>,
        list: &str,
    ) -> Result<(), Error> {
        let mut seen_ids = HashSet::new();
        let mut faults = Vec::new();
        for (index, id) in ids.enumerate() {
            if self.parse_id(id).is_ok_and(|id| !seen_ids.insert(crate::resource::id_text(&id))) {
                let detail = "This item occurs twice.";
                faults.push(Fault::pointer(format!("/{list}/{index}"), "repeated", detail));
            }
        }
        if faults.is_empty() { Ok(()) } else { Err(Error::validation(faults)) }
    }

    /// Parses ids as in a path, each of which may occur once.
    fn parse_ids<'s>(&self, ids: impl Iterator<Item = &'s str>, list: &str) -> Result<Vec<Value>, Error> {
        let ids: Vec<_> = ids.collect();
        let parsed = ids.iter().enumerate();
        let parsed =
            parsed.map(|(index, id)| self.parse_id(id).map_err(|error| error_at_index(error, list, index)));
        let parsed = parsed.collect::<Result<_, _>>()?;
        self.reject_duplicates(ids.into_iter(), list)?;
        Ok(parsed)
    }

    /// The current items of these ids, where they exist, in this order.
    async fn current_items(
        &self,
        admitted: &RowFilter,
        ids: &[Value],
    ) -> Result<Vec<Option<(Fields, Version)>>, Error> {
        let schema = &self.entry.schema;
        let query = Query {
            filter: Filter::Compare(schema.id, Test::In(ids.to_vec())),
            fields: self.entry.definition.model_fields.clone(),
            keys: vec![schema.id],
            versions: true,
            limit: u32::try_from(ids.len().max(1)).unwrap_or(u32::MAX),
            ..Query::all(schema.clone())
        };
        let mut json = self.entry.response_buffer(ids.len());
        json.push(b'[');
        let query = admitted.guard_query(query);
        let rows = self.entry.storage.fetch(&query, &mut json).await?;
        json.push(b']');
        let items: Vec<Fields> = serde_json::from_slice(&json).map_err(Error::internal)?;
        let keys = rows.keys.iter().flatten().map(crate::resource::id_text);
        let mut found: std::collections::HashMap<String, (Fields, Version)> =
            keys.zip(items.into_iter().zip(rows.versions)).collect();
        Ok(ids.iter().map(|id| found.remove(&crate::resource::id_text(id))).collect())
    }

    /// Commits many writes, runs the hooks after them, and returns the items in order, changed and unchanged ones.
    async fn commit_all(
        &self,
        prepared: Vec<PreparedWrite>,
        output: Output<'_>,
    ) -> Result<Vec<Item>, Failure> {
        let failed = |error: Error| {
            let error = resourceful_contract::StorageError::new(resourceful_contract::ErrorKind::Internal)
                .with_source(error);
            Failure { item: None, enlisted: false, error }
        };
        if prepared.is_empty() {
            self.store_response(None, &output).await.map_err(failed)?;
            return Ok(match output {
                Output::Items(unchanged) => unchanged.into_iter().flatten().collect(),
                _ => Vec::new(),
            });
        }
        let committed = self.commit(prepared, &output).await?;
        for (main, written) in committed.mains.iter().zip(&committed.written) {
            self.run_after_hooks(&committed.records[*main], written).await;
        }
        let Output::Items(unchanged) = output else { return Ok(Vec::new()) };
        let mut changed = committed.written.into_iter();
        let mut items = Vec::with_capacity(unchanged.len().max(changed.len()));
        for one in unchanged {
            match one {
                Some(item) => items.push(item),
                None => {
                    let Some(written) = changed.next() else { break };
                    items.push(self.response_item(written).map_err(failed)?.0);
                }
            }
        }
        for written in changed {
            items.push(self.response_item(written).map_err(failed)?.0);
        }
        Ok(items)
    }

    /// Whether an item could not be changed because it is no longer among the rows that the request addresses.
    fn is_unmatched(&self, failure: &Failure) -> bool {
        use resourceful_contract::ErrorKind::NotFound;
        !self.addressed.is_unrestricted() && !failure.enlisted && failure.error.kind() == NotFound
    }

    /// The error of a bulk write, with the index of the item that caused it.
    fn bulk_error(&self, failure: Failure, list: &str) -> Error {
        let item = failure.item;
        let error = self.commit_error(failure);
        match item {
            Some(index) => error_at_index(error, list, index),
            None => error,
        }
    }
}

/// Whether a filter contains any condition: `{"and": [{}]}` does not.
fn has_condition(filter: &Filter) -> bool {
    match filter {
        Filter::All(filters) | Filter::Any(filters) => filters.iter().any(has_condition),
        Filter::Not(inner) => has_condition(inner),
        Filter::Compare(..) | Filter::Related(..) | Filter::Search(..) => true,
    }
}

/// The error for a change by a filter without conditions.
pub(crate) fn empty_filter() -> Error {
    let detail = "Give a condition: an empty filter would match every item.";
    let fault = Fault::pointer("/filter", "required", detail);
    Error::new(ErrorKind::BadRequest, "empty-filter", detail).with_faults(vec![fault])
}

/// The same error for one item of a list: its locations become relative to the item.
pub(in crate::engine) fn error_at_index(error: Error, list: &str, index: usize) -> Error {
    let pointer = format!("/{list}/{index}");
    let error = error.nested_at(&pointer);
    let mut faults = error.faults().to_vec();
    for fault in &mut faults {
        // A fault of a header or the query is reported for the item.
        if !matches!(fault.at, FaultLocation::Pointer(_)) {
            fault.at = FaultLocation::Pointer(pointer.clone());
        }
    }
    if faults.is_empty() {
        faults.push(Fault::pointer(pointer, error.code(), error.detail()));
    }
    error.with_faults(faults)
}
