//! On what terms a change is made: where its request comes from, whether it is tried only, under which key.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use resourceful_contract::Value;
use tokio::time::Instant;

use super::commit_plan::CommitPlan;
use super::idempotency::IdempotencyClaim;
use crate::tables::events::EventRow;

/// The terms of one request's changes.
#[derive(Debug, Default)]
pub(crate) struct WriteContext {
    /// The id of the request.
    pub(crate) request: Option<String>,
    /// The request's `traceparent`.
    pub(crate) trace: Option<String>,
    /// Who is at the other end of the connection.
    pub(crate) address: Option<IpAddr>,
    /// When the answer is due: what is still done after a change by then does not keep it from being sent.
    pub(crate) due: Option<Instant>,
    /// Whether everything is tried and then taken back.
    pub(crate) dry_run: bool,
    /// The events that a dry run would have sent.
    pub(super) tried: Mutex<Vec<EventRow>>,
    /// The rows that earlier changes of the same commit make, by the place of their resource.
    made: Mutex<Vec<(usize, Vec<Value>)>>,
    /// The ids that earlier changes of the same commit delete, by the place of their resource.
    deleted: Mutex<Vec<(usize, Value)>>,
    /// What the change is known by, so that it happens once.
    pub(crate) claim: Option<IdempotencyClaim>,
    /// The commit that is being put together.
    plan: OnceLock<Arc<CommitPlan>>,
}

/// The terms of what nobody asked for.
pub(super) static NONE: WriteContext = WriteContext {
    request: None,
    trace: None,
    address: None,
    due: None,
    dry_run: false,
    tried: Mutex::new(Vec::new()),
    made: Mutex::new(Vec::new()),
    deleted: Mutex::new(Vec::new()),
    claim: None,
    plan: OnceLock::new(),
};

impl WriteContext {
    pub(super) fn note(&self, events: Vec<EventRow>) {
        self.tried.lock().unwrap_or_else(PoisonError::into_inner).extend(events);
    }

    pub(super) fn plan(&self) -> &Arc<CommitPlan> {
        self.plan.get_or_init(Arc::default)
    }

    /// Notes a row that will be there when the rest of the commit is made.
    pub(super) fn made(&self, resource: usize, values: Vec<Value>) {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).push((resource, values));
    }

    /// The rows of a resource that the same commit makes.
    pub(super) fn rows_made(&self, resource: usize) -> Vec<Vec<Value>> {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.iter().filter(|(of, _)| *of == resource).map(|(_, values)| values.clone()).collect()
    }

    /// Notes an item that will be deleted when the rest of the commit is made.
    pub(super) fn deleted(&self, resource: usize, id: Value) {
        self.deleted.lock().unwrap_or_else(PoisonError::into_inner).push((resource, id));
    }

    /// Whether the same commit deletes an item.
    pub(super) fn deletes(&self, resource: usize, id: &Value) -> bool {
        let deleted = self.deleted.lock().unwrap_or_else(PoisonError::into_inner);
        deleted.iter().any(|(of, gone)| *of == resource && gone.compare(id).is_eq())
    }

    /// Begins the commit again: nothing is made or deleted yet.
    pub(super) fn begin_again(&self) {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.deleted.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The terms of one of many items that are changed one by one.
    pub(super) fn of_item(&self, item: &str) -> Self {
        Self {
            request: self.request.clone(),
            trace: self.trace.clone(),
            address: self.address,
            due: self.due,
            dry_run: self.dry_run,
            tried: Mutex::default(),
            deleted: Mutex::default(),
            made: Mutex::default(),
            claim: self.claim.as_ref().map(|claim| claim.of_item(item)),
            plan: OnceLock::new(),
        }
    }

    /// The events that a dry run would have sent.
    pub(crate) fn tried(&self) -> Vec<EventRow> {
        std::mem::take(&mut *self.tried.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
