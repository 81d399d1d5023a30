//! Digests of filters, orders and values, for keys that must not match another query.

use resourceful_contract::{Filter, Schema, Sort, Test, Value};

/// The input of a digest, collected first: hashing one long piece is cheaper than many short ones.
#[derive(Debug)]
pub(crate) struct DigestInput(Vec<u8>);

impl Default for DigestInput {
    fn default() -> Self {
        Self(Vec::with_capacity(256))
    }
}

impl DigestInput {
    pub(crate) fn update(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    pub(crate) fn digest(&self) -> blake3::Hash {
        blake3::hash(&self.0)
    }
}

/// Adds a filter to the input of a digest: lengths and tags precede contents, so two different trees never produce the
/// same bytes. Trees that differ only in how a query string and a body write the same filter produce the same bytes:
/// neither the order of the branches of `and` and `or` matters, nor the depth at which they are joined.
pub(crate) fn filter(fed: &mut DigestInput, schema: &Schema, tree: &Filter) {
    match tree {
        Filter::All(filters) | Filter::Any(filters) if filters.len() == 1 => filter(fed, schema, &filters[0]),
        Filter::All(_) => joined(fed, schema, b'&', tree),
        Filter::Any(_) => joined(fed, schema, b'|', tree),
        Filter::Not(inner) => {
            fed.update(b"!");
            filter(fed, schema, inner);
        }
        Filter::Compare(field, test) => {
            fed.update(b"=");
            text(fed, &schema.fields[*field].name);
            self::test(fed, test);
        }
        Filter::Related(link, inner) => {
            fed.update(b".");
            text(fed, &link.0.name);
            filter(fed, &link.0.target, inner);
        }
        Filter::Search(fields, word) => {
            fed.update(b"?");
            number(fed, fields.len());
            for field in fields {
                text(fed, &schema.fields[*field].name);
            }
            text(fed, word);
        }
    }
}

pub(crate) fn sort(fed: &mut DigestInput, schema: &Schema, keys: &[Sort]) {
    number(fed, keys.len());
    for key in keys {
        fed.update(&[u8::from(key.descending)]);
        text(fed, &schema.fields[key.field].name);
    }
}

pub(crate) fn text(fed: &mut DigestInput, text: &str) {
    number(fed, text.len());
    fed.update(text.as_bytes());
}

pub(crate) fn maybe_text(fed: &mut DigestInput, maybe: Option<&str>) {
    fed.update(&[u8::from(maybe.is_some())]);
    text(fed, maybe.unwrap_or_default());
}

fn joined(fed: &mut DigestInput, schema: &Schema, tag: u8, tree: &Filter) {
    let mut flat = Vec::new();
    flatten(tree, tag, &mut flat);
    let mut parts: Vec<Vec<u8>> = Vec::with_capacity(flat.len());
    for part in flat {
        let mut own = DigestInput::default();
        filter(&mut own, schema, part);
        parts.push(own.into_bytes());
    }
    parts.sort_unstable();
    fed.update(&[tag]);
    number(fed, parts.len());
    for part in parts {
        number(fed, part.len());
        fed.update(&part);
    }
}

/// The branches of a tree that are joined by one operator, at whatever depth.
fn flatten<'f>(tree: &'f Filter, tag: u8, flat: &mut Vec<&'f Filter>) {
    match tree {
        Filter::All(filters) if tag == b'&' || filters.len() == 1 => {
            filters.iter().for_each(|inner| flatten(inner, tag, flat));
        }
        Filter::Any(filters) if tag == b'|' || filters.len() == 1 => {
            filters.iter().for_each(|inner| flatten(inner, tag, flat));
        }
        other => flat.push(other),
    }
}

fn test(fed: &mut DigestInput, test: &Test) {
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
        Test::In(values) => return several_values(fed, 10, values),
        Test::NotIn(values) => return several_values(fed, 11, values),
        Test::Overlaps(values) => return several_values(fed, 12, values),
        Test::Contains(content) => return literal(fed, 13, content),
        Test::Starts(content) => return literal(fed, 14, content),
        Test::Ends(content) => return literal(fed, 15, content),
    };
    fed.update(&[tag]);
    for item in values {
        value(fed, item);
    }
}

fn several_values(fed: &mut DigestInput, tag: u8, values: &[Value]) {
    fed.update(&[tag]);
    number(fed, values.len());
    for item in values {
        value(fed, item);
    }
}

fn literal(fed: &mut DigestInput, tag: u8, content: &str) {
    fed.update(&[tag]);
    text(fed, content);
}

/// Adds a value. JSON text distinguishes every value of one field from every other of the same field, which is all that
/// is compared. Ids are mostly integers or text, which are distinguished without it.
pub(crate) fn value(fed: &mut DigestInput, value: &Value) {
    match value {
        Value::Integer(integer) => _ = fed.update(b"i").update(&integer.to_le_bytes()),
        Value::Text(content) => text(fed.update(b"t"), content),
        other => as_json(fed.update(b"j"), other),
    }
}

fn as_json(fed: &mut DigestInput, value: &Value) {
    let mut json = Vec::with_capacity(40);
    resourceful_contract::json::value(&mut json, value);
    number(fed, json.len());
    fed.update(&json);
}

pub(crate) fn number(fed: &mut DigestInput, number: usize) {
    fed.update(&(number as u64).to_le_bytes());
}
