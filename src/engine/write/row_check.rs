//! Checks that a row, in its state after a write, is one that the caller may write.

use futures::future::BoxFuture;
use resourceful_contract::{
    Cardinality, ErrorKind, Filter, Position, Query, StorageError, Test, Value, fold,
};

use super::assemble::Fields;
use super::update::Next;
use crate::access::Operation;
use crate::authz::decision;
use crate::catalog::Entry;
use crate::catalog::RowFilter;
use crate::engine::Call;
use crate::error::Error;

/// Whether a filter admits a row of which only some values are known; `None` where that depends on an unknown value or on
/// a relation.
pub(crate) fn decided(filter: &Filter, values: &[Value], knows: &dyn Fn(usize) -> bool) -> Option<bool> {
    // One filter that settles the result does so whatever the others say.
    let settled = |filters: &[Filter], by: bool| {
        let mut all = Some(!by);
        for filter in filters {
            match decided(filter, values, knows) {
                Some(one) if one == by => return Some(by),
                Some(_) => {}
                None => all = None,
            }
        }
        all
    };
    match filter {
        Filter::All(filters) => settled(filters, false),
        Filter::Any(filters) => settled(filters, true),
        Filter::Not(inner) => decided(inner, values, knows).map(|holds| !holds),
        Filter::Compare(field, test) => knows(*field).then(|| test.passes(&values[*field])),
        Filter::Search(fields, word) => {
            let holds =
                |field: &usize| matches!(&values[*field], Value::Text(text) if fold::contains(text, word));
            fields.iter().all(|field| knows(*field)).then(|| fields.iter().any(holds))
        }
        Filter::Related(..) => None,
    }
}

impl Call<'_> {
    /// Refuses a new row that the caller may not create.
    pub(in crate::engine) async fn may_hold(&self, values: &[Value]) -> Result<(), Error> {
        self.may_refer(values.iter().enumerate()).await?;
        if self.admits(&self.allowed, values).await? {
            Ok(())
        } else {
            Err(decision::refused(self.entry, self.actor, Operation::Create))
        }
    }

    /// Refuses a change that would move a row to where the caller may not change or see it.
    pub(in crate::engine) async fn may_become(&self, current: &Fields, next: &Next) -> Result<(), Error> {
        let Next::Changed(set) = next else {
            return Ok(());
        };
        self.may_refer(set.iter().map(|(field, value)| (*field, value))).await?;
        let admitted = self.seen()?.and(&self.allowed);
        if admitted.is_everything() {
            return Ok(());
        }
        let mut values = self.row_values(current)?;
        for (position, value) in set {
            values[*position] = value.clone();
        }
        if self.admits(&admitted, &values).await? {
            Ok(())
        } else {
            Err(decision::refused(self.entry, self.actor, Operation::Update))
        }
    }

    /// Refuses a reference to a row that the caller may not see, as if the row did not exist.
    pub(in crate::engine) async fn may_refer(
        &self,
        set: impl Iterator<Item = (usize, &Value)>,
    ) -> Result<(), Error> {
        let set: Vec<_> = set.filter(|(_, value)| !value.is_null()).collect();
        let mut absent = Vec::new();
        for relation in
            self.entry.links.iter().filter(|relation| relation.link.cardinality == Cardinality::One)
        {
            let Some((field, value)) = set.iter().find(|(field, _)| *field == relation.link.local) else {
                continue;
            };
            let target = self.engine.catalog.entry(relation.target);
            let is_there = match self.sights.of(relation.target).and_then(|sight| sight.rows.as_ref()) {
                None => false,
                _ if self.terms.deletes(relation.target, value) => false,
                // The storage itself enforces references that visibility does not restrict.
                Some(seen) if seen.is_everything() => true,
                Some(seen) => {
                    let key = Filter::Compare(relation.link.remote, Test::Eq((*value).clone()));
                    self.exists(target, seen.within(key)).await?
                }
            };
            if !is_there {
                absent.push(self.entry.schema.fields[*field].name.clone());
            }
        }
        if absent.is_empty() {
            return Ok(());
        }
        Err(StorageError::new(ErrorKind::ForeignKeyViolation).with_fields(absent).into())
    }

    /// A row's values by schema position; null where the model has no field.
    pub(in crate::engine) fn row_values(&self, row: &Fields) -> Result<Vec<Value>, Error> {
        let stored = self.definition().stored.iter().copied();
        let mut values = vec![Value::Null; self.entry.schema.fields.len()];
        for (position, value) in stored.clone().zip(self.stored_values(row, stored)?) {
            values[position] = value;
        }
        Ok(values)
    }

    pub(crate) async fn admits(&self, admitted: &RowFilter, values: &[Value]) -> Result<bool, Error> {
        self.holds(self.entry, admitted.filter(), values).await
    }

    /// Whether a filter admits a row of these values.
    pub(crate) fn holds<'a>(
        &'a self,
        entry: &'a Entry,
        filter: &'a Filter,
        values: &'a [Value],
    ) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(async move {
            Ok(match filter {
                Filter::All(filters) => {
                    for filter in filters {
                        if !self.holds(entry, filter, values).await? {
                            return Ok(false);
                        }
                    }
                    true
                }
                Filter::Any(filters) => {
                    for filter in filters {
                        if self.holds(entry, filter, values).await? {
                            return Ok(true);
                        }
                    }
                    false
                }
                Filter::Not(inner) => !self.holds(entry, inner, values).await?,
                Filter::Compare(..) | Filter::Search(..) => {
                    decided(filter, values, &|_| true).unwrap_or_default()
                }
                Filter::Related(by, inner) => {
                    let local = &values[by.0.local];
                    let relation =
                        entry.links.iter().find(|relation| std::sync::Arc::ptr_eq(&relation.link, &by.0));
                    match relation {
                        Some(relation) if !local.is_null() => {
                            let target = self.engine.catalog.entry(relation.target);
                            let key = Filter::Compare(by.0.remote, Test::Eq(local.clone()));
                            self.exists(target, key.and(Filter::clone(inner))).await?
                        }
                        _ => false,
                    }
                }
            })
        })
    }

    async fn exists(&self, target: &Entry, filter: Filter) -> Result<bool, Error> {
        for values in self.terms.rows_made(target.position) {
            if self.holds(target, &filter, &values).await? {
                return Ok(true);
            }
        }
        let query = Query {
            filter,
            sort: Vec::new(),
            fields: vec![target.schema.id],
            position: Position::Start,
            limit: 1,
            ..Query::all(target.schema.clone())
        };
        // The rule's own query, independent of the caller's visibility.
        let mut query = RowFilter::unrestricted().query(query);
        query.resolve(target, &self.engine.catalog).await?;
        Ok(target.storage.fetch(&query, &mut Vec::new()).await?.len > 0)
    }
}
