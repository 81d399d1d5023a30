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
pub(crate) fn add_filter(input: &mut DigestInput, schema: &Schema, tree: &Filter) {
    match tree {
        Filter::All(filters) | Filter::Any(filters) if filters.len() == 1 => {
            add_filter(input, schema, &filters[0]);
        }
        Filter::All(_) => add_branches(input, schema, b'&', tree),
        Filter::Any(_) => add_branches(input, schema, b'|', tree),
        Filter::Not(inner) => {
            input.update(b"!");
            add_filter(input, schema, inner);
        }
        Filter::Compare(field, test) => {
            input.update(b"=");
            add_text(input, &schema.fields[*field].name);
            self::add_test(input, test);
        }
        Filter::Related(link, inner) => {
            input.update(b".");
            add_text(input, &link.0.name);
            add_filter(input, &link.0.target, inner);
        }
        Filter::Search(fields, word) => {
            input.update(b"?");
            add_number(input, fields.len());
            for field in fields {
                add_text(input, &schema.fields[*field].name);
            }
            add_text(input, word);
        }
    }
}

pub(crate) fn add_sort(input: &mut DigestInput, schema: &Schema, keys: &[Sort]) {
    add_number(input, keys.len());
    for key in keys {
        input.update(&[u8::from(key.descending)]);
        add_text(input, &schema.fields[key.field].name);
    }
}

pub(crate) fn add_text(input: &mut DigestInput, text: &str) {
    add_number(input, text.len());
    input.update(text.as_bytes());
}

pub(crate) fn add_optional_text(input: &mut DigestInput, optional: Option<&str>) {
    input.update(&[u8::from(optional.is_some())]);
    add_text(input, optional.unwrap_or_default());
}

fn add_branches(input: &mut DigestInput, schema: &Schema, tag: u8, tree: &Filter) {
    let mut flat = Vec::new();
    flatten(tree, tag, &mut flat);
    let mut parts: Vec<Vec<u8>> = Vec::with_capacity(flat.len());
    for part in flat {
        let mut branch = DigestInput::default();
        add_filter(&mut branch, schema, part);
        parts.push(branch.into_bytes());
    }
    parts.sort_unstable();
    input.update(&[tag]);
    add_number(input, parts.len());
    for part in parts {
        add_number(input, part.len());
        input.update(&part);
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

fn add_test(input: &mut DigestInput, test: &Test) {
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
        Test::In(values) => return add_values(input, 10, values),
        Test::NotIn(values) => return add_values(input, 11, values),
        Test::Overlaps(values) => return add_values(input, 12, values),
        Test::Contains(content) => return add_tagged_text(input, 13, content),
        Test::Starts(content) => return add_tagged_text(input, 14, content),
        Test::Ends(content) => return add_tagged_text(input, 15, content),
    };
    input.update(&[tag]);
    for item in values {
        add_value(input, item);
    }
}

fn add_values(input: &mut DigestInput, tag: u8, values: &[Value]) {
    input.update(&[tag]);
    add_number(input, values.len());
    for item in values {
        add_value(input, item);
    }
}

fn add_tagged_text(input: &mut DigestInput, tag: u8, content: &str) {
    input.update(&[tag]);
    add_text(input, content);
}

/// Adds a value. JSON text distinguishes every value of one field from every other of the same field, which is all that
/// is compared. Ids are mostly integers or text, which are distinguished without it.
pub(crate) fn add_value(input: &mut DigestInput, value: &Value) {
    match value {
        Value::Integer(integer) => _ = input.update(b"i").update(&integer.to_le_bytes()),
        Value::Text(content) => add_text(input.update(b"t"), content),
        other => add_json(input.update(b"j"), other),
    }
}

fn add_json(input: &mut DigestInput, value: &Value) {
    let mut json = Vec::with_capacity(40);
    resourceful_contract::json::value(&mut json, value);
    add_number(input, json.len());
    input.update(&json);
}

pub(crate) fn add_number(input: &mut DigestInput, number: usize) {
    input.update(&(number as u64).to_le_bytes());
}
