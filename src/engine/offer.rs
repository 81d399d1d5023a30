//! What one caller is offered, for the document that is theirs.

use super::rights::Mask;
use super::{Engine, sight};
use crate::access::{Actor, Verdict};
use crate::resource::Operation;

/// What one caller may see and do of a resource.
#[derive(Debug)]
pub(crate) struct Offer {
    pub(crate) mask: Mask,
    /// The operations that are allowed on some rows at least.
    pub(crate) operations: Vec<Operation>,
}

impl Engine {
    /// What a caller is offered of each resource, in the catalog's order.
    pub(crate) async fn offers(&self, actor: &Actor) -> Vec<Offer> {
        let mut offers = Vec::with_capacity(self.catalog.entries().len());
        for entry in self.catalog.entries() {
            let mask = entry.rights().mask(&self.catalog, entry, actor).await;
            let mut operations = Vec::new();
            let may = async |operation| {
                !matches!(sight::decide(&self.catalog, entry, actor, operation).await, Verdict::Deny(_))
            };
            let reads = may(Operation::Read).await;
            for operation in Operation::ALL {
                // What one may not see one may not list or change either.
                if (reads || operation == Operation::Create) && may(operation).await {
                    operations.push(operation);
                }
            }
            offers.push(Offer { mask, operations });
        }
        offers
    }
}
