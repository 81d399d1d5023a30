//! What one caller is offered, for the document that is theirs.

use super::rights::Mask;
use super::{Engine, visibility};
use crate::access::{Actor, Verdict};
use crate::resource::{Operation, Right};

/// What one caller may see and do of a resource.
#[derive(Debug)]
pub(crate) struct PermittedOperations {
    pub(crate) mask: Mask,
    /// What is allowed on some rows at least.
    pub(crate) rights: Vec<Right>,
}

impl Engine {
    /// What a caller is offered of each resource, in the catalog's order.
    pub(crate) async fn offers(&self, actor: &Actor) -> Vec<PermittedOperations> {
        let mut offers = Vec::with_capacity(self.catalog.entries().len());
        for entry in self.catalog.entries() {
            let mask = entry.rights().mask(&self.catalog, entry, actor).await;
            let mut rights = Vec::new();
            let may = async |right: Right| {
                !matches!(visibility::decide(&self.catalog, entry, actor, right).await, Verdict::Deny(_))
            };
            let reads = may(Operation::Read.into()).await;
            for right in Right::all(&entry.definition) {
                // What one may not see one may not list or change either.
                if (reads || right.base() == Operation::Create) && may(right).await {
                    rights.push(right);
                }
            }
            offers.push(PermittedOperations { mask, rights });
        }
        offers
    }
}
