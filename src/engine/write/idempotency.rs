//! Idempotency keys: a repeated write request is answered with the stored response instead of being executed again.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use resourceful_contract::{Change, Filter, Query, RowOutcome, Test, Value, Version, Write};

use super::commit::Output;
use super::context::WriteContext;
use super::input;
use super::records::ChangeRecord;
use super::row_check::evaluate_partial;
use crate::access::Operation;
use crate::authz::decision;
use crate::authz::redact;
use crate::engine::{Call, Engine, Item};
use crate::error::{Error, ErrorKind, Fault};
use crate::query::Selection;
use crate::resource::id_text;
use crate::tables::keys::{ID, KeyRow};

/// An idempotency claim: all requests under one key ask for the same single write.
#[derive(Clone, Debug)]
pub(crate) struct IdempotencyClaim {
    /// Digest of everything that identifies the key.
    id: String,
    /// Digest of the request.
    fingerprint: String,
    /// Retention of the stored response.
    retention: Duration,
    /// Whether an expired response is stored under it.
    pub(in crate::engine) has_expired: bool,
}

/// A stored response that is replayed.
#[derive(Debug)]
pub(crate) struct ReplayedResponse {
    pub(crate) status: u16,
    pub(crate) item: Option<Item>,
    pub(crate) id: Option<Value>,
    /// The response where it is not an item, as JSON.
    pub(crate) output: Option<String>,
}

/// The claims of requests that this node is executing.
pub(crate) type InFlightKeys = Arc<Mutex<HashSet<String>>>;

/// Marks a claim as in flight until it is dropped.
#[derive(Debug)]
pub(crate) struct InFlightGuard {
    keys: InFlightKeys,
    id: String,
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

impl IdempotencyClaim {
    pub(crate) const fn new(id: String, fingerprint: String, retention: Duration) -> Self {
        Self { id, fingerprint, retention, has_expired: false }
    }

    /// The claim of one of many items that are written one by one, derived from a value that is unique to the item.
    pub(in crate::engine) fn for_item(&self, item: &str) -> Self {
        let id = blake3::hash(format!("{} {item}", self.id).as_bytes()).to_hex().to_string();
        Self { id, fingerprint: self.fingerprint.clone(), retention: self.retention, has_expired: false }
    }

    /// The row that stores the response under this claim.
    pub(in crate::engine) fn row(
        &self,
        at: DateTime<Utc>,
        first: Option<&ChangeRecord>,
        written: &[&RowOutcome],
        response: &StoredResponse,
    ) -> KeyRow {
        let status = match first.map(|record| record.operation) {
            Some(Operation::Create) => 201,
            Some(Operation::Delete) if first.is_some_and(|record| record.after.is_none()) => 204,
            _ => 200,
        };
        let (one, body) = match response {
            StoredResponse::Item => {
                let one = written.first();
                (one, one.filter(|row| !row.json.is_empty()).map(|row| text(&row.json)))
            }
            StoredResponse::Items(unchanged) => (None, Some(join_items(unchanged, written))),
            StoredResponse::Json(json) => (None, Some(json.clone())),
        };
        let is_list = matches!(response, StoredResponse::Items(_));
        // On a replay, the caller must still see the one item that an action was applied to.
        let target_id = match (response, written) {
            (StoredResponse::Json(_), [one])
                if first.is_some_and(|record| record.operation == Operation::Update) =>
            {
                Some(id_text(&one.id))
            }
            _ => None,
        };
        KeyRow {
            id: self.id.clone(),
            fingerprint: self.fingerprint.clone(),
            status: if matches!(response, StoredResponse::Json(_)) { 200 } else { status },
            item: one.map(|row| id_text(&row.id)).or(target_id),
            version: one
                .and_then(|row| row.version)
                .map(version_text)
                .or_else(|| is_list.then(|| ITEM_LIST.to_owned())),
            body,
            expires_at: at + self.retention,
        }
    }

    /// Checks that a stored row belongs to this request.
    ///
    /// # Errors
    /// Where the row belongs to another request under the same key.
    fn check_fingerprint(&self, row: &KeyRow) -> Result<(), Error> {
        if row.fingerprint == self.fingerprint {
            return Ok(());
        }
        let detail = "This Idempotency-Key was used for another request: take a new one.";
        let fault = Fault::header("Idempotency-Key", "reused", detail);
        Err(Error::new(ErrorKind::Validation, "key-reused", detail).with_faults(vec![fault]))
    }

    /// Matches the row of this claim only.
    pub(in crate::engine) fn filter(&self) -> Filter {
        Filter::Compare(ID, Test::Eq(Value::Text(self.id.clone())))
    }
}

/// The response in the form in which it is stored.
#[derive(Debug)]
pub(in crate::engine) enum StoredResponse {
    Item,
    /// The JSON of unchanged items, with `None` in the place of each changed one.
    Items(Vec<Option<String>>),
    Json(String),
}

/// Stored in place of a version where the response is a list of items.
const ITEM_LIST: &str = "items";
/// Stored in place of a version where the items of the request have their own keys, and the request has no response of
/// its own.
const ONE_BY_ONE: &str = "one-by-one";

impl StoredResponse {
    pub(in crate::engine) fn of(output: &Output<'_>) -> Self {
        match output {
            Output::Item => Self::Item,
            Output::Items(unchanged) => {
                let kept = unchanged.iter().map(|item| item.as_ref().map(|item| text(&item.json)));
                Self::Items(kept.collect())
            }
            Output::Json(json) => Self::Json(json.to_string()),
        }
    }
}

fn text(json: &[u8]) -> String {
    String::from_utf8_lossy(json).into_owned()
}

/// All items as comma-separated JSON: the unchanged ones, with the changed ones in the gaps.
fn join_items(unchanged: &[Option<String>], written: &[&RowOutcome]) -> String {
    let mut changed = written.iter().map(|row| text(&row.json));
    let mut items: Vec<String> =
        unchanged.iter().filter_map(|kept| kept.clone().or_else(|| changed.next())).collect();
    items.extend(changed);
    items.join(",")
}

fn version_text(version: Version) -> String {
    match version {
        Version::Counter(counter) => counter.to_string(),
        Version::Digest(digest) => digest.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

fn parse_version(text: &str, has_counter: bool) -> Option<Version> {
    if has_counter {
        return text.parse().ok().map(Version::Counter);
    }
    let byte = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    let digest: Option<Vec<u8>> = (0..text.len()).step_by(2).map(byte).collect();
    Some(Version::Digest(digest?.try_into().ok()?))
}

impl Engine {
    /// Marks the context's claim as in flight.
    ///
    /// # Errors
    /// Where it is in flight already.
    pub(crate) fn mark_in_flight(&self, context: &WriteContext) -> Result<Option<InFlightGuard>, Error> {
        let Some(claim) = &context.claim else { return Ok(None) };
        let mut all = self.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
        if !all.insert(claim.id.clone()) {
            let detail = "A request with this Idempotency-Key is under way. Ask again soon.";
            return Err(Error::new(ErrorKind::Conflict, "key-in-flight", detail));
        }
        drop(all);
        Ok(Some(InFlightGuard { keys: self.in_flight.clone(), id: claim.id.clone() }))
    }
}

impl Call<'_> {
    /// The stored response of this claim, where there is one.
    ///
    /// # Errors
    /// Where the key was used for another request, or the caller may no longer see the response.
    pub(crate) async fn replay(&self, context: &mut WriteContext) -> Result<Option<ReplayedResponse>, Error> {
        let Some(claim) = &mut context.claim else { return Ok(None) };
        let Some(row) = self.stored_response(claim).await? else { return Ok(None) };
        if row.expires_at <= crate::clock::now() {
            claim.has_expired = true;
            return Ok(None);
        }
        self.checked_replay(claim, row).await
    }

    /// The response that another node has stored under this claim meanwhile.
    ///
    /// # Errors
    /// As [`replay`](Self::replay).
    pub(crate) async fn replay_concurrent(&self) -> Result<Option<ReplayedResponse>, Error> {
        let Some(claim) = &self.context.claim else { return Ok(None) };
        match self.stored_response(claim).await? {
            Some(row) if row.expires_at > crate::clock::now() => self.checked_replay(claim, row).await,
            _ => Ok(None),
        }
    }

    async fn checked_replay(
        &self,
        claim: &IdempotencyClaim,
        row: KeyRow,
    ) -> Result<Option<ReplayedResponse>, Error> {
        claim.check_fingerprint(&row)?;
        if row.version.as_deref() == Some(ONE_BY_ONE) {
            return Ok(None);
        }
        self.build_replay(row).await.map(Some)
    }

    /// Claims the key of a request whose items are written one by one, each under a key derived from it.
    ///
    /// # Errors
    /// Where another request has claimed it.
    pub(crate) async fn claim_request(&self) -> Result<(), Error> {
        let Some(claim) = self.context.claim.as_ref().filter(|_| !self.context.dry_run) else {
            return Ok(());
        };
        let claimed_row = async || {
            let row = self.stored_response(claim).await?.filter(|row| row.expires_at > crate::clock::now());
            row.map(|row| claim.check_fingerprint(&row)).transpose()
        };
        if claimed_row().await?.is_some() {
            return Ok(());
        }
        let mut row = claim.row(crate::clock::now(), None, &[], &StoredResponse::Item);
        (row.status, row.version) = (207, Some(ONE_BY_ONE.to_owned()));
        match self.store_key_row(claim, row).await {
            Ok(()) => Ok(()),
            // Another node came first, with this request or another one.
            Err(error) => claimed_row().await?.ok_or(error),
        }
    }

    /// An item that a write would leave unchanged. Under an idempotency key this response is stored like any other: a
    /// write that changed nothing changes nothing when it is repeated, whatever the item has become by then.
    pub(in crate::engine) async fn unchanged_item(
        &self,
        id: &Value,
        version: Version,
    ) -> Result<Item, Error> {
        let item = self.item(id.clone(), &Selection::default()).await?;
        if let Some(claim) = &self.context.claim {
            // Responses are stored with all fields; visibility is checked when they are replayed.
            let application = Call::as_application(self.engine, self.entry);
            let complete = application.item(id.clone(), &Selection::default()).await?;
            let row = RowOutcome { id: id.clone(), version: Some(version), json: complete.json, rows: 1 };
            self.store_key_row(claim, claim.row(crate::clock::now(), None, &[&row], &StoredResponse::Item))
                .await?;
        }
        Ok(item)
    }

    /// Stores another response to a write that changed nothing; `acted` is the item that an action was applied to.
    pub(in crate::engine) async fn store_response(
        &self,
        target_id: Option<&Value>,
        output: &Output<'_>,
    ) -> Result<(), Error> {
        let Some(claim) = &self.context.claim else { return Ok(()) };
        let mut row = claim.row(crate::clock::now(), None, &[], &StoredResponse::of(output));
        row.item = target_id.map(id_text);
        self.store_key_row(claim, row).await
    }

    async fn store_key_row(&self, claim: &IdempotencyClaim, row: KeyRow) -> Result<(), Error> {
        let schema = &self.engine.tables.keys;
        let change = |write| Change { schema: schema.clone(), write, answer: None };
        let mut changes = vec![change(Write::Insert { values: row.into_values() })];
        if claim.has_expired {
            changes.insert(0, change(Write::DeleteAll { filter: claim.filter() }));
        }
        self.entry.storage.commit_internal(changes).await?;
        Ok(())
    }

    async fn stored_response(&self, claim: &IdempotencyClaim) -> Result<Option<KeyRow>, Error> {
        let mut query = Query::all(self.engine.tables.keys.clone());
        (query.filter, query.sort, query.limit) = (claim.filter(), Vec::new(), 1);
        Ok(self.entry.storage.read_internal(query).await?.pop().map(KeyRow::from_values))
    }

    async fn build_replay(&self, row: KeyRow) -> Result<ReplayedResponse, Error> {
        if let Some(watch) = &self.engine.catalog.write_observer {
            // From a replay on, the caller's reads include the write, whichever node executed it.
            watch.invalidate_table(&self.entry.schema.table, self.actor.tenant());
        }
        let status = u16::try_from(row.status).unwrap_or(200);
        if row.version.as_deref() == Some(ITEM_LIST) {
            let output = self.replay_list(row.body.unwrap_or_default(), status == 201).await?;
            return Ok(ReplayedResponse { status, item: None, id: None, output: Some(output) });
        }
        let (Some(id), Some(json)) = (&row.item, row.body.clone()) else {
            return Ok(ReplayedResponse { status, item: None, id: None, output: row.body });
        };
        let id = self.parse_id(id)?;
        if row.version.is_none() {
            // The response of an action on an item.
            self.check_replay_access(&id, None, status == 201).await?;
            return Ok(ReplayedResponse { status, item: None, id: None, output: Some(json) });
        }
        let state: input::Fields = serde_json::from_str(&json).map_err(Error::internal)?;
        self.check_replay_access(&id, Some(&state), status == 201).await?;
        let has_counter = self.entry.schema.version.is_some();
        let version = row.version.as_deref().and_then(|text| parse_version(text, has_counter));
        let version = version.ok_or_else(|| Error::internal("a stored response has no version"))?;
        let visible_fields = self.visible_fields();
        let mut json = json.into_bytes();
        redact::retain_fields(&self.reader(), &visible_fields, &mut json)?;
        redact::redact_row(&self.reader(), &Selection::default(), &mut json)?;
        let part = self.part(&Selection::default(), &visible_fields, &json);
        let item = Item { json, version: self.engine.digest_key.public_version(version), part };
        Ok(ReplayedResponse { status, item: Some(item), id: Some(id), output: None })
    }

    /// A stored list of items, as this caller may see them now.
    async fn replay_list(&self, items: String, is_created: bool) -> Result<String, Error> {
        let array = format!("[{items}]");
        let items: Vec<&serde_json::value::RawValue> =
            serde_json::from_str(&array).map_err(Error::internal)?;
        let visible_fields = self.visible_fields();
        let id_name = &self.entry.schema.id_field().name;
        let mut all = Vec::with_capacity(items.len());
        for item in items {
            let mut json = item.get().as_bytes().to_vec();
            let fields: input::Fields = serde_json::from_slice(&json).map_err(Error::internal)?;
            let id = fields.get(id_name).map(|id| id.as_str().map_or_else(|| id.to_string(), str::to_owned));
            if let Some(id) = id {
                self.check_replay_access(&self.parse_id(&id)?, Some(&fields), is_created).await?;
            }
            redact::retain_fields(&self.reader(), &visible_fields, &mut json)?;
            redact::redact_row(&self.reader(), &Selection::default(), &mut json)?;
            all.push(text(&json));
        }
        Ok(format!("{{\"items\":[{}]}}", all.join(",")))
    }

    /// Refuses a replay where the item exists but the caller may no longer see it, or where the stored state of it is not
    /// visible to the caller.
    async fn check_replay_access(
        &self,
        id: &Value,
        state: Option<&input::Fields>,
        is_created: bool,
    ) -> Result<(), Error> {
        let read = decision::decide(&self.engine.catalog, self.entry, self.actor, Operation::Read).await;
        let visible_rows = match decision::allowed_rows(read, self.entry, self.actor, Operation::Read.into())
        {
            Ok(visible_rows) => visible_rows.resolved(self.entry, &self.engine.catalog).await?,
            // A caller who may create but not read is shown the item that the caller created.
            Err(_) if is_created => return Ok(()),
            Err(refused) => return Err(refused),
        };
        if let Some(state) = state {
            let is_known = |field: usize| state.contains_key(&self.entry.schema.fields[field].name);
            if evaluate_partial(visible_rows.filter(), &self.partial_values(state), &is_known) == Some(false)
            {
                return Err(Error::not_found());
            }
        }
        // An item that was deleted under the key is not found for that reason alone.
        match self.fetch_stored(&visible_rows, id.clone()).await {
            Err(hidden) if hidden.kind() == ErrorKind::NotFound => match self.current_state(id).await? {
                Some(_) => Err(hidden),
                // It was deleted since, and the response dates from when it existed.
                None => Ok(()),
            },
            found => found.map(drop),
        }
    }
}
