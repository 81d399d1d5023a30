//! Row filters, and the queries and changes that they restrict.

use std::borrow::Cow;

use resourceful_contract::{Change, Filter, Query, Test, Write};

use super::cross_storage;
use super::entry::{Catalog, Entry};
use crate::access::Verdict;
use crate::error::Error;

/// Row filter: the rows that an authorization decision admits. It is made from a verdict, or by a constructor that names
/// its purpose; there is no other way to get one.
///
/// `None` admits all rows, which is the most common decision.
#[derive(Clone, Debug)]
pub(crate) struct RowFilter(Option<Box<Filter>>);

static EVERYTHING: Filter = Filter::everything();

impl RowFilter {
    /// All rows: for the application's own operations, such as loading and counting.
    pub(crate) const fn unrestricted() -> Self {
        Self(None)
    }

    /// The rows that a verdict allows; `None` where it allows none.
    pub(crate) fn of(verdict: &Verdict) -> Option<Self> {
        Self::try_from_verdict(verdict.clone()).ok()
    }

    /// The rows that a verdict allows.
    ///
    /// # Errors
    /// The reason, where it allows none.
    pub(crate) fn try_from_verdict(verdict: Verdict) -> Result<Self, Cow<'static, str>> {
        match verdict {
            Verdict::Allow => Ok(Self(None)),
            Verdict::Where(filter) => Ok(Self(Some(filter))),
            Verdict::Deny(reason) => Err(reason),
        }
    }

    /// The soft-deleted rows, or the rows that are not deleted, by the field with the time of deletion.
    pub(crate) fn where_deleted(field: usize, deleted: bool) -> Self {
        Self(Some(Box::new(Filter::Compare(field, Test::IsNull(!deleted)))))
    }

    pub(crate) fn or(&self, other: &Self) -> Self {
        match (&self.0, &other.0) {
            (None, _) | (_, None) => Self(None),
            (Some(one), Some(other)) => {
                Self(Some(Box::new(Filter::Any(vec![Filter::clone(one), Filter::clone(other)]))))
            }
        }
    }

    pub(crate) fn and(&self, other: &Self) -> Self {
        match (&self.0, &other.0) {
            (None, admitted) | (admitted, None) => Self(admitted.clone()),
            (Some(one), Some(other)) => Self(Some(Box::new(Filter::clone(one).and(Filter::clone(other))))),
        }
    }

    /// The rows that also match a filter, which must be in terms of the resource's own storage.
    pub(crate) fn and_filter(&self, filter: Filter) -> Self {
        self.and(&Self(Some(Box::new(filter))))
    }

    /// Restricts a change to these rows.
    pub(crate) fn guard_change(&self, mut change: Change) -> GuardedChange {
        match &mut change.write {
            Write::Insert { .. } => {}
            Write::Update { guard, .. } | Write::Delete { guard, .. } => {
                guard.filter = self.restrict(std::mem::replace(&mut guard.filter, Filter::everything()));
            }
            Write::UpdateAll { filter, .. } | Write::DeleteAll { filter } => {
                *filter = self.restrict(std::mem::replace(filter, Filter::everything()));
            }
        }
        GuardedChange(change)
    }

    /// Restricts a query to these rows.
    pub(crate) fn guard_query(&self, mut query: Query) -> GuardedQuery {
        query.filter = self.restrict(std::mem::replace(&mut query.filter, Filter::everything()));
        GuardedQuery(query)
    }

    /// The row filter combined with another filter.
    pub(crate) fn restrict(&self, filter: Filter) -> Filter {
        match &self.0 {
            None => filter,
            Some(admitted) => Filter::clone(admitted).and(filter),
        }
    }

    /// The filter in terms that the resource's own storage understands.
    pub(crate) async fn resolved(&self, entry: &Entry, catalog: &Catalog) -> Result<Self, Error> {
        match &self.0 {
            None => Ok(Self(None)),
            Some(admitted) => {
                let filter = cross_storage::resolve(entry, Filter::clone(admitted), catalog).await?;
                Ok(Self(Some(Box::new(filter))))
            }
        }
    }

    pub(crate) fn filter(&self) -> &Filter {
        self.0.as_deref().unwrap_or(&EVERYTHING)
    }

    /// Whether all rows are admitted.
    pub(crate) const fn is_unrestricted(&self) -> bool {
        self.0.is_none()
    }
}

/// A query that is restricted to admitted rows.
#[derive(Debug)]
pub(crate) struct GuardedQuery(pub(super) Query);

impl GuardedQuery {
    /// Rewrites the filter into terms that the resource's own storage understands.
    pub(crate) async fn resolve(&mut self, entry: &Entry, catalog: &Catalog) -> Result<(), Error> {
        if cross_storage::is_cross_storage(entry, &self.0.filter, catalog) {
            let filter = std::mem::replace(&mut self.0.filter, Filter::nothing());
            self.0.filter = cross_storage::resolve(entry, filter, catalog).await?;
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
pub(crate) struct GuardedChange(pub(super) Change);

impl GuardedChange {
    pub(crate) const fn write(&self) -> &Write {
        &self.0.write
    }
}
