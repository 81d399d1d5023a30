//! Maps changes of rows to the cache tags that they concern. Every change of a storage passes here, whatever its
//! origin.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use resourceful_contract::{Change, Committed, ErrorKind, Filter, StorageError, Test, Then, Value, Write};

use super::outbox_invalidation::Own;
use super::tags::{Tag, TagVersions};
use crate::resource::id_text;
use crate::tables::events;
use crate::tables::events::EventRow;
use uuid::Uuid;

/// When tags are invalidated again after an abandoned commit: it may have been committed a moment later.
const LATER: [Duration; 3] = [Duration::from_millis(200), Duration::from_secs(2), Duration::from_secs(15)];

/// The tables whose rows are part of cached responses.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) generations: Arc<TagVersions>,
    tables: HashMap<String, Watched>,
    /// The table of each resource.
    resources: HashMap<String, String>,
    pub(crate) own: Own,
}

/// What a table's changes invalidate.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watched {
    /// The tenant field: its position and its name.
    pub(crate) tenant: Option<(usize, String)>,
    /// Further tags that are invalidated when a row is created, updated and deleted.
    pub(crate) created: Vec<Tag>,
    pub(crate) updated: Vec<Tag>,
    pub(crate) deleted: Vec<Tag>,
}

/// The tags of a change set, until its outcome is known.
#[derive(Debug)]
pub(crate) struct Changing {
    generations: Arc<TagVersions>,
    tags: Vec<Tag>,
    /// The events of the changes, once they were created.
    events: Arc<Mutex<Vec<Uuid>>>,
    /// Inserts whose ids the database assigns: the position of each change, and its table.
    unnamed: Vec<(usize, String)>,
    has_ended: bool,
}

impl Watch {
    pub(crate) fn new(
        generations: Arc<TagVersions>,
        tables: HashMap<String, Watched>,
        resources: HashMap<String, String>,
    ) -> Self {
        Self { generations, tables, resources, own: Own::default() }
    }

    /// The tags of these changes; `None` if none of them concerns a watched table.
    pub(crate) fn concerns(&self, changes: &[Change]) -> Option<Changing> {
        let mut changing = Changing {
            generations: self.generations.clone(),
            tags: Vec::new(),
            events: Arc::default(),
            unnamed: Vec::new(),
            has_ended: false,
        };
        for (position, change) in changes.iter().enumerate() {
            if let Some(watched) = self.tables.get(&change.schema.table) {
                changing.note(position, change, watched);
            }
        }
        (!changing.tags.is_empty()).then_some(changing)
    }

    /// The tags of the change that an event describes.
    pub(super) fn concerned_by(&self, event: &EventRow) -> Vec<Tag> {
        let Some(table) = self.resources.get(&event.resource) else { return Vec::new() };
        let Some(watched) = self.tables.get(table) else { return Vec::new() };
        // A row that moved from one tenant to another concerns both.
        let is_said = |name: &str| event.previous.as_ref().is_some_and(|previous| previous.contains(name));
        let stays = |name: &str| !is_said(name) && !event.unsaid.iter().any(|unsaid| unsaid == name);
        let whose = match (&watched.tenant, &event.tenant) {
            (Some((_, name)), Some(tenant)) if stays(name) => Tag::tenant(table, tenant),
            _ => Tag::anybodys(table),
        };
        let own = [Tag::table(table), whose, Tag::row(table, &event.subject)];
        let others = watched.created.iter().chain(&watched.updated).chain(&watched.deleted);
        own.into_iter().chain(others.copied()).collect()
    }
}

impl Watch {
    /// Invalidates responses that show rows of a table, on this node: another node may have changed them without an
    /// announcement.
    pub(crate) fn made_elsewhere(&self, table: &str, tenant: Option<&str>) {
        let Some(watched) = self.tables.get(table) else { return };
        let mut tags = vec![Tag::table(table), Tag::anybodys(table), Tag::rows(table)];
        tags.extend(tenant.map(|tenant| Tag::tenant(table, tenant)));
        for others in [&watched.created, &watched.updated, &watched.deleted] {
            tags.extend_from_slice(others);
        }
        self.generations.told(&tags, &[], true);
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

impl Changing {
    fn note(&mut self, position: usize, change: &Change, watched: &Watched) {
        let table = change.schema.table.as_str();
        let field = watched.tenant.as_ref().map(|(field, _)| *field);
        let tenant = |filter| field.and_then(|field| tenant_of(filter, field));
        let moves = |set: &[(usize, Value)]| set.iter().any(|(set, _)| Some(*set) == field);
        let whose = match &change.write {
            Write::Insert { values } => {
                match values.get(change.schema.id).filter(|id| !id.is_null()) {
                    Some(id) => self.tags.push(Tag::row(table, &id_text(id))),
                    None => self.unnamed.push((position, table.to_owned())),
                }
                self.tags.extend_from_slice(&watched.created);
                let tenant = field.and_then(|field| values.get(field));
                tenant.filter(|tenant| !tenant.is_null()).cloned()
            }
            Write::Update { id, set, guard } => {
                self.tags.push(Tag::row(table, &id_text(id)));
                self.tags.extend_from_slice(&watched.updated);
                tenant(&guard.filter).filter(|_| !moves(set)).cloned()
            }
            Write::Delete { id, guard } => {
                self.tags.push(Tag::row(table, &id_text(id)));
                self.tags.extend_from_slice(&watched.deleted);
                tenant(&guard.filter).cloned()
            }
            Write::UpdateAll { filter, set } => {
                self.tags.push(Tag::rows(table));
                self.tags.extend_from_slice(&watched.updated);
                tenant(filter).filter(|_| !moves(set)).cloned()
            }
            Write::DeleteAll { filter } => {
                self.tags.push(Tag::rows(table));
                self.tags.extend_from_slice(&watched.deleted);
                tenant(filter).cloned()
            }
        };
        self.tags.push(Tag::table(table));
        self.tags.push(match whose {
            Some(tenant) => Tag::tenant(table, &id_text(&tenant)),
            None => Tag::anybodys(table),
        });
    }

    /// Invalidates the tags of these changes, unless they certainly failed.
    pub(crate) fn end(mut self, committed: &Result<Committed, StorageError>) {
        self.has_ended = true;
        match committed {
            Ok(committed) => {
                let ids = self.unnamed.iter().map(|(position, table)| match committed.rows.get(*position) {
                    Some(row) => Tag::row(table, &id_text(&row.id)),
                    None => Tag::rows(table),
                });
                self.tags.extend(ids);
                let events = std::mem::take(&mut *self.events.lock().unwrap_or_else(PoisonError::into_inner));
                self.forget(&events);
            }
            Err(error) if is_certain(error.kind()) => {}
            // It may have been committed all the same, now or in a moment.
            Err(_) => self.forget_now_and_later(),
        }
    }

    fn forget(&mut self, events: &[Uuid]) {
        self.tags.sort_unstable_by_key(Tag::place);
        self.tags.dedup();
        self.generations.changed(&self.tags, events);
    }

    /// Records the events of the changes, as soon as they are created.
    pub(crate) fn telling(&self, then: Then) -> Then {
        let told = self.events.clone();
        Arc::new(move |written| {
            let more = then(written);
            let of_events = more.iter().filter(|change| events::are_of(&change.schema));
            *told.lock().unwrap_or_else(PoisonError::into_inner) = of_events.filter_map(event).collect();
            more
        })
    }

    fn forget_now_and_later(&mut self) {
        self.tags.extend(self.unnamed.iter().map(|(_, table)| Tag::rows(table)));
        self.forget(&[]);
        let (generations, tags) = (self.generations.clone(), std::mem::take(&mut self.tags));
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            for pause in LATER {
                tokio::time::sleep(pause).await;
                generations.changed(&tags, &[]);
            }
        });
    }
}

impl Drop for Changing {
    fn drop(&mut self) {
        if !self.has_ended {
            // The caller's future was dropped during the commit.
            self.forget_now_and_later();
        }
    }
}

/// The id of the event that a change inserts.
fn event(change: &Change) -> Option<Uuid> {
    match &change.write {
        Write::Insert { values } => match values.get(events::ID)? {
            Value::Uuid(id) => Some(*id),
            _ => None,
        },
        _ => None,
    }
}

/// Whether this error means that certainly nothing was changed.
const fn is_certain(kind: ErrorKind) -> bool {
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
