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
pub(crate) const UNCOVERED: &str = "no scope of the credential covers it";

/// Evaluates the rules of an operation for a caller.
pub(crate) async fn decide(
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
        mask: rules::field_mask(catalog, entry, actor).await,
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
pub(crate) async fn with_deleted(
    catalog: &Catalog,
    entry: &Entry,
    actor: &Actor,
    mask: Mask,
    deleted: Deleted,
) -> Result<Visibility, Error> {
    let may = admitted(decide(catalog, entry, actor, Right::Deleted).await, entry, actor, Right::Deleted)?;
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
pub(crate) async fn enter(
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
            mask: rules::field_mask(catalog, entry, actor).await,
        },
        Right::Of(Operation::List) => sight(catalog, entry, actor, Some(&verdict)).await,
        _ => sight(catalog, entry, actor, None).await,
    };
    let allowed = admitted(verdict, entry, actor, right)?;
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

/// The rows that a verdict allows.
///
/// # Errors
/// Where it allows none: 401 for anonymous callers, 403 for the others.
pub(crate) fn admitted(
    verdict: Verdict,
    entry: &Entry,
    actor: &Actor,
    right: Right,
) -> Result<RowFilter, Error> {
    RowFilter::admitted(verdict)
        .map_err(|reason| refused(entry, actor, right).with_source(reason.into_owned()))
}

/// The error for a caller to whom an operation is not permitted on any row.
pub(crate) fn refused(entry: &Entry, actor: &Actor, right: impl Into<Right>) -> Error {
    if actor.is_anonymous() {
        return Error::new(ErrorKind::Unauthenticated, "unauthenticated", "This needs a credential.");
    }
    let definition = &entry.definition;
    let detail = format!("You may not {} {}.", right.into().name(definition), definition.name());
    Error::new(ErrorKind::Forbidden, "forbidden", detail)
}
