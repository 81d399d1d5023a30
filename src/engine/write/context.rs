//! Write context: what a write carries beside its data, such as request id, trace, dry run and idempotency key.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use resourceful_contract::Value;
use tokio::time::Instant;

use super::commit_plan::CommitPlan;
use super::idempotency::IdempotencyClaim;
use crate::tables::events::EventRow;

/// The context of one request's writes.
#[derive(Debug, Default)]
pub(crate) struct WriteContext {
    /// The id of the request.
    pub(crate) request: Option<String>,
    /// The request's `traceparent`.
    pub(crate) trace: Option<String>,
    /// Address of the connection's peer.
    pub(crate) address: Option<IpAddr>,
    /// Deadline of the response: work after a change that is unfinished by then does not delay the response.
    pub(crate) deadline: Option<Instant>,
    /// Whether the write is a dry run, which is rolled back.
    pub(crate) dry_run: bool,
    /// The events that a dry run would have sent.
    pub(in crate::engine) dry_run_events: Mutex<Vec<EventRow>>,
    /// Rows that earlier changes of the same commit create, with the catalog position of their resource.
    created_rows: Mutex<Vec<(usize, Vec<Value>)>>,
    /// Ids that earlier changes of the same commit delete, with the catalog position of their resource.
    deleted_ids: Mutex<Vec<(usize, Value)>>,
    /// The idempotency claim, by which the write is executed only once.
    pub(crate) claim: Option<IdempotencyClaim>,
    /// The commit that is being assembled.
    plan: OnceLock<Arc<CommitPlan>>,
}

/// Default context, of calls without a request's own: no trace, no dry run, no idempotency key.
pub(in crate::engine) static DEFAULT: WriteContext = WriteContext {
    request: None,
    trace: None,
    address: None,
    deadline: None,
    dry_run: false,
    dry_run_events: Mutex::new(Vec::new()),
    created_rows: Mutex::new(Vec::new()),
    deleted_ids: Mutex::new(Vec::new()),
    claim: None,
    plan: OnceLock::new(),
};

impl WriteContext {
    pub(in crate::engine) fn add_events(&self, events: Vec<EventRow>) {
        self.dry_run_events.lock().unwrap_or_else(PoisonError::into_inner).extend(events);
    }

    pub(in crate::engine) fn plan(&self) -> &Arc<CommitPlan> {
        self.plan.get_or_init(Arc::default)
    }

    /// Records a row that will exist when the rest of the commit is applied.
    pub(in crate::engine) fn add_created(&self, resource: usize, values: Vec<Value>) {
        self.created_rows.lock().unwrap_or_else(PoisonError::into_inner).push((resource, values));
    }

    /// The rows of a resource that the same commit creates.
    pub(in crate::engine) fn created_rows(&self, resource: usize) -> Vec<Vec<Value>> {
        let created_rows = self.created_rows.lock().unwrap_or_else(PoisonError::into_inner);
        created_rows.iter().filter(|(of, _)| *of == resource).map(|(_, values)| values.clone()).collect()
    }

    /// Records an item that will be deleted when the rest of the commit is applied.
    pub(in crate::engine) fn add_deleted(&self, resource: usize, id: Value) {
        self.deleted_ids.lock().unwrap_or_else(PoisonError::into_inner).push((resource, id));
    }

    /// Whether the same commit deletes an item.
    pub(in crate::engine) fn is_deleted(&self, resource: usize, id: &Value) -> bool {
        let deleted = self.deleted_ids.lock().unwrap_or_else(PoisonError::into_inner);
        deleted.iter().any(|(of, deleted_id)| *of == resource && deleted_id.compare(id).is_eq())
    }

    /// Restarts the commit: no rows are created or deleted yet.
    pub(in crate::engine) fn reset(&self) {
        self.created_rows.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.deleted_ids.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The context of one of many items that are written one by one.
    pub(in crate::engine) fn for_item(&self, item: &str) -> Self {
        Self {
            request: self.request.clone(),
            trace: self.trace.clone(),
            address: self.address,
            deadline: self.deadline,
            dry_run: self.dry_run,
            dry_run_events: Mutex::default(),
            deleted_ids: Mutex::default(),
            created_rows: Mutex::default(),
            claim: self.claim.as_ref().map(|claim| claim.for_item(item)),
            plan: OnceLock::new(),
        }
    }

    /// The events that a dry run would have sent.
    pub(crate) fn take_events(&self) -> Vec<EventRow> {
        std::mem::take(&mut *self.dry_run_events.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
