//! The part of the catalog that a document describes: everything declared, or what one caller is permitted.

use super::operations::Requirements;
use crate::access::Operation;
use crate::authz::PermittedOperations;
use crate::catalog::{Catalog, Entry, LinkedRelation};
use crate::http::Endpoint;
use crate::resource::Right;

/// The catalog, limited to what a document describes.
#[derive(Debug)]
pub(super) struct CatalogView<'a> {
    pub(super) catalog: &'a Catalog,
    /// One caller's permitted operations by catalog position; `None` shows everything declared.
    permitted: Option<Vec<PermittedOperations>>,
    /// Whether the caller may use `POST /_explain`.
    pub(super) can_explain: bool,
}

impl<'a> CatalogView<'a> {
    pub(super) const fn unrestricted(catalog: &'a Catalog) -> Self {
        Self { catalog, permitted: None, can_explain: true }
    }

    pub(super) const fn of(
        catalog: &'a Catalog,
        permitted: Vec<PermittedOperations>,
        can_explain: bool,
    ) -> Self {
        Self { catalog, permitted: Some(permitted), can_explain }
    }

    fn check_permitted(&self, entry: &Entry, says: impl FnOnce(&PermittedOperations) -> bool) -> bool {
        self.permitted.as_ref().is_none_or(|permitted| says(&permitted[entry.position]))
    }

    /// Whether a right is offered.
    pub(super) fn is_permitted(&self, entry: &Entry, right: impl Into<Right>) -> bool {
        let right = right.into();
        self.check_permitted(entry, |operations| operations.rights.contains(&right))
    }

    /// The endpoints of a resource, without closed ones. Children and subtrees need a parent field that is visible.
    pub(super) fn endpoints(&self, entry: &'a Entry) -> impl Iterator<Item = Endpoint> {
        let can_reveal_parent = entry.definition.tree.is_some_and(|tree| self.can_reveal(entry, tree.parent));
        Endpoint::of(&entry.definition).filter(move |endpoint| {
            let needs_parent = matches!(endpoint, Endpoint::Children | Endpoint::Subtree);
            let is_closed =
                Requirements::of(entry, *endpoint).iter().all(|requirement| requirement.is_closed);
            !is_closed && self.is_permitted(entry, endpoint.right()) && (!needs_parent || can_reveal_parent)
        })
    }

    /// Whether any right on a resource is offered.
    pub(super) fn is_resource_visible(&self, entry: &Entry) -> bool {
        self.check_permitted(entry, |operations| !operations.rights.is_empty())
    }

    /// Whether a field is visible.
    pub(super) fn is_visible(&self, entry: &Entry, field: usize) -> bool {
        self.check_permitted(entry, |operations| operations.mask.is_visible(field))
    }

    /// Whether every response with whole items has a field, for all callers of the document.
    pub(super) fn is_always_visible(&self, entry: &Entry, field: usize) -> bool {
        let mut rules = entry.definition.field_rules.iter();
        match &self.permitted {
            Some(_) => self.is_visible(entry, field),
            None => !rules.any(|rule| rule.field == field && rule.visible_to.is_some()),
        }
    }

    /// Whether a field's value may be revealed, as filters and sorts require.
    pub(super) fn can_reveal(&self, entry: &Entry, field: usize) -> bool {
        self.check_permitted(entry, |operations| operations.mask.can_reveal(field))
    }

    /// Whether a field is visible and may be set.
    pub(super) fn can_write(&self, entry: &Entry, field: usize) -> bool {
        self.check_permitted(entry, |operations| {
            operations.mask.is_visible(field) && operations.mask.can_write(field)
        })
    }

    /// Whether a relation is visible: the values of both of its keys may be revealed.
    fn is_relation_visible(&self, entry: &Entry, relation: &LinkedRelation) -> bool {
        let target = self.catalog.entry(relation.target);
        self.can_reveal(entry, relation.link.local) && self.can_reveal(target, relation.link.remote)
    }

    /// Whether lists can be filtered by the fields of a relation's target. A document for all callers names what every
    /// caller of the list may use.
    pub(super) fn is_filterable_relation(&self, from: &Entry, relation: &LinkedRelation) -> bool {
        let to = self.catalog.entry(relation.target);
        match &self.permitted {
            Some(_) => self.is_permitted(to, Operation::List) && self.is_relation_visible(from, relation),
            None => {
                from.definition.effective_permission(Operation::List)
                    == to.definition.effective_permission(Operation::List)
            }
        }
    }

    /// The relations whose items may be included.
    pub(super) fn includable_relations(&self, entry: &'a Entry) -> impl Iterator<Item = &'a LinkedRelation> {
        let links = entry.links.iter().map(AsRef::as_ref);
        links.filter(move |relation: &&LinkedRelation| {
            self.is_permitted(self.catalog.entry(relation.target), Operation::Read)
                && self.is_relation_visible(entry, relation)
        })
    }

    /// Whether any field can be searched.
    pub(super) fn has_search(&self, entry: &Entry) -> bool {
        entry.definition.searchable.iter().any(|field| self.can_reveal(entry, *field))
    }
}
