//! Filters through relations to other storages: looked up first, then compared by key.

use futures::future::BoxFuture;
use resourceful_contract::{Filter, Position, Query, RelatedBy, Sort, Test};

use super::entry::{Catalog, Entry};
use super::row_filter::RowFilter;
use crate::error::{Error, ErrorKind, Fault};

/// Limit of keys that a filter may match in another storage.
const MAX_KEYS: u32 = 10_000;

/// The filter in terms that the resource's own storage understands.
///
/// # Errors
/// Where a filter through another storage matches too many rows, or that storage fails.
pub(crate) async fn resolve(entry: &Entry, filter: Filter, catalog: &Catalog) -> Result<Filter, Error> {
    if is_cross_storage(entry, &filter, catalog) {
        resolve_node(entry, filter, catalog).await
    } else {
        Ok(filter)
    }
}

pub(crate) fn is_cross_storage(entry: &Entry, filter: &Filter, catalog: &Catalog) -> bool {
    match filter {
        Filter::All(filters) | Filter::Any(filters) => {
            filters.iter().any(|filter| is_cross_storage(entry, filter, catalog))
        }
        Filter::Not(inner) => is_cross_storage(entry, inner, catalog),
        Filter::Related(by, inner) => match target(entry, by, catalog) {
            Some((target, is_joinable)) => !is_joinable || is_cross_storage(target, inner, catalog),
            None => false,
        },
        Filter::Compare(..) | Filter::Search(..) => false,
    }
}

fn target<'a>(entry: &Entry, by: &RelatedBy, catalog: &'a Catalog) -> Option<(&'a Entry, bool)> {
    let relation = entry.links.iter().find(|relation| std::sync::Arc::ptr_eq(&relation.link, &by.0))?;
    Some((catalog.entry(relation.target), relation.is_joinable))
}

fn resolve_node<'a>(
    entry: &'a Entry,
    filter: Filter,
    catalog: &'a Catalog,
) -> BoxFuture<'a, Result<Filter, Error>> {
    Box::pin(async move {
        Ok(match filter {
            Filter::All(filters) => Filter::All(resolve_nodes(entry, filters, catalog).await?),
            Filter::Any(filters) => Filter::Any(resolve_nodes(entry, filters, catalog).await?),
            Filter::Not(inner) => Filter::Not(Box::new(resolve_node(entry, *inner, catalog).await?)),
            Filter::Related(by, inner) => match target(entry, &by, catalog) {
                Some((target, is_joinable)) => {
                    let inner = resolve_node(target, *inner, catalog).await?;
                    if is_joinable {
                        Filter::Related(by, Box::new(inner))
                    } else {
                        key_filter(target, &by, inner).await?
                    }
                }
                None => Filter::nothing(),
            },
            leaf => leaf,
        })
    })
}

async fn resolve_nodes(entry: &Entry, filters: Vec<Filter>, catalog: &Catalog) -> Result<Vec<Filter>, Error> {
    let mut resolved = Vec::with_capacity(filters.len());
    for filter in filters {
        resolved.push(resolve_node(entry, filter, catalog).await?);
    }
    Ok(resolved)
}

async fn key_filter(target: &Entry, by: &RelatedBy, inner: Filter) -> Result<Filter, Error> {
    let link = &by.0;
    let query = Query {
        schema: target.schema.clone(),
        filter: inner.and(Filter::Compare(link.remote, Test::IsNull(false))),
        sort: vec![Sort::ascending(target.schema.id)],
        fields: vec![target.schema.id],
        includes: Vec::new(),
        keys: vec![link.remote],
        versions: false,
        position: Position::Start,
        limit: MAX_KEYS,
        count: None,
    };
    // The filter already contains the visibility of these rows.
    let query = RowFilter::unrestricted().guard_query(query);
    let rows = target.storage.fetch(&query, &mut Vec::new()).await?;
    if rows.more {
        let detail = format!("More than {MAX_KEYS} `{}` match: narrow this filter.", link.target.name);
        return Err(Error::new(ErrorKind::BadRequest, "invalid-query", detail.clone())
            .with_faults(vec![Fault::parameter(format!("{}.…", link.name), "limit", detail)]));
    }
    let mut values: Vec<_> = rows.keys.into_iter().flatten().collect();
    values.sort_by(resourceful_contract::Value::compare);
    values.dedup();
    Ok(Filter::Compare(link.local, Test::In(values)))
}
