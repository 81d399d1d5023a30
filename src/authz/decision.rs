//! Authorization decisions: the rows that an operation is permitted on, and what the caller may read.

use futures::future::BoxFuture;

use super::rules;
use crate::access::Operation;
use crate::access::{Actor, CheckRequest, Verdict};
use crate::catalog::Mask;
use crate::catalog::RowFilter;
use crate::catalog::{Catalog, Entry};
use crate::catalog::{Visibilities, Visibility};
use crate::error::{Error, ErrorKind};
use crate::query;
use crate::query::Deleted;
use crate::resource::Right;

/// Denial reason for a client whose credential has no scope for the operation, whatever the actor itself may do.
pub(crate) const MISSING_SCOPE: &str = "no scope of the credential covers it";

/// Evaluates the rules of an operation for a caller.
pub(crate) async fn decide(
    catalog: &Catalog,
    entry: &Entry,
    actor: &Actor,
    right: impl Into<Right>,
) -> Verdict {
    let right = right.into();
    let (rule, operation) = (entry.rights().of(right), right.base_operation());
    if !right.is_covered(entry.definition.as_ref(), actor) {
        return Verdict::Deny(MISSING_SCOPE.into());
    }
    if let Some(verdict) = rule.try_decide(actor) {
        return verdict;
    }
    // Boxed, so that rules which decide at once do not pay for the size of this future.
    let evaluation: BoxFuture<'_, Verdict> = Box::pin(async move {
        let request = CheckRequest { actor: actor.clone(), resource: entry.name.clone(), operation };
        let read = |filter: &serde_json::Value| query::trusted_filter(catalog, entry, filter);
        rule.decide(&request, &read, None).await
    });
    evaluation.await
}

async fn visibility(catalog: &Catalog, entry: &Entry, actor: &Actor, list: Option<&Verdict>) -> Visibility {
    let read = decide(catalog, entry, actor, Operation::Read).await;
    let list = match list {
        Some(list) => list.clone(),
        None => decide(catalog, entry, actor, Operation::List).await,
    };
    let listed = read.clone().and(list);
    Visibility {
        rows: without_deleted(entry, RowFilter::of(&read)),
        listed: without_deleted(entry, RowFilter::of(&listed)),
        mask: rules::field_mask(catalog, entry, actor).await,
    }
}

/// Restricts the rows to those that are not deleted.
fn without_deleted(entry: &Entry, rows: Option<RowFilter>) -> Option<RowFilter> {
    match entry.definition.deleted_at {
        Some(field) => rows.map(|rows| rows.and(&RowFilter::where_deleted(field, false))),
        None => rows,
    }
}

/// A caller's visibility of one resource including deleted items, or of deleted items only.
///
/// # Errors
/// Where the caller may see no deleted items.
pub(crate) async fn visibility_with_deleted(
    catalog: &Catalog,
    entry: &Entry,
    actor: &Actor,
    mask: Mask,
    deleted: Deleted,
) -> Result<Visibility, Error> {
    let allowed =
        allowed_rows(decide(catalog, entry, actor, Right::Deleted).await, entry, actor, Right::Deleted)?;
    let read = decide(catalog, entry, actor, Operation::Read).await;
    let listed = read.clone().and(decide(catalog, entry, actor, Operation::List).await);
    let Some(field) = entry.definition.deleted_at else { return Err(Error::not_found()) };
    let deleted_rows = RowFilter::where_deleted(field, true).and(&allowed);
    let of = |rows: Option<RowFilter>| match deleted {
        Deleted::Only => rows.map(|rows| rows.and(&deleted_rows)),
        Deleted::Include => {
            rows.map(|rows| rows.and(&RowFilter::where_deleted(field, false).or(&deleted_rows)))
        }
    };
    Ok(Visibility { rows: of(RowFilter::of(&read)), listed: of(RowFilter::of(&listed)), mask })
}

/// Authorizes an operation: the rows that it is allowed on, and the caller's visibility of its resource and of all
/// related resources that a query can reach.
///
/// # Errors
/// Where it is allowed on no row.
pub(crate) async fn authorize(
    catalog: &Catalog,
    entry: &Entry,
    actor: &Actor,
    right: Right,
    with_related: bool,
) -> Result<(RowFilter, Visibilities), Error> {
    let verdict = decide(catalog, entry, actor, right).await;
    // Each rule is evaluated only once.
    let requested = match right {
        Right::Operation(Operation::Read) => Visibility {
            rows: without_deleted(entry, RowFilter::of(&verdict)),
            listed: None,
            mask: rules::field_mask(catalog, entry, actor).await,
        },
        Right::Operation(Operation::List) => visibility(catalog, entry, actor, Some(&verdict)).await,
        _ => visibility(catalog, entry, actor, None).await,
    };
    let allowed = allowed_rows(verdict, entry, actor, right)?;
    let mut visibilities = Visibilities { resource: entry.position, requested, related: Vec::new() };
    if with_related && !entry.links.is_empty() {
        // Boxed, so that a request without relations does not pay for the size of this future.
        Box::pin(add_related(catalog, entry, actor, &mut visibilities)).await;
    }
    Ok((allowed, visibilities))
}

async fn add_related(catalog: &Catalog, entry: &Entry, actor: &Actor, visibilities: &mut Visibilities) {
    const MAX_DEPTH: usize = 3;
    let mut last = vec![entry.position];
    for _ in 0..MAX_DEPTH {
        let mut next = Vec::new();
        for position in last {
            for relation in &catalog.entry(position).links {
                let target = relation.target;
                let is_requested = target == visibilities.resource;
                if !next.contains(&target) && (is_requested || visibilities.of(target).is_none()) {
                    let visibility = visibility(catalog, catalog.entry(target), actor, None).await;
                    if is_requested {
                        visibilities.requested = visibility;
                    } else {
                        visibilities.related.push((target, visibility));
                    }
                    next.push(target);
                }
            }
        }
        last = next;
    }
}

/// The rows that a verdict allows.
///
/// # Errors
/// Where it allows none: 401 for anonymous callers, 403 for the others.
pub(crate) fn allowed_rows(
    verdict: Verdict,
    entry: &Entry,
    actor: &Actor,
    right: Right,
) -> Result<RowFilter, Error> {
    RowFilter::try_from_verdict(verdict)
        .map_err(|reason| denied(entry, actor, right).with_source(reason.into_owned()))
}

/// The error for a caller to whom an operation is not permitted on any row.
pub(crate) fn denied(entry: &Entry, actor: &Actor, right: impl Into<Right>) -> Error {
    if actor.is_anonymous() {
        return Error::new(ErrorKind::Unauthenticated, "unauthenticated", "This requires a credential.");
    }
    let definition = &entry.definition;
    let detail = format!("You may not {} {}.", right.into().name(definition), definition.name());
    Error::new(ErrorKind::Forbidden, "forbidden", detail)
}
