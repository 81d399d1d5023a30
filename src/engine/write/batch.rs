//! Batches: writes to several resources in one commit, each validated as if it were sent alone.

use std::collections::HashSet;

use futures::future::BoxFuture;
use resourceful_contract::{RowOutcome, Value, Write};
use serde_json::{Map, Value as Json};

use super::bulk::error_at_index;
use super::commit::{Output, PreparedWrite};
use super::contention::ConflictRetry;
use super::context::WriteContext;
use super::input::Fields;
use super::records::ChangeRecord;
use super::update::UpdateTarget;
use crate::access::Operation;
use crate::access::{Actor, Verdict};
use crate::authz::decision;
use crate::engine::{Call, Engine, Expected, Item};
use crate::error::{Error, ErrorKind, Fault, escape_pointer};
use crate::query::Selection;
use crate::resource::Id;
use crate::resource::id_text;

/// One operation of a batch request.
#[derive(Clone, Debug)]
pub(crate) struct BatchOperation {
    pub(crate) resource: String,
    pub(crate) operation: Operation,
    /// The item's id, unless it is new.
    pub(crate) id: String,
    pub(crate) expected: Option<Expected>,
    pub(crate) body: Json,
}

/// The result of one operation.
#[derive(Debug)]
pub(crate) struct BatchResult {
    pub(crate) resource: String,
    pub(crate) operation: Operation,
    /// The item, unless it was deleted.
    pub(crate) item: Option<Item>,
    pub(crate) id: Value,
}

/// Name of the operations' array in the request.
const OPERATIONS: &str = "operations";
/// Pointer to an operation's body.
const BODY: &str = "/body";

impl Engine {
    /// Refuses a caller without permission to create, update or delete in any resource.
    pub(crate) async fn require_write_permission(&self, actor: &Actor) -> Result<(), Error> {
        let mut refused = None;
        for entry in self.catalog.entries() {
            for operation in [Operation::Update, Operation::Create, Operation::Delete] {
                match decision::decide(&self.catalog, entry, actor, operation).await {
                    Verdict::Deny(_) => {
                        refused = refused.or_else(|| Some(decision::denied(entry, actor, operation)));
                    }
                    _ => return Ok(()),
                }
            }
        }
        match refused {
            Some(_) if !actor.is_anonymous() => Err(Error::new(
                ErrorKind::Forbidden,
                "forbidden",
                "You may not change any of these resources.",
            )),
            Some(refused) => Err(refused),
            None => Ok(()),
        }
    }

    /// Commits all of the operations, or none.
    pub(crate) async fn batch(
        &self,
        actor: &Actor,
        context: &WriteContext,
        operations: &[BatchOperation],
    ) -> Result<Vec<BatchResult>, Error> {
        let mut calls = Vec::with_capacity(operations.len());
        let mut seen_ids = HashSet::new();
        let mut unknown = Vec::new();
        // A caller without permission for one of them is refused before anything is read.
        for (index, one) in operations.iter().enumerate() {
            let Ok(entry) = self.catalog.find(&one.resource) else {
                unknown.push(
                    self.catalog.unknown_resource(&one.resource).nested_at(&format!("/{OPERATIONS}/{index}")),
                );
                continue;
            };
            if entry.definition.idempotency.is_some_and(|idempotency| idempotency.required) {
                let detail = "Changes of this resource need an Idempotency-Key, which a batch does not take.";
                let fault = Fault::pointer(format!("/{OPERATIONS}/{index}/resource"), "keyed", detail);
                return Err(Error::validation(vec![fault]));
            }
            let call = self.call(entry, actor, one.operation, false).await;
            let call = call.map_err(|error| error_at_index(error, OPERATIONS, index))?.with_context(context);
            // An id may have several spellings; a malformed one identifies nothing.
            let id = call.parse_id(&one.id).ok().filter(|_| one.operation != Operation::Create);
            let is_duplicate = id.is_some_and(|id| !seen_ids.insert((entry.position, id_text(&id))));
            calls.push(call);
            if is_duplicate {
                let detail = "This item occurs twice: combine its changes into one operation.";
                let fault = Fault::pointer(format!("/{OPERATIONS}/{index}/id"), "repeated", detail);
                return Err(Error::validation(vec![fault]));
            }
        }
        if !unknown.is_empty() {
            return Err(Error::validation(unknown));
        }
        let other_storage =
            calls.iter().position(|call| !call.entry.storage.is_same(&calls[0].entry.storage));
        if let Some(index) = other_storage {
            let detail =
                "This resource is in another database than the first: send it in a separate request.";
            let fault = Fault::pointer(format!("/{OPERATIONS}/{index}/resource"), "elsewhere", detail);
            return Err(Error::validation(vec![fault]));
        }
        let mut work: BoxFuture<'_, Result<Vec<BatchResult>, Error>> =
            Box::pin(commit_operations(&calls, operations, context));
        let mut hooked: Vec<(usize, Operation)> = Vec::new();
        for (call, one) in calls.iter().zip(operations).rev() {
            let hook_key = (call.entry.position, one.operation);
            if call.has_hooks(one.operation) && !hooked.contains(&hook_key) {
                hooked.push(hook_key);
                work = Box::pin(call.run_around_hooks(one.operation, work));
            }
        }
        work.await
    }
}

async fn commit_operations(
    calls: &[Call<'_>],
    operations: &[BatchOperation],
    context: &WriteContext,
) -> Result<Vec<BatchResult>, Error> {
    let mut attempts = ConflictRetry::default();
    loop {
        context.reset();
        let mut prepared = Vec::with_capacity(calls.len());
        let mut planned: Vec<Option<Fields>> = Vec::with_capacity(calls.len());
        // Results of the operations that change nothing are read before the commit, since nothing may fail after it.
        // `changed` holds the indexes of the operations that change something.
        let mut unchanged = Vec::with_capacity(calls.len());
        let mut changed = Vec::with_capacity(calls.len());
        for (index, (call, one)) in calls.iter().zip(operations).enumerate() {
            let located = |error: Error| error_at_index(error, OPERATIONS, index);
            let body = resolve_references(&one.body, &planned, calls, BODY).map_err(located)?;
            let (change, item) = call.prepare_operation(one, body).await.map_err(located)?;
            unchanged.push(match &change {
                Some(_) => None,
                None => Some(call.unchanged_result(one).await.map_err(located)?),
            });
            changed.extend(change.is_some().then_some(index));
            planned.push(item);
            prepared.extend(change);
        }
        if prepared.is_empty() {
            return Ok(unchanged.into_iter().flatten().collect());
        }
        match calls[0].commit(prepared, &Output::Item).await {
            Ok(committed) => {
                let mut written = committed.mains.iter().zip(committed.written);
                let mut results = Vec::with_capacity(calls.len());
                for ((call, one), unchanged) in calls.iter().zip(operations).zip(unchanged) {
                    if let Some(unchanged) = unchanged {
                        results.push(unchanged);
                    } else if let Some((main, written)) = written.next() {
                        results.push(call.committed_result(one, &committed.records[*main], written).await?);
                    }
                }
                return Ok(results);
            }
            Err(failure) => {
                let index = failure.item.and_then(|item| changed.get(item).copied());
                let expected = index.and_then(|index| operations[index].expected.as_ref());
                if failure.is_retryable(Expected::has_versions(expected)) {
                    let items =
                        calls.iter().zip(operations).map(|(call, one)| match call.parse_id(&one.id) {
                            Ok(id) if one.operation != Operation::Create => call.item_queue(&id),
                            _ => call.resource_queue(),
                        });
                    let items = items.collect();
                    attempts.wait(calls[0].engine, items).await?;
                    continue;
                }
                return Err(match index {
                    Some(index) => {
                        error_at_index(calls[index].commit_error(failure).nested_at(BODY), OPERATIONS, index)
                    }
                    None => calls[0].commit_error(failure),
                });
            }
        }
    }
}

impl Call<'_> {
    /// The change of an operation, if there is one, and the item's state after it.
    async fn prepare_operation(
        &self,
        one: &BatchOperation,
        body: Json,
    ) -> Result<(Option<PreparedWrite>, Option<Fields>), Error> {
        let in_body = |error: Error| error.nested_at(BODY);
        if one.operation == Operation::Create {
            let item = self.new_item(body).map_err(in_body)?;
            let prepared = self.prepare_insert(item.clone()).await.map_err(in_body)?;
            if let Write::Insert { values } = prepared.main.change.write() {
                self.context.add_created(self.entry.position, values.clone());
            }
            let item = prepared.main.record.after.clone().unwrap_or(item);
            return Ok((Some(prepared), Some(item)));
        }
        let id = self.parse_id(&one.id)?;
        let changeable = self.changeable().await?;
        let (current, version) = self.current_within(&changeable, id.clone(), one.operation).await?;
        self.require_if_match(one.expected.as_ref())?;
        self.check_version(one.expected.as_ref(), version)?;
        if one.operation == Operation::Delete {
            let prepared = self.prepare_delete_of(&changeable, &id, current.clone(), version).await?;
            self.context.add_deleted(self.entry.position, id);
            return Ok((Some(prepared), Some(current)));
        }
        let patch = self.parse_patch(body).map_err(in_body)?;
        let next = self.apply_patch(&current, &patch).map_err(in_body)?;
        let blind = self.blind_fields(&patch);
        let step =
            UpdateTarget { operation: Operation::Update, id: &id, current: &current, version, blind: &blind };
        let prepared = self.prepare_update(&changeable, step, next).await.map_err(in_body)?;
        let item = prepared.as_ref().and_then(|prepared| prepared.main.record.after.clone());
        Ok((prepared, Some(item.unwrap_or(current))))
    }

    /// The result of an operation that changes nothing.
    async fn unchanged_result(&self, one: &BatchOperation) -> Result<BatchResult, Error> {
        let id = self.parse_id(&one.id)?;
        let item = self.item(id.clone(), &Selection::default()).await?;
        Ok(BatchResult { resource: one.resource.clone(), operation: one.operation, item: Some(item), id })
    }

    /// The result of a committed operation; runs the hooks after it.
    async fn committed_result(
        &self,
        one: &BatchOperation,
        record: &ChangeRecord,
        written: RowOutcome,
    ) -> Result<BatchResult, Error> {
        self.run_after_hooks(record, &written).await;
        let (resource, operation) = (one.resource.clone(), one.operation);
        let id = written.id.clone();
        let is_removed = operation == Operation::Delete && self.definition().deleted_at.is_none();
        let item = if is_removed { None } else { Some(self.response_item(written)?.0) };
        Ok(BatchResult { resource, operation, item, id })
    }
}

/// The body with every `{"$ref": "0/id"}` replaced by that field's value in the earlier operation's item.
fn resolve_references(
    body: &Json,
    planned: &[Option<Fields>],
    calls: &[Call<'_>],
    pointer: &str,
) -> Result<Json, Error> {
    match body {
        Json::Object(members) => match members.get("$ref") {
            Some(reference) if members.len() == 1 => resolve_reference(reference, planned, calls, pointer),
            _ => {
                let mut all = Map::new();
                for (name, value) in members {
                    let pointer = format!("{pointer}/{}", escape_pointer(name));
                    all.insert(name.clone(), resolve_references(value, planned, calls, &pointer)?);
                }
                Ok(Json::Object(all))
            }
        },
        Json::Array(items) => {
            let each = items.iter().enumerate();
            let each =
                each.map(|(at, item)| resolve_references(item, planned, calls, &format!("{pointer}/{at}")));
            each.collect::<Result<_, _>>().map(Json::Array)
        }
        other => Ok(other.clone()),
    }
}

fn resolve_reference(
    reference: &Json,
    planned: &[Option<Fields>],
    calls: &[Call<'_>],
    pointer: &str,
) -> Result<Json, Error> {
    let refuse = |detail: String| Err(Error::validation(vec![Fault::pointer(pointer, "reference", detail)]));
    let text = reference.as_str().unwrap_or_default();
    let Some((number, field)) = text.split_once('/') else {
        return refuse("Must name an operation and a field, such as \"0/id\".".to_owned());
    };
    let Some(Some(item)) = number.parse::<usize>().ok().and_then(|number| planned.get(number)) else {
        return refuse(format!("`{number}` is not an earlier operation of this batch."));
    };
    let call = &calls[number.parse::<usize>().unwrap_or_default()];
    let schema = &call.entry.schema;
    let position = schema.position(field).filter(|field| !schema.fields[*field].hidden);
    let Some(position) = position.filter(|position| call.mask().can_reveal(*position)) else {
        return refuse(format!("`{}` has no field `{field}`.", call.entry.name));
    };
    if position == schema.id && call.definition().id == Id::Integer && item.get(field) == Some(&0.into()) {
        return refuse("The database generates this id at the commit: it cannot be referred to.".to_owned());
    }
    Ok(item.get(field).cloned().unwrap_or(Json::Null))
}
