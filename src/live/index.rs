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
const WIDEST: usize = 4;

/// Entries that wait for changes of one resource, by the values that their filters require.
#[derive(Debug)]
pub(crate) struct Index<T> {
    forms: HashMap<Vec<usize>, HashMap<Vec<u8>, Vec<T>>>,
}

/// The place of an entry in an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spot {
    fields: Vec<usize>,
    key: Vec<u8>,
}

impl Spot {
    /// The place of a filter, by the fields whose values every event contains.
    pub(crate) fn of(filter: &Filter, schema: &Schema) -> Self {
        let mut equal = Vec::new();
        gather(filter, schema, &mut equal);
        equal.sort_by_key(|(field, _)| *field);
        equal.dedup_by_key(|(field, _)| *field);
        equal.truncate(WIDEST);
        let mut key = Vec::new();
        for (_, value) in &equal {
            spell(value, &mut key);
        }
        Self { fields: equal.into_iter().map(|(field, _)| field).collect(), key }
    }
}

impl<T: Clone + PartialEq> Index<T> {
    pub(crate) fn new() -> Self {
        Self { forms: HashMap::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.forms.is_empty()
    }

    pub(crate) fn insert(&mut self, spot: &Spot, waiting: T) {
        let keys = self.forms.entry(spot.fields.clone()).or_default();
        keys.entry(spot.key.clone()).or_default().push(waiting);
    }

    pub(crate) fn remove(&mut self, spot: &Spot, waiting: &T) {
        let Some(keys) = self.forms.get_mut(&spot.fields) else { return };
        if let Some(all) = keys.get_mut(&spot.key) {
            all.retain(|one| one != waiting);
            if all.is_empty() {
                keys.remove(&spot.key);
            }
        }
        if keys.is_empty() {
            self.forms.remove(&spot.fields);
        }
    }

    /// Entries that a change between these states may concern, each once.
    pub(crate) fn find(&self, states: &[&RowState]) -> Vec<T> {
        let mut found: Vec<T> = Vec::new();
        for (fields, keys) in &self.forms {
            let mut asked: Vec<Vec<u8>> = Vec::new();
            for state in states {
                let Some(key) = key_of(fields, state) else {
                    // A value is unknown: all entries of this form may be concerned.
                    found.extend(keys.values().flatten().cloned());
                    asked.clear();
                    break;
                };
                if !asked.contains(&key) {
                    asked.push(key);
                }
            }
            found.extend(asked.iter().filter_map(|key| keys.get(key)).flatten().cloned());
        }
        found
    }
}

fn key_of(fields: &[usize], state: &RowState) -> Option<Vec<u8>> {
    let mut key = Vec::with_capacity(fields.len() * 24);
    for field in fields {
        spell(state.value(*field)?, &mut key);
    }
    Some(key)
}

/// The equalities that a row must fulfil to match at all.
fn gather<'a>(filter: &'a Filter, schema: &Schema, equal: &mut Vec<(usize, &'a Value)>) {
    match filter {
        Filter::All(filters) => {
            for filter in filters {
                gather(filter, schema, equal);
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

fn spell(value: &Value, key: &mut Vec<u8>) {
    let start = key.len();
    key.extend_from_slice(&[0; 4]);
    resourceful_contract::json::value(key, value);
    // Length prefix, so that two values never run into each other.
    let length = u32::try_from(key.len() - start).unwrap_or(u32::MAX);
    key[start..start + 4].copy_from_slice(&length.to_le_bytes());
}
