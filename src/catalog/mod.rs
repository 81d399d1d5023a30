//! The catalog: the resources of one application, linked to each other, and guarded access to their rows.

mod cross_storage;
mod entry;
mod guarded_storage;
mod link;
mod mask;
mod rights;
mod row_filter;
mod visibility;

pub(crate) use entry::{Catalog, Entry, LinkedRelation, ListFilters};
pub(crate) use guarded_storage::GuardedStorage;
pub(crate) use mask::{FieldRestrictions, Mask};
pub(crate) use rights::{FieldRights, Rights};
pub(crate) use row_filter::{GuardedChange, RowFilter};
pub(crate) use visibility::{Visibilities, Visibility};
