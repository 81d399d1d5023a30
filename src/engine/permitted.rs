//! The operations that one caller is permitted, for the caller's own API document.

use super::mask::Mask;
use super::{Engine, decision, rules};
use crate::access::{Actor, Verdict};
use crate::resource::{Operation, Right};

/// The fields and operations of a resource that one caller is permitted.
#[derive(Debug)]
pub(crate) struct PermittedOperations {
    pub(crate) mask: Mask,
    /// The operations that are allowed on some rows at least.
    pub(crate) rights: Vec<Right>,
}

impl Engine {
    /// The permitted operations of a caller for each resource, in the catalog's order.
    pub(crate) async fn offers(&self, actor: &Actor) -> Vec<PermittedOperations> {
        let mut offers = Vec::with_capacity(self.catalog.entries().len());
        for entry in self.catalog.entries() {
            let mask = rules::field_mask(&self.catalog, entry, actor).await;
            let mut rights = Vec::new();
            let may = async |right: Right| {
                !matches!(decision::decide(&self.catalog, entry, actor, right).await, Verdict::Deny(_))
            };
            let reads = may(Operation::Read.into()).await;
            for right in Right::all(&entry.definition) {
                // A caller that may not read a resource may not list or change it either.
                if (reads || right.base() == Operation::Create) && may(right).await {
                    rights.push(right);
                }
            }
            offers.push(PermittedOperations { mask, rights });
        }
        offers
    }
}
