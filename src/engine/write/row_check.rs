//! Checks that a row, in its state after a write, is one that the caller may write.

use futures::future::BoxFuture;
use resourceful_contract::{
    Cardinality, ErrorKind, Filter, Position, Query, StorageError, Test, Value, fold,
};

use super::input::Fields;
use super::update::Difference;
use crate::access::Operation;
use crate::authz::decision;
use crate::catalog::Entry;
use crate::catalog::RowFilter;
use crate::engine::Call;
use crate::error::Error;

/// Whether a filter admits a row of which only some values are known; `None` where that depends on an unknown value or on
/// a relation.
pub(crate) fn evaluate_partial(
    filter: &Filter,
    values: &[Value],
    is_known: &dyn Fn(usize) -> bool,
) -> Option<bool> {
    // One filter that settles the result does so whatever the others say.
    let combine = |filters: &[Filter], by: bool| {
        let mut all = Some(!by);
        for filter in filters {
            match evaluate_partial(filter, values, is_known) {
                Some(one) if one == by => return Some(by),
                Some(_) => {}
                None => all = None,
            }
        }
        all
    };
    match filter {
        Filter::All(filters) => combine(filters, false),
        Filter::Any(filters) => combine(filters, true),
        Filter::Not(inner) => evaluate_partial(inner, values, is_known).map(|is_match| !is_match),
        Filter::Compare(field, test) => is_known(*field).then(|| test.passes(&values[*field])),
        Filter::Search(fields, word) => {
            let is_match =
                |field: &usize| matches!(&values[*field], Value::Text(text) if fold::contains(text, word));
            fields.iter().all(|field| is_known(*field)).then(|| fields.iter().any(is_match))
        }
        Filter::Related(..) => None,
    }
}

impl Call<'_> {
    /// Refuses a new row that the caller may not create.
    pub(in crate::engine) async fn check_create(&self, values: &[Value]) -> Result<(), Error> {
        self.check_references(values.iter().enumerate()).await?;
        if self.admits(&self.allowed, values).await? {
            Ok(())
        } else {
            Err(decision::denied(self.entry, self.actor, Operation::Create))
        }
    }

    /// Refuses a change that would move a row to where the caller may not change or see it.
    pub(in crate::engine) async fn check_update(
        &self,
        current: &Fields,
        next: &Difference,
    ) -> Result<(), Error> {
        let Difference::Changed(set) = next else {
            return Ok(());
        };
        self.check_references(set.iter().map(|(field, value)| (*field, value))).await?;
        let admitted = self.visible_rows()?.and(&self.allowed);
        if admitted.is_unrestricted() {
            return Ok(());
        }
        let mut values = self.row_values(current)?;
        for (position, value) in set {
            values[*position] = value.clone();
        }
        if self.admits(&admitted, &values).await? {
            Ok(())
        } else {
            Err(decision::denied(self.entry, self.actor, Operation::Update))
        }
    }

    /// Refuses a reference to a row that the caller may not see, as if the row did not exist.
    pub(in crate::engine) async fn check_references(
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
            let is_visible =
                match self.visibilities.of(relation.target).and_then(|visibility| visibility.rows.as_ref()) {
                    None => false,
                    _ if self.context.is_deleted(relation.target, value) => false,
                    // The storage itself enforces references that visibility does not restrict.
                    Some(visible_rows) if visible_rows.is_unrestricted() => true,
                    Some(visible_rows) => {
                        let key = Filter::Compare(relation.link.remote, Test::Eq((*value).clone()));
                        self.exists(target, visible_rows.restrict(key)).await?
                    }
                };
            if !is_visible {
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
        let stored = self.definition().model_fields.iter().copied();
        let mut values = vec![Value::Null; self.entry.schema.fields.len()];
        for (position, value) in stored.clone().zip(self.stored_values(row, stored)?) {
            values[position] = value;
        }
        Ok(values)
    }

    pub(crate) async fn admits(&self, admitted: &RowFilter, values: &[Value]) -> Result<bool, Error> {
        self.filter_matches(self.entry, admitted.filter(), values).await
    }

    /// Whether a filter admits a row of these values.
    pub(crate) fn filter_matches<'a>(
        &'a self,
        entry: &'a Entry,
        filter: &'a Filter,
        values: &'a [Value],
    ) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(async move {
            Ok(match filter {
                Filter::All(filters) => {
                    for filter in filters {
                        if !self.filter_matches(entry, filter, values).await? {
                            return Ok(false);
                        }
                    }
                    true
                }
                Filter::Any(filters) => {
                    for filter in filters {
                        if self.filter_matches(entry, filter, values).await? {
                            return Ok(true);
                        }
                    }
                    false
                }
                Filter::Not(inner) => !self.filter_matches(entry, inner, values).await?,
                Filter::Compare(..) | Filter::Search(..) => {
                    evaluate_partial(filter, values, &|_| true).unwrap_or_default()
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
        for values in self.context.created_rows(target.position) {
            if self.filter_matches(target, &filter, &values).await? {
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
        let mut query = RowFilter::unrestricted().guard_query(query);
        query.resolve(target, &self.engine.catalog).await?;
        Ok(target.storage.fetch(&query, &mut Vec::new()).await?.len > 0)
    }
}
