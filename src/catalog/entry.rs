//! The catalog: the resources of one application, linked to each other.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use resourceful_contract::{Filter, Link, Schema};

use super::guarded_storage::GuardedStorage;
use super::rights::Rights;
use crate::cache::{Tag, WriteObserver};
use crate::error::{Error, ErrorKind, Fault};
use crate::nearest::suggest;
use crate::resource::{Definition, Fill};

/// Every resource, by position and by name.
#[derive(Debug)]
pub(crate) struct Catalog {
    pub(super) entries: Vec<Arc<Entry>>,
    /// Tracks changes, where responses are cached.
    pub(crate) write_observer: Option<Arc<WriteObserver>>,
}

/// A resource as part of an application.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Its position in the catalog.
    pub(crate) position: usize,
    pub(crate) name: Arc<str>,
    pub(crate) definition: Arc<Definition>,
    /// The definition's schema, with the references that follow from its relations.
    pub(crate) schema: Arc<Schema>,
    pub(crate) storage: GuardedStorage,
    pub(crate) links: Vec<Arc<LinkedRelation>>,
    /// Digest that identifies this declaration on every node.
    pub(crate) digest: [u8; 32],
    /// The tags of each of its cached responses.
    pub(crate) tags: Vec<Tag>,
    /// Compiled when every resource is linked, since a rule may refer to related resources.
    pub(super) rights: OnceLock<Rights>,
    /// The filters of its list parameters, in the definition's order. Compiled when every resource is linked.
    pub(super) list_filters: OnceLock<Vec<ListFilters>>,
    /// Approximate size of a row's JSON, to allocate response buffers in advance.
    pub(super) row_bytes: AtomicUsize,
}

/// A relation with its target resolved.
#[derive(Debug)]
pub(crate) struct LinkedRelation {
    pub(crate) link: Arc<Link>,
    /// Position of the other resource in the catalog.
    pub(crate) target: usize,
    /// Whether both sides share a storage that can evaluate the relation by itself.
    pub(crate) is_joinable: bool,
    pub(crate) limit: u32,
}

/// The filters that the values of a list parameter stand for.
#[derive(Debug)]
pub(crate) struct ListFilters {
    /// The filter of a request without the parameter, where it has one.
    pub(crate) default: Option<Filter>,
    /// In the order of the parameter's values.
    pub(crate) values: Vec<Filter>,
}

impl Entry {
    /// Sets the filters of its list parameters, once, when every resource is linked.
    pub(crate) fn set_list_filters(&self, filters: Vec<ListFilters>) {
        let set = self.list_filters.set(filters);
        debug_assert!(set.is_ok(), "the list parameters of an entry are compiled once");
    }

    pub(crate) fn list_filters(&self) -> &[ListFilters] {
        self.list_filters.get().map_or(&[], Vec::as_slice)
    }

    /// Sets the compiled rights, once, when every resource is linked.
    pub(crate) fn set_rights(&self, rights: Rights) {
        let set = self.rights.set(rights);
        debug_assert!(set.is_ok(), "the rights of an entry are compiled once");
    }

    pub(crate) fn rights(&self) -> &Rights {
        self.rights.get().expect("the rights of every entry are compiled before requests are accepted")
    }

    pub(crate) fn response_buffer(&self, rows: usize) -> Vec<u8> {
        Vec::with_capacity(128 + rows * self.row_bytes.load(Ordering::Relaxed))
    }

    /// The field that holds a row's tenant.
    pub(crate) fn tenant_field(&self) -> Option<usize> {
        tenant_field(&self.definition)
    }

    /// Records the size of rows with a margin, so that most responses fit into the buffer.
    pub(crate) fn record_size(&self, bytes: usize, rows: usize) {
        if let Some(average) = bytes.checked_div(rows) {
            let generous = (average + average / 8).min(8_192);
            if self.row_bytes.load(Ordering::Relaxed) < generous {
                self.row_bytes.store(generous, Ordering::Relaxed);
            }
        }
    }
}

impl Catalog {
    pub(crate) fn entry(&self, position: usize) -> &Arc<Entry> {
        &self.entries[position]
    }

    pub(crate) fn entries(&self) -> &[Arc<Entry>] {
        &self.entries
    }

    /// The resource of this name.
    ///
    /// # Errors
    /// 404, where there is none.
    pub(crate) fn find(&self, resource: &str) -> Result<&Arc<Entry>, Error> {
        self.entries().iter().find(|entry| entry.definition.name() == resource).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "not-found", format!("There is no resource `{resource}`."))
        })
    }

    /// The fault of a member `resource` that names no resource.
    pub(crate) fn unknown_resource(&self, name: &str) -> Fault {
        let names = self.entries().iter().map(|entry| &*entry.name);
        let detail = suggest(format!("There is no resource `{name}`."), name, names);
        Fault::pointer("/resource", "unknown", detail)
    }

    /// The storages that keep records of their resources' changes, without duplicates.
    pub(crate) fn recording_storages(&self) -> Vec<GuardedStorage> {
        let mut storages: Vec<GuardedStorage> = Vec::new();
        for entry in self.entries().iter().filter(|entry| entry.definition.needs_library_tables()) {
            if !storages.iter().any(|known| known.is_same(&entry.storage)) {
                storages.push(entry.storage.clone());
            }
        }
        storages
    }

    /// Positions in topological order: each table after the tables that it references, as far as there is such an order.
    pub(crate) fn creation_order(&self) -> Vec<usize> {
        let mut order = Vec::with_capacity(self.entries.len());
        let mut remaining: Vec<usize> = (0..self.entries.len()).collect();
        while !remaining.is_empty() {
            let ready = remaining.iter().position(|&candidate| {
                let schema = &self.entries[candidate].schema;
                schema.references.iter().all(|reference| {
                    reference.table == schema.table
                        || remaining.iter().all(|&other| {
                            other == candidate || self.entries[other].schema.table != reference.table
                        })
                })
            });
            // Tables that reference each other in a cycle come in the order of declaration.
            order.push(remaining.remove(ready.unwrap_or(0)));
        }
        order
    }
}

pub(crate) fn tenant_field(definition: &Definition) -> Option<usize> {
    definition.fills.iter().find(|(_, fill)| *fill == Fill::Tenant).map(|(field, _)| *field)
}
