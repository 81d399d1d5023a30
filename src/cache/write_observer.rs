//! From changes of rows to the tags that they concern. Every change of a storage passes here, whoever makes it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use resourceful_contract::{Change, Committed, ErrorKind, Filter, StorageError, Test, Then, Value, Write};

use super::outbox_invalidation::Own;
use super::tags::{Tag, TagVersions};
use crate::engine::spelled;
use crate::tables::events::{self, EventRow};
use uuid::Uuid;

/// When what was given up while it was being committed is forgotten once more: it may have been committed a moment later.
const LATER: [Duration; 3] = [Duration::from_millis(200), Duration::from_secs(2), Duration::from_secs(15)];

/// The tables whose rows are part of remembered answers.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) generations: Arc<TagVersions>,
    tables: HashMap<String, Watched>,
    /// The table of each resource.
    resources: HashMap<String, String>,
    pub(crate) own: Own,
}

/// What is known of a table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watched {
    /// The field that says whose a row is, and its name.
    pub(crate) tenant: Option<(usize, String)>,
    /// What else falls with a new row, with one that is changed, and with one that goes.
    pub(crate) created: Vec<Tag>,
    pub(crate) updated: Vec<Tag>,
    pub(crate) deleted: Vec<Tag>,
}

/// What a change set concerns, until it is known what became of it.
#[derive(Debug)]
pub(crate) struct Changing {
    generations: Arc<TagVersions>,
    tags: Vec<Tag>,
    /// The events that tell of them, where they were made.
    events: Arc<Mutex<Vec<Uuid>>>,
    /// Where the database names new rows, the table of each, by the place of its change.
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

    /// What these changes concern; `None` where that is nothing that is remembered.
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

    /// What a change concerns that an event tells of.
    pub(super) fn concerned_by(&self, event: &EventRow) -> Vec<Tag> {
        let Some(table) = self.resources.get(&event.resource) else { return Vec::new() };
        let Some(watched) = self.tables.get(table) else { return Vec::new() };
        // One that went from one tenant to another concerns both.
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
    /// Forgets what shows rows of a table, on this node: another one may have changed them and told nobody.
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

/// The tenant that a filter keeps to, where it does.
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
                    Some(id) => self.tags.push(Tag::row(table, &spelled(id))),
                    None => self.unnamed.push((position, table.to_owned())),
                }
                self.tags.extend_from_slice(&watched.created);
                let tenant = field.and_then(|field| values.get(field));
                tenant.filter(|tenant| !tenant.is_null()).cloned()
            }
            Write::Update { id, set, guard } => {
                self.tags.push(Tag::row(table, &spelled(id)));
                self.tags.extend_from_slice(&watched.updated);
                tenant(&guard.filter).filter(|_| !moves(set)).cloned()
            }
            Write::Delete { id, guard } => {
                self.tags.push(Tag::row(table, &spelled(id)));
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
            Some(tenant) => Tag::tenant(table, &spelled(&tenant)),
            None => Tag::anybodys(table),
        });
    }

    /// Forgets what these changes concern, where they were made.
    pub(crate) fn end(mut self, committed: &Result<Committed, StorageError>) {
        self.has_ended = true;
        match committed {
            Ok(committed) => {
                let ids = self.unnamed.iter().map(|(position, table)| match committed.rows.get(*position) {
                    Some(row) => Tag::row(table, &spelled(&row.id)),
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

    /// Notes which events tell of the changes, as soon as that is known.
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
            // Whoever asked for it went away while it was being committed.
            self.forget_now_and_later();
        }
    }
}

/// The id of an event that a change adds.
fn event(change: &Change) -> Option<Uuid> {
    match &change.write {
        Write::Insert { values } => match values.get(events::ID)? {
            Value::Uuid(id) => Some(*id),
            _ => None,
        },
        _ => None,
    }
}

/// Whether nothing was changed for sure.
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
