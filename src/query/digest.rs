//! Digests of list requests and selections, for keys that must not match another query.

use resourceful_contract::{Count, Schema};

use super::{ListRequest, Place, Selection};
use crate::digest::{DigestInput, filter, number, sort, text};

impl ListRequest {
    /// Adds every part of the request, except which deleted items are selected.
    pub(crate) fn digest(&self, fed: &mut DigestInput, schema: &Schema) {
        filter(fed, schema, &self.filter);
        sort(fed, schema, &self.sort);
        self.selection.digest(fed, schema);
        fed.update(&self.limit.to_le_bytes());
        let count = match self.count {
            None => 0,
            Some(Count::Exact) => 1,
            Some(Count::Estimated) => 2,
        };
        fed.update(&[count]);
        match &self.place {
            Place::Start => _ = fed.update(b"start"),
            Place::After(cursor) => text(fed.update(b"after"), cursor),
            Place::Before(cursor) => text(fed.update(b"before"), cursor),
            Place::Page(page) => _ = fed.update(b"page").update(&page.to_le_bytes()),
        }
    }
}

impl Selection {
    pub(crate) fn digest(&self, fed: &mut DigestInput, schema: &Schema) {
        match &self.fields {
            None => _ = fed.update(b"all"),
            Some(fields) => {
                fed.update(b"some");
                number(fed, fields.len());
                for field in fields {
                    text(fed, &schema.fields[*field].name);
                }
            }
        }
        number(fed, self.includes.len());
        for relation in &self.includes {
            text(fed, &relation.link.name);
        }
    }
}
