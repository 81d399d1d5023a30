//! Digests of list requests and selections, for keys that must not match another query.

use resourceful_contract::{Count, Schema};

use super::{ListRequest, PagePosition, Selection};
use crate::digest::{DigestInput, add_filter, add_number, add_sort, add_text};

impl ListRequest {
    /// Adds every part of the request, except which deleted items are selected.
    pub(crate) fn add_to_digest(&self, input: &mut DigestInput, schema: &Schema) {
        add_filter(input, schema, &self.filter);
        add_sort(input, schema, &self.sort);
        self.selection.add_to_digest(input, schema);
        input.update(&self.limit.to_le_bytes());
        let count = match self.count {
            None => 0,
            Some(Count::Exact) => 1,
            Some(Count::Estimated) => 2,
        };
        input.update(&[count]);
        match &self.position {
            PagePosition::Start => _ = input.update(b"start"),
            PagePosition::After(cursor) => add_text(input.update(b"after"), cursor),
            PagePosition::Before(cursor) => add_text(input.update(b"before"), cursor),
            PagePosition::Page(page) => _ = input.update(b"page").update(&page.to_le_bytes()),
        }
    }
}

impl Selection {
    pub(crate) fn add_to_digest(&self, input: &mut DigestInput, schema: &Schema) {
        match &self.fields {
            None => _ = input.update(b"all"),
            Some(fields) => {
                input.update(b"some");
                add_number(input, fields.len());
                for field in fields {
                    add_text(input, &schema.fields[*field].name);
                }
            }
        }
        add_number(input, self.includes.len());
        for relation in &self.includes {
            add_text(input, &relation.link.name);
        }
    }
}
