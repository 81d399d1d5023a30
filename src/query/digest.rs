//! A digest of what a query selects and how it orders, for keys that must not serve another query.

use resourceful_contract::{Count, Filter, Schema, Sort, Test, Value};

use super::{ListRequest, Place, Selection};

/// Feeds a whole value into a digest: lengths and tags stand before contents, so two different trees never feed
/// the same bytes.
pub(crate) fn filter(hasher: &mut blake3::Hasher, schema: &Schema, tree: &Filter) {
    match tree {
        Filter::All(filters) => several(hasher, schema, b'&', filters),
        Filter::Any(filters) => several(hasher, schema, b'|', filters),
        Filter::Not(inner) => {
            hasher.update(b"!");
            filter(hasher, schema, inner);
        }
        Filter::Compare(field, test) => {
            hasher.update(b"=");
            text(hasher, &schema.fields[*field].name);
            self::test(hasher, test);
        }
        Filter::Related(link, inner) => {
            hasher.update(b".");
            text(hasher, &link.0.name);
            filter(hasher, &link.0.target, inner);
        }
        Filter::Search(fields, word) => {
            hasher.update(b"?");
            number(hasher, fields.len());
            for field in fields {
                text(hasher, &schema.fields[*field].name);
            }
            text(hasher, word);
        }
    }
}

pub(crate) fn sort(hasher: &mut blake3::Hasher, schema: &Schema, keys: &[Sort]) {
    number(hasher, keys.len());
    for key in keys {
        hasher.update(&[u8::from(key.descending)]);
        text(hasher, &schema.fields[key.field].name);
    }
}

pub(crate) fn text(hasher: &mut blake3::Hasher, text: &str) {
    number(hasher, text.len());
    hasher.update(text.as_bytes());
}

pub(crate) fn maybe_text(hasher: &mut blake3::Hasher, maybe: Option<&str>) {
    hasher.update(&[u8::from(maybe.is_some())]);
    text(hasher, maybe.unwrap_or_default());
}

/// Everything that a list was asked for with, but which deleted items are meant.
pub(crate) fn list(hasher: &mut blake3::Hasher, schema: &Schema, request: &ListRequest) {
    filter(hasher, schema, &request.filter);
    sort(hasher, schema, &request.sort);
    selection(hasher, schema, &request.selection);
    hasher.update(&request.limit.to_le_bytes());
    let count = match request.count {
        None => 0,
        Some(Count::Exact) => 1,
        Some(Count::Estimated) => 2,
    };
    hasher.update(&[count]);
    match &request.place {
        Place::Start => _ = hasher.update(b"start"),
        Place::After(cursor) => text(hasher.update(b"after"), cursor),
        Place::Before(cursor) => text(hasher.update(b"before"), cursor),
        Place::Page(page) => _ = hasher.update(b"page").update(&page.to_le_bytes()),
    }
}

pub(crate) fn selection(hasher: &mut blake3::Hasher, schema: &Schema, selection: &Selection) {
    match &selection.fields {
        None => _ = hasher.update(b"all"),
        Some(fields) => {
            hasher.update(b"some");
            number(hasher, fields.len());
            for field in fields {
                text(hasher, &schema.fields[*field].name);
            }
        }
    }
    number(hasher, selection.includes.len());
    for relation in &selection.includes {
        text(hasher, &relation.link.name);
    }
}

fn several(hasher: &mut blake3::Hasher, schema: &Schema, tag: u8, filters: &[Filter]) {
    hasher.update(&[tag]);
    number(hasher, filters.len());
    for inner in filters {
        filter(hasher, schema, inner);
    }
}

fn test(hasher: &mut blake3::Hasher, test: &Test) {
    let (tag, values): (u8, &[&Value]) = match test {
        Test::Eq(value) => (0, &[value]),
        Test::Ne(value) => (1, &[value]),
        Test::Gt(value) => (2, &[value]),
        Test::Gte(value) => (3, &[value]),
        Test::Lt(value) => (4, &[value]),
        Test::Lte(value) => (5, &[value]),
        Test::Between(from, to) => (6, &[from, to]),
        Test::Has(value) => (7, &[value]),
        Test::IsNull(flag) => (if *flag { 8 } else { 9 }, &[]),
        Test::In(values) => return several_values(hasher, 10, values),
        Test::NotIn(values) => return several_values(hasher, 11, values),
        Test::Overlaps(values) => return several_values(hasher, 12, values),
        Test::Contains(content) => return literal(hasher, 13, content),
        Test::Starts(content) => return literal(hasher, 14, content),
        Test::Ends(content) => return literal(hasher, 15, content),
    };
    hasher.update(&[tag]);
    for item in values {
        value(hasher, item);
    }
}

fn several_values(hasher: &mut blake3::Hasher, tag: u8, values: &[Value]) {
    hasher.update(&[tag]);
    number(hasher, values.len());
    for item in values {
        value(hasher, item);
    }
}

fn literal(hasher: &mut blake3::Hasher, tag: u8, content: &str) {
    hasher.update(&[tag]);
    text(hasher, content);
}

/// JSON text tells every value of one field from every other of the same field, which is all that is compared.
fn value(hasher: &mut blake3::Hasher, value: &Value) {
    let mut json = Vec::with_capacity(40);
    resourceful_contract::json::value(&mut json, value);
    number(hasher, json.len());
    hasher.update(&json);
}

fn number(hasher: &mut blake3::Hasher, number: usize) {
    hasher.update(&(number as u64).to_le_bytes());
}
