//! Which part of the catalog a document tells of: all that is declared, or what one caller is offered.

use super::operations::Requirements;
use crate::engine::{Catalog, Entry, LinkedRelation, PermittedOperations};
use crate::http::Endpoint;
use crate::resource::{Operation, Right};

/// The catalog as a document shows it.
#[derive(Debug)]
pub(super) struct Lens<'a> {
    pub(super) catalog: &'a Catalog,
    /// By the catalog's positions; `None` shows everything that is declared.
    offers: Option<Vec<PermittedOperations>>,
    /// Whether the caller may ask why.
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

    /// Whether something that may be done is there.
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

    /// Whether anything of a resource is there.
    pub(super) fn shows_resource(&self, entry: &Entry) -> bool {
        self.of_offer(entry, |offer| !offer.rights.is_empty())
    }

    /// Whether a field is there.
    pub(super) fn shows(&self, entry: &Entry, field: usize) -> bool {
        self.of_offer(entry, |offer| offer.mask.shows(field))
    }

    /// Whether every answer with whole items has a field, whoever asks.
    pub(super) fn always_shows(&self, entry: &Entry, field: usize) -> bool {
        let mut rules = entry.definition.field_rules.iter();
        match &self.offers {
            Some(_) => self.shows(entry, field),
            None => !rules.any(|rule| rule.field == field && rule.visible_to.is_some()),
        }
    }

    /// Whether a field may be filtered and sorted by, as far as its value may be told.
    pub(super) fn tells(&self, entry: &Entry, field: usize) -> bool {
        self.of_offer(entry, |offer| offer.mask.tells(field))
    }

    /// Whether a field may be set.
    pub(super) fn takes(&self, entry: &Entry, field: usize) -> bool {
        self.of_offer(entry, |offer| offer.mask.shows(field) && offer.mask.takes(field))
    }

    /// Whether a relation is there: both of its keys are told.
    fn follows(&self, entry: &Entry, relation: &LinkedRelation) -> bool {
        let target = self.catalog.entry(relation.target);
        self.tells(entry, relation.link.local) && self.tells(target, relation.link.remote)
    }

    /// Whether the fields of a relation's target may be filtered by. A document for everyone names what any caller of
    /// the list may use.
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

    /// Whether there is anything to search.
    pub(super) fn searches(&self, entry: &Entry) -> bool {
        entry.definition.searchable.iter().any(|field| self.tells(entry, *field))
    }
}
