//! Maps changes of rows to the cache tags that they concern. Every change of a storage passes here, whatever its
//! origin.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use resourceful_contract::{Change, Committed, ErrorKind, Filter, StorageError, Test, Then, Value, Write};

use super::outbox_invalidation::OwnEvents;
use super::tags::{Tag, TagVersions};
use crate::resource::id_text;
use crate::tables::events;
use crate::tables::events::EventRow;
use uuid::Uuid;

/// When tags are invalidated again after an abandoned commit: it may have been committed a moment later.
const RETRY_DELAYS: [Duration; 3] =
    [Duration::from_millis(200), Duration::from_secs(2), Duration::from_secs(15)];

/// The tables whose rows are part of cached responses.
#[derive(Debug)]
pub(crate) struct WriteObserver {
    pub(crate) tag_versions: Arc<TagVersions>,
    tables: HashMap<String, ObservedTable>,
    /// The table of each resource.
    resources: HashMap<String, String>,
    pub(crate) own_events: OwnEvents,
}

/// What a table's changes invalidate.
#[derive(Clone, Debug, Default)]
pub(crate) struct ObservedTable {
    /// The tenant field: its position and its name.
    pub(crate) tenant: Option<(usize, String)>,
    /// Further tags that are invalidated when a row is created, updated and deleted.
    pub(crate) created: Vec<Tag>,
    pub(crate) updated: Vec<Tag>,
    pub(crate) deleted: Vec<Tag>,
}

/// The tags of a change set, until its outcome is known.
#[derive(Debug)]
pub(crate) struct PendingInvalidation {
    tag_versions: Arc<TagVersions>,
    tags: Vec<Tag>,
    /// The events of the changes, once they were created.
    events: Arc<Mutex<Vec<Uuid>>>,
    /// Inserts whose ids the database assigns: the position of each change, and its table.
    unassigned_ids: Vec<(usize, String)>,
    is_completed: bool,
}

impl WriteObserver {
    pub(crate) fn new(
        tag_versions: Arc<TagVersions>,
        tables: HashMap<String, ObservedTable>,
        resources: HashMap<String, String>,
    ) -> Self {
        Self { tag_versions, tables, resources, own_events: OwnEvents::default() }
    }

    /// The tags of these changes; `None` if none of them concerns a watched table.
    pub(crate) fn observe(&self, changes: &[Change]) -> Option<PendingInvalidation> {
        let mut pending = PendingInvalidation {
            tag_versions: self.tag_versions.clone(),
            tags: Vec::new(),
            events: Arc::default(),
            unassigned_ids: Vec::new(),
            is_completed: false,
        };
        for (position, change) in changes.iter().enumerate() {
            if let Some(observed_table) = self.tables.get(&change.schema.table) {
                pending.add_change(position, change, observed_table);
            }
        }
        (!pending.tags.is_empty()).then_some(pending)
    }

    /// The tags of the change that an event describes.
    pub(super) fn event_tags(&self, event: &EventRow) -> Vec<Tag> {
        let Some(table) = self.resources.get(&event.resource) else { return Vec::new() };
        let Some(observed_table) = self.tables.get(table) else { return Vec::new() };
        // A row that moved from one tenant to another concerns both.
        let is_said = |name: &str| event.previous.as_ref().is_some_and(|previous| previous.contains(name));
        let stays = |name: &str| !is_said(name) && !event.hidden_changes.iter().any(|unsaid| unsaid == name);
        let tenant_scope = match (&observed_table.tenant, &event.tenant) {
            (Some((_, name)), Some(tenant)) if stays(name) => Tag::tenant(table, tenant),
            _ => Tag::unknown_tenant(table),
        };
        let own = [Tag::table(table), tenant_scope, Tag::row(table, &event.subject)];
        let others =
            observed_table.created.iter().chain(&observed_table.updated).chain(&observed_table.deleted);
        own.into_iter().chain(others.copied()).collect()
    }
}

impl WriteObserver {
    /// Invalidates responses that show rows of a table, on this node: another node may have changed them without an
    /// announcement.
    pub(crate) fn invalidate_table(&self, table: &str, tenant: Option<&str>) {
        let Some(observed_table) = self.tables.get(table) else { return };
        let mut tags = vec![Tag::table(table), Tag::unknown_tenant(table), Tag::rows(table)];
        tags.extend(tenant.map(|tenant| Tag::tenant(table, tenant)));
        for others in [&observed_table.created, &observed_table.updated, &observed_table.deleted] {
            tags.extend_from_slice(others);
        }
        self.tag_versions.apply_invalidation(&tags, &[], true);
    }
}

/// The tenant that a filter restricts rows to, if it does.
pub(crate) fn tenant_of(filter: &Filter, field: usize) -> Option<&Value> {
    match filter {
        Filter::Compare(compared, Test::Eq(value)) if *compared == field && !value.is_null() => Some(value),
        Filter::All(filters) => filters.iter().find_map(|filter| tenant_of(filter, field)),
        _ => None,
    }
}

impl PendingInvalidation {
    fn add_change(&mut self, position: usize, change: &Change, observed_table: &ObservedTable) {
        let table = change.schema.table.as_str();
        let field = observed_table.tenant.as_ref().map(|(field, _)| *field);
        let tenant = |filter| field.and_then(|field| tenant_of(filter, field));
        let moves = |set: &[(usize, Value)]| set.iter().any(|(set, _)| Some(*set) == field);
        let tenant_scope = match &change.write {
            Write::Insert { values } => {
                match values.get(change.schema.id).filter(|id| !id.is_null()) {
                    Some(id) => self.tags.push(Tag::row(table, &id_text(id))),
                    None => self.unassigned_ids.push((position, table.to_owned())),
                }
                self.tags.extend_from_slice(&observed_table.created);
                let tenant = field.and_then(|field| values.get(field));
                tenant.filter(|tenant| !tenant.is_null()).cloned()
            }
            Write::Update { id, set, guard } => {
                self.tags.push(Tag::row(table, &id_text(id)));
                self.tags.extend_from_slice(&observed_table.updated);
                tenant(&guard.filter).filter(|_| !moves(set)).cloned()
            }
            Write::Delete { id, guard } => {
                self.tags.push(Tag::row(table, &id_text(id)));
                self.tags.extend_from_slice(&observed_table.deleted);
                tenant(&guard.filter).cloned()
            }
            Write::UpdateAll { filter, set } => {
                self.tags.push(Tag::rows(table));
                self.tags.extend_from_slice(&observed_table.updated);
                tenant(filter).filter(|_| !moves(set)).cloned()
            }
            Write::DeleteAll { filter } => {
                self.tags.push(Tag::rows(table));
                self.tags.extend_from_slice(&observed_table.deleted);
                tenant(filter).cloned()
            }
        };
        self.tags.push(Tag::table(table));
        self.tags.push(match tenant_scope {
            Some(tenant) => Tag::tenant(table, &id_text(&tenant)),
            None => Tag::unknown_tenant(table),
        });
    }

    /// Invalidates the tags of these changes, unless they certainly failed.
    pub(crate) fn complete(mut self, committed: &Result<Committed, StorageError>) {
        self.is_completed = true;
        match committed {
            Ok(committed) => {
                let ids =
                    self.unassigned_ids.iter().map(|(position, table)| match committed.rows.get(*position) {
                        Some(row) => Tag::row(table, &id_text(&row.id)),
                        None => Tag::rows(table),
                    });
                self.tags.extend(ids);
                let events = std::mem::take(&mut *self.events.lock().unwrap_or_else(PoisonError::into_inner));
                self.invalidate(&events);
            }
            Err(error) if is_definite_failure(error.kind()) => {}
            // It may have been committed all the same, now or in a moment.
            Err(_) => self.invalidate_repeatedly(),
        }
    }

    fn invalidate(&mut self, events: &[Uuid]) {
        self.tags.sort_unstable_by_key(Tag::slot);
        self.tags.dedup();
        self.tag_versions.invalidate(&self.tags, events);
    }

    /// Records the events of the changes, as soon as they are created.
    pub(crate) fn record_events(&self, then: Then) -> Then {
        let event_ids = self.events.clone();
        Arc::new(move |written| {
            let more = then(written);
            let of_events = more.iter().filter(|change| events::is_events_table(&change.schema));
            *event_ids.lock().unwrap_or_else(PoisonError::into_inner) =
                of_events.filter_map(event_id).collect();
            more
        })
    }

    fn invalidate_repeatedly(&mut self) {
        self.tags.extend(self.unassigned_ids.iter().map(|(_, table)| Tag::rows(table)));
        self.invalidate(&[]);
        let (tag_versions, tags) = (self.tag_versions.clone(), std::mem::take(&mut self.tags));
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            for delay in RETRY_DELAYS {
                tokio::time::sleep(delay).await;
                tag_versions.invalidate(&tags, &[]);
            }
        });
    }
}

impl Drop for PendingInvalidation {
    fn drop(&mut self) {
        if !self.is_completed {
            // The caller's future was dropped during the commit.
            self.invalidate_repeatedly();
        }
    }
}

/// The id of the event that a change inserts.
fn event_id(change: &Change) -> Option<Uuid> {
    match &change.write {
        Write::Insert { values } => match values.get(events::ID)? {
            Value::Uuid(id) => Some(*id),
            _ => None,
        },
        _ => None,
    }
}

/// Whether this error means that certainly nothing was changed.
const fn is_definite_failure(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::NotFound
            | ErrorKind::VersionMismatch
            | ErrorKind::UniqueViolation
            | ErrorKind::ForeignKeyViolation
            | ErrorKind::Rejected
            | ErrorKind::Unsupported
    )
}
