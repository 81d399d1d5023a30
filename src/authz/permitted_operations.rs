//! The operations that one caller is permitted, for the caller's own API document.

use super::{decision, rules};
use crate::access::Operation;
use crate::access::{Actor, Verdict};
use crate::catalog::{Catalog, Mask};
use crate::resource::Right;

/// The fields and operations of a resource that one caller is permitted.
#[derive(Debug)]
pub(crate) struct PermittedOperations {
    pub(crate) mask: Mask,
    /// The operations that are allowed on some rows at least.
    pub(crate) rights: Vec<Right>,
}

/// The permitted operations of a caller for each resource, in the catalog's order.
pub(crate) async fn permitted_operations(catalog: &Catalog, actor: &Actor) -> Vec<PermittedOperations> {
    let mut permitted = Vec::with_capacity(catalog.entries().len());
    for entry in catalog.entries() {
        let mask = rules::field_mask(catalog, entry, actor).await;
        let mut rights = Vec::new();
        let may = async |right: Right| {
            !matches!(decision::decide(catalog, entry, actor, right).await, Verdict::Deny(_))
        };
        let can_read = may(Operation::Read.into()).await;
        for right in Right::all(&entry.definition) {
            // A caller that may not read a resource may not list or change it either.
            if (can_read || right.base_operation() == Operation::Create) && may(right).await {
                rights.push(right);
            }
        }
        permitted.push(PermittedOperations { mask, rights });
    }
    permitted
}
