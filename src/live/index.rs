//! Index of subscriptions by the values that their filters require, to find those that a change may concern without
//! checking all of them.
//!
//! The fields of a filter that must be equal to a value are its form, and these values are its key. There are few forms
//! however many filters there are, so that a change costs one look-up for each form, and only entries whose values all
//! match are checked at all.

use std::collections::HashMap;

use resourceful_contract::{Filter, Schema, Test, Value};

use super::subscriber_view::RowState;

/// The most fields of a form.
const MAX_KEY_FIELDS: usize = 4;

/// Entries that wait for changes of one resource, by the values that their filters require.
#[derive(Debug)]
pub(crate) struct FilterIndex<T> {
    by_fields: HashMap<Vec<usize>, HashMap<Vec<u8>, Vec<T>>>,
}

/// The place of an entry in an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IndexKey {
    fields: Vec<usize>,
    key: Vec<u8>,
}

impl IndexKey {
    /// The place of a filter, by the fields whose values every event contains.
    pub(crate) fn of(filter: &Filter, schema: &Schema) -> Self {
        let mut equal = Vec::new();
        collect_equalities(filter, schema, &mut equal);
        equal.sort_by_key(|(field, _)| *field);
        equal.dedup_by_key(|(field, _)| *field);
        equal.truncate(MAX_KEY_FIELDS);
        let mut key = Vec::new();
        for (_, value) in &equal {
            encode_value(value, &mut key);
        }
        Self { fields: equal.into_iter().map(|(field, _)| field).collect(), key }
    }
}

impl<T: Clone + PartialEq> FilterIndex<T> {
    pub(crate) fn new() -> Self {
        Self { by_fields: HashMap::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_fields.is_empty()
    }

    pub(crate) fn insert(&mut self, index_key: &IndexKey, entry: T) {
        let keys = self.by_fields.entry(index_key.fields.clone()).or_default();
        keys.entry(index_key.key.clone()).or_default().push(entry);
    }

    pub(crate) fn remove(&mut self, index_key: &IndexKey, entry: &T) {
        let Some(keys) = self.by_fields.get_mut(&index_key.fields) else { return };
        if let Some(all) = keys.get_mut(&index_key.key) {
            all.retain(|one| one != entry);
            if all.is_empty() {
                keys.remove(&index_key.key);
            }
        }
        if keys.is_empty() {
            self.by_fields.remove(&index_key.fields);
        }
    }

    /// Entries that a change between these states may concern, each once.
    pub(crate) fn find(&self, states: &[&RowState]) -> Vec<T> {
        let mut found: Vec<T> = Vec::new();
        for (fields, keys) in &self.by_fields {
            let mut lookup_keys: Vec<Vec<u8>> = Vec::new();
            for state in states {
                let Some(key) = key_of(fields, state) else {
                    // A value is unknown: all entries of this form may be concerned.
                    found.extend(keys.values().flatten().cloned());
                    lookup_keys.clear();
                    break;
                };
                if !lookup_keys.contains(&key) {
                    lookup_keys.push(key);
                }
            }
            found.extend(lookup_keys.iter().filter_map(|key| keys.get(key)).flatten().cloned());
        }
        found
    }
}

fn key_of(fields: &[usize], state: &RowState) -> Option<Vec<u8>> {
    let mut key = Vec::with_capacity(fields.len() * 24);
    for field in fields {
        encode_value(state.value(*field)?, &mut key);
    }
    Some(key)
}

/// The equalities that a row must fulfil to match at all.
fn collect_equalities<'a>(filter: &'a Filter, schema: &Schema, equal: &mut Vec<(usize, &'a Value)>) {
    match filter {
        Filter::All(filters) => {
            for filter in filters {
                collect_equalities(filter, schema, equal);
            }
        }
        Filter::Compare(field, Test::Eq(value)) if !schema.fields[*field].hidden && is_exact(value) => {
            equal.push((*field, value));
        }
        _ => {}
    }
}

/// Whether equal values of this kind have one encoding.
const fn is_exact(value: &Value) -> bool {
    matches!(
        value,
        Value::Boolean(_)
            | Value::Integer(_)
            | Value::Text(_)
            | Value::Uuid(_)
            | Value::DateTime(_)
            | Value::Date(_)
    )
}

fn encode_value(value: &Value, key: &mut Vec<u8>) {
    let start = key.len();
    key.extend_from_slice(&[0; 4]);
    resourceful_contract::json::value(key, value);
    // Length prefix, so that two values never run into each other.
    let length = u32::try_from(key.len() - start).unwrap_or(u32::MAX);
    key[start..start + 4].copy_from_slice(&length.to_le_bytes());
}
