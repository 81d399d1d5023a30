//! Authorization of rows and fields for one caller: row filters, visibility, and guarded storage as the only access to
//! rows.

use std::sync::Arc;

use futures::future::BoxFuture;
use resourceful_contract::{
    Change, ChangeSet, Committed, Filter, NotificationStream, Query, Rows, Schema, Storage, StorageError,
    Test, Then, Value, Write,
};

use super::rights::Mask;
use super::{Catalog, Entry, related};
use crate::access::{Actor, CheckRequest, Verdict};
use crate::cache::Watch;
use crate::error::{Error, ErrorKind};
use crate::query::{self, Deleted};
use crate::resource::{Operation, Right};
use crate::tables;

/// Row filter: the rows that an authorization decision admits. It is made from a verdict, or by a constructor that names
/// its purpose; there is no other way to get one.
///
/// `None` admits all rows, which is the most common decision.
#[derive(Clone, Debug)]
pub(crate) struct RowFilter(Option<Box<Filter>>);

static EVERYTHING: Filter = Filter::everything();

impl RowFilter {
    /// All rows: for the application's own operations, such as loading and counting.
    pub(super) const fn by_the_application() -> Self {
        Self(None)
    }

    /// The rows that a verdict allows; `None` where it allows none.
    pub(super) fn of(verdict: &Verdict) -> Option<Self> {
        match verdict {
            Verdict::Allow => Some(Self(None)),
            Verdict::Where(filter) => Some(Self(Some(filter.clone()))),
            Verdict::Deny(_) => None,
        }
    }

    /// The soft-deleted rows, or the rows that are not deleted, by the field with the time of deletion.
    fn with_deleted(field: usize, deleted: bool) -> Self {
        Self(Some(Box::new(Filter::Compare(field, Test::IsNull(!deleted)))))
    }

    fn or(&self, other: &Self) -> Self {
        match (&self.0, &other.0) {
            (None, _) | (_, None) => Self(None),
            (Some(one), Some(other)) => {
                Self(Some(Box::new(Filter::Any(vec![Filter::clone(one), Filter::clone(other)]))))
            }
        }
    }

    pub(super) fn and(&self, other: &Self) -> Self {
        match (&self.0, &other.0) {
            (None, admitted) | (admitted, None) => Self(admitted.clone()),
            (Some(one), Some(other)) => Self(Some(Box::new(Filter::clone(one).and(Filter::clone(other))))),
        }
    }

    /// The rows that also match a filter, which must be in terms of the resource's own storage.
    pub(super) fn and_filter(&self, filter: Filter) -> Self {
        self.and(&Self(Some(Box::new(filter))))
    }

    /// Restricts a change to these rows.
    pub(super) fn change(&self, mut change: Change) -> GuardedChange {
        match &mut change.write {
            Write::Insert { .. } => {}
            Write::Update { guard, .. } | Write::Delete { guard, .. } => {
                guard.filter = self.within(std::mem::replace(&mut guard.filter, Filter::everything()));
            }
            Write::UpdateAll { filter, .. } | Write::DeleteAll { filter } => {
                *filter = self.within(std::mem::replace(filter, Filter::everything()));
            }
        }
        GuardedChange(change)
    }

    /// Restricts a query to these rows.
    pub(super) fn query(&self, mut query: Query) -> GuardedQuery {
        query.filter = self.within(std::mem::replace(&mut query.filter, Filter::everything()));
        GuardedQuery(query)
    }

    /// The row filter combined with another filter.
    pub(crate) fn within(&self, filter: Filter) -> Filter {
        match &self.0 {
            None => filter,
            Some(admitted) => Filter::clone(admitted).and(filter),
        }
    }

    /// The filter in terms that the resource's own storage understands.
    pub(super) async fn resolved(&self, entry: &Entry, catalog: &Catalog) -> Result<Self, Error> {
        match &self.0 {
            None => Ok(Self(None)),
            Some(admitted) => {
                let filter = related::resolve(entry, Filter::clone(admitted), catalog).await?;
                Ok(Self(Some(Box::new(filter))))
            }
        }
    }

    pub(crate) fn filter(&self) -> &Filter {
        self.0.as_deref().unwrap_or(&EVERYTHING)
    }

    /// Whether all rows are admitted.
    pub(super) const fn is_everything(&self) -> bool {
        self.0.is_none()
    }
}

/// A query that is restricted to admitted rows.
#[derive(Debug)]
pub(super) struct GuardedQuery(Query);

impl GuardedQuery {
    /// Rewrites the filter into terms that the resource's own storage understands.
    pub(super) async fn resolve(&mut self, entry: &Entry, catalog: &Catalog) -> Result<(), Error> {
        if related::leads_elsewhere(entry, &self.0.filter, catalog) {
            let filter = std::mem::replace(&mut self.0.filter, Filter::nothing());
            self.0.filter = related::resolve(entry, filter, catalog).await?;
        }
        Ok(())
    }
}

impl std::ops::Deref for GuardedQuery {
    type Target = Query;

    fn deref(&self) -> &Query {
        &self.0
    }
}

/// A change that is restricted to admitted rows.
#[derive(Debug)]
pub(super) struct GuardedChange(Change);

impl GuardedChange {
    pub(super) const fn write(&self) -> &Write {
        &self.0.write
    }
}

/// Guarded storage: rows of resources are accessible only with an authorization decision.
#[derive(Clone, Debug)]
pub(crate) struct GuardedStorage(Arc<dyn Storage>, Option<Arc<Watch>>);

impl GuardedStorage {
    /// Wraps a storage, with the watch that tracks its changes where responses are cached.
    pub(super) fn new(storage: Arc<dyn Storage>, watch: Option<Arc<Watch>>) -> Self {
        Self(storage, watch)
    }

    pub(super) async fn fetch(&self, query: &GuardedQuery, out: &mut Vec<u8>) -> Result<Rows, StorageError> {
        self.0.fetch(&query.0, out).await
    }

    /// Commits changes of admitted rows and their follow-up changes, or rolls them back in a dry run.
    pub(super) async fn commit(
        &self,
        changes: Vec<GuardedChange>,
        then: Option<Then>,
        dry_run: bool,
    ) -> Result<Committed, StorageError> {
        let changes = changes.into_iter().map(|change| change.0).collect();
        self.watched(ChangeSet { then, dry_run, ..ChangeSet::of(changes) }).await
    }

    /// Commits rows that the application itself loads.
    pub(super) async fn load(&self, changes: ChangeSet) -> Result<Committed, StorageError> {
        self.watched(changes).await
    }

    /// Commits, and invalidates the affected cached responses before the commit is reported.
    async fn watched(&self, mut changes: ChangeSet) -> Result<Committed, StorageError> {
        let watch = self.1.as_ref().filter(|_| !changes.dry_run);
        let changing = watch.and_then(|watch| watch.concerns(&changes.changes));
        if let Some(changing) = &changing {
            changes.then = changes.then.map(|then| changing.telling(then));
        }
        let committed = self.0.commit(changes).await;
        if let Some(changing) = changing {
            changing.end(&committed);
        }
        committed
    }

    /// Reads rows of one of the library's own tables, with the values of all fields.
    pub(crate) async fn kept(&self, query: Query) -> Result<Vec<Vec<Value>>, StorageError> {
        let all = (0..query.schema.fields.len()).collect();
        self.kept_of(query, all).await
    }

    /// Reads rows of one of the library's own tables, with the values of some fields only.
    pub(crate) async fn kept_of(
        &self,
        mut query: Query,
        fields: Vec<usize>,
    ) -> Result<Vec<Vec<Value>>, StorageError> {
        own(&query.schema)?;
        query.keys = fields;
        query.fields = vec![query.schema.id];
        Ok(self.0.fetch(&query, &mut Vec::new()).await?.keys)
    }

    /// Commits changes to the library's own tables.
    pub(crate) async fn keep(&self, changes: Vec<Change>) -> Result<Committed, StorageError> {
        for change in &changes {
            own(&change.schema)?;
        }
        self.0.commit(ChangeSet::of(changes)).await
    }

    /// Notifies other nodes.
    pub(crate) async fn ring(&self, bell: &str) -> Result<(), StorageError> {
        self.0.notify(bell).await
    }

    /// Listens for notifications from other nodes; `None` where the storage does not support them.
    pub(crate) async fn hear(&self, bell: &str) -> Result<Option<Box<dyn NotificationStream>>, StorageError> {
        self.0.listen(bell).await
    }

    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(crate) async fn create_table_if_missing(&self, schema: &Arc<Schema>) -> Result<(), StorageError> {
        self.0.create_table_if_missing(schema).await
    }

    pub(crate) async fn check(
        &self,
        schema: &Arc<Schema>,
    ) -> Result<Vec<resourceful_contract::Mismatch>, StorageError> {
        self.0.check(schema).await
    }

    pub(crate) async fn ready(&self) -> Result<(), StorageError> {
        self.0.ready().await
    }

    pub(crate) async fn close(&self) -> Result<(), StorageError> {
        self.0.close().await
    }
}

/// Checks that a schema is one of the library's own tables.
///
/// # Errors
/// Where a table belongs to a resource, whose rows are accessible only with an authorization decision.
fn own(schema: &Schema) -> Result<(), StorageError> {
    if tables::is_own(schema) {
        return Ok(());
    }
    Err(StorageError::new(resourceful_contract::ErrorKind::Internal)
        .with_context("not the library's", schema.table.clone()))
}

/// One caller's visibility of one resource.
#[derive(Clone, Debug)]
pub(crate) struct Visibility {
    /// The readable rows; `None` where the caller may read none.
    pub(crate) rows: Option<RowFilter>,
    /// The subset of these rows that lists show.
    pub(crate) listed: Option<RowFilter>,
    pub(crate) mask: Mask,
}

/// One caller's visibility of the requested resource and of its related resources.
#[derive(Clone, Debug)]
pub(crate) struct Visibilities {
    resource: usize,
    own: Visibility,
    others: Vec<(usize, Visibility)>,
}

impl Visibilities {
    /// Full visibility of one resource.
    pub(super) fn by_the_application(entry: &Entry) -> Self {
        let all = Some(RowFilter::by_the_application());
        let own = Visibility { rows: all.clone(), listed: all, mask: Mask::clear() };
        Self { resource: entry.position, own, others: Vec::new() }
    }

    /// Visibility of the requested resource.
    pub(crate) const fn own(&self) -> &Visibility {
        &self.own
    }

    /// Visibility of one resource; `None` where nothing may be seen, or where it was not determined in advance.
    pub(crate) fn of(&self, resource: usize) -> Option<&Visibility> {
        if resource == self.resource {
            return Some(&self.own);
        }
        self.others.iter().find(|(position, _)| *position == resource).map(|(_, sight)| sight)
    }
}

/// Denial reason for a client whose credential has no scope for the operation, whatever the actor itself may do.
pub(super) const UNCOVERED: &str = "no scope of the credential covers it";

/// Evaluates the rules of an operation for a caller.
pub(super) async fn decide(
    catalog: &Catalog,
    entry: &Entry,
    actor: &Actor,
    right: impl Into<Right>,
) -> Verdict {
    let right = right.into();
    let (rule, operation) = (entry.rights().of(right), right.base());
    if !right.is_covered(entry.definition.as_ref(), actor) {
        return Verdict::Deny(UNCOVERED.into());
    }
    if let Some(verdict) = rule.at_once(actor) {
        return verdict;
    }
    // Boxed, so that rules which decide at once do not pay for the size of this future.
    let asked: BoxFuture<'_, Verdict> = Box::pin(async move {
        let asking = CheckRequest { actor: actor.clone(), resource: entry.name.clone(), operation };
        let read = |filter: &serde_json::Value| query::trusted_filter(catalog, entry, filter);
        rule.decide(&asking, &read, None).await
    });
    asked.await
}

async fn sight(catalog: &Catalog, entry: &Entry, actor: &Actor, list: Option<&Verdict>) -> Visibility {
    let read = decide(catalog, entry, actor, Operation::Read).await;
    let list = match list {
        Some(list) => list.clone(),
        None => decide(catalog, entry, actor, Operation::List).await,
    };
    let listed = read.clone().and(list);
    Visibility {
        rows: live(entry, RowFilter::of(&read)),
        listed: live(entry, RowFilter::of(&listed)),
        mask: entry.rights().mask(catalog, entry, actor).await,
    }
}

/// Restricts the rows to those that are not deleted.
fn live(entry: &Entry, rows: Option<RowFilter>) -> Option<RowFilter> {
    match entry.definition.deleted_at {
        Some(field) => rows.map(|rows| rows.and(&RowFilter::with_deleted(field, false))),
        None => rows,
    }
}

/// A caller's visibility of one resource including deleted items, or of deleted items only.
///
/// # Errors
/// Where the caller may see no deleted items.
pub(super) async fn with_deleted(
    catalog: &Catalog,
    entry: &Entry,
    actor: &Actor,
    mask: Mask,
    deleted: Deleted,
) -> Result<Visibility, Error> {
    let may =
        RowFilter::by(decide(catalog, entry, actor, Right::Deleted).await, entry, actor, Right::Deleted)?;
    let read = decide(catalog, entry, actor, Operation::Read).await;
    let listed = read.clone().and(decide(catalog, entry, actor, Operation::List).await);
    let Some(field) = entry.definition.deleted_at else { return Err(Error::not_found()) };
    let gone = RowFilter::with_deleted(field, true).and(&may);
    let of = |rows: Option<RowFilter>| match deleted {
        Deleted::Only => rows.map(|rows| rows.and(&gone)),
        Deleted::Include => rows.map(|rows| rows.and(&RowFilter::with_deleted(field, false).or(&gone))),
    };
    Ok(Visibility { rows: of(RowFilter::of(&read)), listed: of(RowFilter::of(&listed)), mask })
}

/// Authorizes an operation: the rows that it is allowed on, and the caller's visibility of its resource and of all
/// related resources that a query can reach.
///
/// # Errors
/// Where it is allowed on no row.
pub(super) async fn enter(
    catalog: &Catalog,
    entry: &Entry,
    actor: &Actor,
    right: Right,
    related: bool,
) -> Result<(RowFilter, Visibilities), Error> {
    let verdict = decide(catalog, entry, actor, right).await;
    // Each rule is evaluated only once.
    let own = match right {
        Right::Of(Operation::Read) => Visibility {
            rows: live(entry, RowFilter::of(&verdict)),
            listed: None,
            mask: entry.rights().mask(catalog, entry, actor).await,
        },
        Right::Of(Operation::List) => sight(catalog, entry, actor, Some(&verdict)).await,
        _ => sight(catalog, entry, actor, None).await,
    };
    let allowed = RowFilter::by(verdict, entry, actor, right)?;
    let mut sights = Visibilities { resource: entry.position, own, others: Vec::new() };
    if related && !entry.links.is_empty() {
        // Boxed, so that a request without relations does not pay for the size of this future.
        Box::pin(follow(catalog, entry, actor, &mut sights)).await;
    }
    Ok((allowed, sights))
}

async fn follow(catalog: &Catalog, entry: &Entry, actor: &Actor, sights: &mut Visibilities) {
    const DEPTH: usize = 3;
    let mut last = vec![entry.position];
    for _ in 0..DEPTH {
        let mut next = Vec::new();
        for position in last {
            for relation in &catalog.entry(position).links {
                let target = relation.target;
                let is_own = target == sights.resource;
                if !next.contains(&target) && (is_own || sights.of(target).is_none()) {
                    let seen = sight(catalog, catalog.entry(target), actor, None).await;
                    if is_own {
                        sights.own = seen;
                    } else {
                        sights.others.push((target, seen));
                    }
                    next.push(target);
                }
            }
        }
        last = next;
    }
}

impl RowFilter {
    /// The rows that a verdict allows.
    ///
    /// # Errors
    /// Where it allows none: 401 for anonymous callers, 403 for the others.
    pub(super) fn by(verdict: Verdict, entry: &Entry, actor: &Actor, right: Right) -> Result<Self, Error> {
        match verdict {
            Verdict::Allow => Ok(Self(None)),
            Verdict::Where(filter) => Ok(Self(Some(filter))),
            Verdict::Deny(reason) => Err(refused(entry, actor, right).with_source(reason.into_owned())),
        }
    }
}

pub(super) fn refused(entry: &Entry, actor: &Actor, right: impl Into<Right>) -> Error {
    if actor.is_anonymous() {
        return Error::new(ErrorKind::Unauthenticated, "unauthenticated", "This needs a credential.");
    }
    let definition = &entry.definition;
    let detail = format!("You may not {} {}.", right.into().name(definition), definition.name());
    Error::new(ErrorKind::Forbidden, "forbidden", detail)
}
