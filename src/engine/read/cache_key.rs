//! Cache keys and tags of cached responses.

use crate::resource::id_text;
use std::sync::Arc;

use resourceful_contract::{Filter, Schema};

use super::item::ItemQuery;
use crate::access::Operation;
use crate::cache::{Key, Lookup, Tag, tenant_of};
use crate::catalog::RowFilter;
use crate::catalog::Visibility;
use crate::catalog::{Entry, Mask};
use crate::digest;
use crate::digest::DigestInput;
use crate::engine::Call;
use crate::query::{ListRequest, Selection};

impl Call<'_> {
    /// The cache lookup for an item; `None` where its responses are not cached.
    pub(crate) fn item_lookup(&self, query: &ItemQuery) -> Option<Lookup> {
        let freshness = self.definition().cache.as_ref()?.freshness(Operation::Read)?;
        let ItemQuery { id, request } = query;
        if request.as_of.is_some() || request.deleted.is_some() {
            return None;
        }
        let mut input = self.key_scope(b"item", self.visibility().rows.as_ref()?, &request.selection);
        digest::add_value(&mut input, id);
        request.selection.add_to_digest(&mut input, &self.entry.schema);
        Some(Lookup { key: Key::of(input), freshness })
    }

    /// The tags of an item's response.
    pub(crate) fn item_tags(&self, query: &ItemQuery) -> Vec<Tag> {
        let table = &self.entry.schema.table;
        let mut tags = vec![Tag::row(table, &id_text(&query.id)), Tag::rows(table)];
        self.add_tags(self.visibility().rows.as_ref(), &query.request.selection, &mut tags);
        tags
    }

    /// The cache lookup for a list; `None` where its responses are not cached. `path` is part of the response's links.
    pub(crate) fn list_lookup(&self, request: &ListRequest, path: Option<&str>) -> Option<Lookup> {
        let freshness = self.definition().cache.as_ref()?.freshness(Operation::List)?;
        if request.deleted.is_some() {
            return None;
        }
        let mut input = self.key_scope(b"list", self.visibility().listed.as_ref()?, &request.selection);
        digest::add_optional_text(&mut input, path);
        request.add_to_digest(&mut input, &self.entry.schema);
        Some(Lookup { key: Key::of(input), freshness })
    }

    /// The tags of a list's response.
    pub(crate) fn list_tags(&self, request: &ListRequest) -> Vec<Tag> {
        let (table, listed) = (&self.entry.schema.table, self.visibility().listed.as_ref());
        let tenant = self
            .entry
            .tenant_field()
            .zip(listed)
            .and_then(|(field, listed)| tenant_of(listed.filter(), field));
        let mut tags = match tenant {
            Some(tenant) => vec![Tag::tenant(table, &id_text(tenant)), Tag::unknown_tenant(table)],
            None => vec![Tag::table(table)],
        };
        self.add_tags(listed, &request.selection, &mut tags);
        add_related_tags(&request.filter, &mut tags);
        tags
    }

    /// The other resources that an item's response includes, or that decide on its visibility.
    pub(crate) fn related_to_item(&self, query: &ItemQuery) -> Vec<Arc<str>> {
        let mut tables = Vec::new();
        related_tables(self.visibility().rows.as_ref().map_or(&EVERYTHING, RowFilter::filter), &mut tables);
        self.related_resources(&query.request.selection, tables)
    }

    /// The other resources that a list's response includes, that decide on its visibility, or that its filter refers to.
    pub(crate) fn related_to_list(&self, request: &ListRequest) -> Vec<Arc<str>> {
        let mut tables = Vec::new();
        related_tables(self.visibility().listed.as_ref().map_or(&EVERYTHING, RowFilter::filter), &mut tables);
        related_tables(&request.filter, &mut tables);
        self.related_resources(&request.selection, tables)
    }

    fn related_resources(&self, selection: &Selection, mut tables: Vec<String>) -> Vec<Arc<str>> {
        if tables.is_empty() && selection.includes.is_empty() {
            return Vec::new();
        }
        for relation in &selection.includes {
            tables.push(self.engine.catalog.entry(relation.target).schema.table.clone());
            if let Some(Visibility { rows: Some(rows), .. }) = self.visibilities.of(relation.target) {
                related_tables(rows.filter(), &mut tables);
            }
        }
        let entries = self.engine.catalog.entries().iter();
        entries.filter(|entry| tables.contains(&entry.schema.table)).map(|entry| entry.name.clone()).collect()
    }

    /// Whether other nodes can validate a cached response that shows this resource and the related ones: by the events of
    /// every change.
    pub(crate) fn can_share(&self, related: &[Arc<str>]) -> bool {
        let entries = self.engine.catalog.entries();
        let has_events = |entry: &Entry| {
            let table = &entry.schema.table;
            let of_table = entries.iter().filter(|other| other.schema.table == *table);
            of_table.into_iter().all(|other| other.definition.events)
        };
        let named_has_events =
            |name: &str| self.engine.catalog.find(name).is_ok_and(|entry| has_events(entry));
        let cache = self.definition().cache.as_ref();
        let mut causes = cache.iter().flat_map(|cache| &cache.invalidated_by);
        self.engine.outbox.storages().len() == 1
            && has_events(self.entry)
            && related.iter().all(|name| named_has_events(name))
            && causes.all(|cause| named_has_events(cause.split('.').next().unwrap_or_default()))
    }

    /// The declaration, the caller, and everything that the caller's rights come to: two callers with the same rights
    /// share a response, two with different rights never do.
    fn key_scope(&self, kind: &[u8], rows: &RowFilter, selection: &Selection) -> DigestInput {
        let mut input = DigestInput::default();
        input.update(kind).update(&self.entry.digest);
        let actor = self.actor;
        input.update(&[u8::from(actor.is_anonymous()), u8::from(actor.is_elevated())]);
        digest::add_optional_text(&mut input, actor.tenant());
        digest_visibility(&mut input, &self.entry.schema, rows.filter(), self.mask());
        for relation in &selection.includes {
            let target = self.engine.catalog.entry(relation.target);
            match self.visibilities.of(relation.target) {
                Some(Visibility { rows: Some(rows), mask, .. }) => {
                    input.update(&target.digest);
                    digest_visibility(&mut input, &target.schema, rows.filter(), mask);
                }
                _ => _ = input.update(b"unseen"),
            }
        }
        input
    }

    /// Adds the tags of a response beside those of its own rows.
    fn add_tags(&self, rows: Option<&RowFilter>, selection: &Selection, tags: &mut Vec<Tag>) {
        tags.extend_from_slice(&self.entry.tags);
        if let Some(rows) = rows {
            add_related_tags(rows.filter(), tags);
        }
        for relation in &selection.includes {
            let target = self.engine.catalog.entry(relation.target);
            tags.push(Tag::table(&target.schema.table));
            if let Some(Visibility { rows: Some(rows), .. }) = self.visibilities.of(relation.target) {
                add_related_tags(rows.filter(), tags);
            }
        }
    }
}

static EVERYTHING: Filter = Filter::everything();

/// Feeds the visibility of a resource into a digest.
pub(crate) fn digest_visibility(input: &mut DigestInput, schema: &Schema, rows: &Filter, mask: &Mask) {
    digest::add_filter(input, schema, rows);
    mask.digest(input, schema);
}

impl Mask {
    /// Feeds what is shown of each field into a digest.
    pub(crate) fn digest(&self, input: &mut DigestInput, schema: &Schema) {
        if self.is_fully_readable() {
            input.update(b"clear");
            return;
        }
        let visible: Vec<u8> =
            (0..schema.fields.len()).map(|field| u8::from(self.is_visible(field))).collect();
        input.update(b"masked").update(&visible);
        for (field, substitute) in self.redacted() {
            input.update(b"*").update(&(*field as u64).to_le_bytes());
            digest::add_text(input, substitute);
        }
        input.update(b".");
    }
}

/// Adds the tags of the tables that a filter refers to.
fn add_related_tags(filter: &Filter, tags: &mut Vec<Tag>) {
    let mut tables = Vec::new();
    related_tables(filter, &mut tables);
    tags.extend(tables.iter().map(|table| Tag::table(table)));
}

/// Collects the tables that a filter refers to, without duplicates.
fn related_tables(filter: &Filter, tables: &mut Vec<String>) {
    match filter {
        Filter::All(filters) | Filter::Any(filters) => {
            for filter in filters {
                related_tables(filter, tables);
            }
        }
        Filter::Not(inner) => related_tables(inner, tables),
        Filter::Related(by, inner) => {
            if !tables.contains(&by.0.target.table) {
                tables.push(by.0.target.table.clone());
            }
            related_tables(inner, tables);
        }
        Filter::Compare(..) | Filter::Search(..) => {}
    }
}
