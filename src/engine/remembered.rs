//! What an answer is found by where answers are remembered, and what it is made of.

use resourceful_contract::{Filter, Schema};

use super::read::AskedItem;
use super::sight::{Admitted, Sight};
use super::{Call, Mask, spelled};
use crate::cache::{Key, Lookup, Tag, tenant_of};
use crate::query::{ListRequest, Selection, digest};
use crate::resource::Operation;

impl Call<'_> {
    /// The answer for an item; `None` where it is not remembered.
    pub(crate) fn item_lookup(&self, asked: &AskedItem) -> Option<Lookup> {
        let life = self.definition().cache.as_ref()?.life(Operation::Read)?;
        let request = &asked.request;
        if request.as_of.is_some() || request.deleted.is_some() {
            return None;
        }
        let rows = self.sight().rows.as_ref()?;
        let (mut hasher, id) = (self.scope(b"item", rows, &request.selection), spelled(&asked.id));
        digest::text(&mut hasher, &id);
        digest::selection(&mut hasher, &self.entry.schema, &request.selection);
        let table = &self.entry.schema.table;
        let mut tags = vec![Tag::row(table, &id), Tag::rows(table)];
        self.tag(rows.filter(), &request.selection, &mut tags);
        Some(Lookup { key: Key(*hasher.finalize().as_bytes()), tags, life })
    }

    /// The answer for a list; `None` where it is not remembered. `path` stands in its links.
    pub(crate) fn list_lookup(&self, request: &ListRequest, path: Option<&str>) -> Option<Lookup> {
        let life = self.definition().cache.as_ref()?.life(Operation::List)?;
        let listed = self.sight().listed.as_ref()?;
        if request.deleted.is_some() {
            return None;
        }
        let mut hasher = self.scope(b"list", listed, &request.selection);
        digest::maybe_text(&mut hasher, path);
        digest::list(&mut hasher, &self.entry.schema, request);
        let table = &self.entry.schema.table;
        let tenant = self.entry.tenant().and_then(|field| tenant_of(listed.filter(), field));
        let mut tags = match tenant {
            Some(tenant) => vec![Tag::tenant(table, &spelled(tenant)), Tag::anybodys(table)],
            None => vec![Tag::table(table)],
        };
        self.tag(listed.filter(), &request.selection, &mut tags);
        tag_related(&request.filter, &mut tags);
        Some(Lookup { key: Key(*hasher.finalize().as_bytes()), tags, life })
    }

    /// What was declared, who asks, and all that their rights come to: two callers with the same rights have one answer,
    /// and two with different ones never do.
    fn scope(&self, kind: &[u8], rows: &Admitted, selection: &Selection) -> blake3::Hasher {
        let mut hasher = blake3::Hasher::new();
        hasher.update(kind).update(&self.entry.digest);
        let actor = self.actor;
        hasher.update(&[u8::from(actor.is_anonymous()), u8::from(actor.is_elevated())]);
        digest::maybe_text(&mut hasher, actor.tenant());
        sight(&mut hasher, &self.entry.schema, rows.filter(), self.mask());
        for relation in &selection.includes {
            let target = self.engine.catalog.entry(relation.target);
            match self.sights.of(relation.target) {
                Some(Sight { rows: Some(rows), mask, .. }) => {
                    hasher.update(&target.digest);
                    sight(&mut hasher, &target.schema, rows.filter(), mask);
                }
                _ => _ = hasher.update(b"unseen"),
            }
        }
        hasher
    }

    /// What an answer is made of beside its own rows.
    fn tag(&self, rows: &Filter, selection: &Selection, tags: &mut Vec<Tag>) {
        tags.extend_from_slice(&self.entry.tags);
        tag_related(rows, tags);
        for relation in &selection.includes {
            let target = self.engine.catalog.entry(relation.target);
            tags.push(Tag::table(&target.schema.table));
            if let Some(Sight { rows: Some(rows), .. }) = self.sights.of(relation.target) {
                tag_related(rows.filter(), tags);
            }
        }
    }
}

/// Feeds what may be seen of a resource into a digest.
fn sight(hasher: &mut blake3::Hasher, schema: &Schema, rows: &Filter, mask: &Mask) {
    digest::filter(hasher, schema, rows);
    if mask.is_clear() {
        hasher.update(b"clear");
        return;
    }
    let shown: Vec<u8> = (0..schema.fields.len()).map(|field| u8::from(mask.shows(field))).collect();
    hasher.update(b"masked").update(&shown);
    for (field, instead) in mask.redacted() {
        hasher.update(&(*field as u64).to_le_bytes());
        digest::text(hasher, instead);
    }
}

/// The tables that a filter leads to.
fn tag_related(filter: &Filter, tags: &mut Vec<Tag>) {
    match filter {
        Filter::All(filters) | Filter::Any(filters) => {
            for filter in filters {
                tag_related(filter, tags);
            }
        }
        Filter::Not(inner) => tag_related(inner, tags),
        Filter::Related(by, inner) => {
            tags.push(Tag::table(&by.0.target.table));
            tag_related(inner, tags);
        }
        Filter::Compare(..) | Filter::Search(..) => {}
    }
}
