//! The part of the catalog that a document describes: everything declared, or what one caller is permitted.

use super::operations::Requirements;
use crate::access::Operation;
use crate::authz::PermittedOperations;
use crate::catalog::{Catalog, Entry, LinkedRelation};
use crate::http::Endpoint;
use crate::resource::Right;

/// The catalog, limited to what a document describes.
#[derive(Debug)]
pub(super) struct Lens<'a> {
    pub(super) catalog: &'a Catalog,
    /// One caller's permitted operations by catalog position; `None` shows everything declared.
    offers: Option<Vec<PermittedOperations>>,
    /// Whether the caller may use `POST /_explain`.
    pub(super) explains: bool,
}

impl<'a> Lens<'a> {
    pub(super) const fn everything(catalog: &'a Catalog) -> Self {
        Self { catalog, offers: None, explains: true }
    }

    pub(super) const fn of(catalog: &'a Catalog, offers: Vec<PermittedOperations>, explains: bool) -> Self {
        Self { catalog, offers: Some(offers), explains }
    }

    fn of_offer(&self, entry: &Entry, says: impl FnOnce(&PermittedOperations) -> bool) -> bool {
        self.offers.as_ref().is_none_or(|offers| says(&offers[entry.position]))
    }

    /// Whether a right is offered.
    pub(super) fn offers(&self, entry: &Entry, right: impl Into<Right>) -> bool {
        let right = right.into();
        self.of_offer(entry, |offer| offer.rights.contains(&right))
    }

    /// The endpoints of a resource, without closed ones. Children and subtrees need a parent field that is visible.
    pub(super) fn endpoints(&self, entry: &'a Entry) -> impl Iterator<Item = Endpoint> {
        let tells_below = entry.definition.tree.is_some_and(|tree| self.tells(entry, tree.parent));
        Endpoint::of(&entry.definition).filter(move |endpoint| {
            let is_below = matches!(endpoint, Endpoint::Children | Endpoint::Subtree);
            let is_closed = Requirements::of(entry, *endpoint).iter().all(|requirement| requirement.closed);
            !is_closed && self.offers(entry, endpoint.right()) && (!is_below || tells_below)
        })
    }

    /// Whether any right on a resource is offered.
    pub(super) fn shows_resource(&self, entry: &Entry) -> bool {
        self.of_offer(entry, |offer| !offer.rights.is_empty())
    }

    /// Whether a field is visible.
    pub(super) fn shows(&self, entry: &Entry, field: usize) -> bool {
        self.of_offer(entry, |offer| offer.mask.shows(field))
    }

    /// Whether every response with whole items has a field, for all callers of the document.
    pub(super) fn always_shows(&self, entry: &Entry, field: usize) -> bool {
        let mut rules = entry.definition.field_rules.iter();
        match &self.offers {
            Some(_) => self.shows(entry, field),
            None => !rules.any(|rule| rule.field == field && rule.visible_to.is_some()),
        }
    }

    /// Whether a field's value may be revealed, as filters and sorts require.
    pub(super) fn tells(&self, entry: &Entry, field: usize) -> bool {
        self.of_offer(entry, |offer| offer.mask.tells(field))
    }

    /// Whether a field is visible and may be set.
    pub(super) fn takes(&self, entry: &Entry, field: usize) -> bool {
        self.of_offer(entry, |offer| offer.mask.shows(field) && offer.mask.takes(field))
    }

    /// Whether a relation is visible: the values of both of its keys may be revealed.
    fn follows(&self, entry: &Entry, relation: &LinkedRelation) -> bool {
        let target = self.catalog.entry(relation.target);
        self.tells(entry, relation.link.local) && self.tells(target, relation.link.remote)
    }

    /// Whether lists can be filtered by the fields of a relation's target. A document for all callers names what every
    /// caller of the list may use.
    pub(super) fn leads(&self, from: &Entry, relation: &LinkedRelation) -> bool {
        let to = self.catalog.entry(relation.target);
        match &self.offers {
            Some(_) => self.offers(to, Operation::List) && self.follows(from, relation),
            None => from.definition.needed(Operation::List) == to.definition.needed(Operation::List),
        }
    }

    /// The relations whose items may be included.
    pub(super) fn includes(&self, entry: &'a Entry) -> impl Iterator<Item = &'a LinkedRelation> {
        let links = entry.links.iter().map(AsRef::as_ref);
        links.filter(move |relation: &&LinkedRelation| {
            self.offers(self.catalog.entry(relation.target), Operation::Read) && self.follows(entry, relation)
        })
    }

    /// Whether any field can be searched.
    pub(super) fn searches(&self, entry: &Entry) -> bool {
        entry.definition.searchable.iter().any(|field| self.tells(entry, *field))
    }
}
