//! Cache groups (RFC 9875): which answers fall together, said to caches between this server and its clients.
//!
//! A list is in the group of its resource (`"products"`), an item in one of its own, both in that of all answers of the
//! resource (`"products/*"`) and in those that its declaration names as tags.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderName, HeaderValue};

use crate::engine::{Catalog, Entry};

pub(super) const GROUPS: HeaderName = HeaderName::from_static("cache-groups");
pub(super) const INVALIDATION: HeaderName = HeaderName::from_static("cache-group-invalidation");

/// The groups of a list; none where answers of the resource are not remembered.
pub(super) fn of_list(entry: &Entry) -> Option<HeaderValue> {
    with(entry, &entry.name)
}

/// The groups of an item.
pub(super) fn of_item(entry: &Entry, id: &str) -> Option<HeaderValue> {
    with(entry, &item(entry, id))
}

fn with(entry: &Entry, own: &str) -> Option<HeaderValue> {
    let cache = entry.definition.cache.as_ref()?;
    let all = format!("{}/*", entry.name);
    let names = [own, &all].into_iter().chain(cache.tags.iter().map(String::as_str));
    header(names)
}

/// What falls with a change of a resource: its lists, the item or all that there are, and every answer of those that say so.
pub(super) fn fallen(catalog: &Catalog, entry: &Entry, id: Option<&str>) -> Option<HeaderValue> {
    let mut names = Vec::new();
    if entry.definition.cache.is_some() {
        names.push(entry.name.to_string());
        names.push(id.map_or_else(|| format!("{}/*", entry.name), |id| item(entry, id)));
    }
    for other in catalog.entries() {
        let patterns = other.definition.cache.iter().flat_map(|cache| &cache.invalidated_by);
        let speaks = |pattern: &String| pattern.split('.').next() == Some(&*entry.name);
        if patterns.into_iter().any(speaks) {
            names.push(format!("{}/*", other.name));
        }
    }
    header(names.iter().map(String::as_str))
}

/// An id may hold anything and be of any length; a group's name may not.
fn item(entry: &Entry, id: &str) -> String {
    let digest = blake3::hash(format!("{}/{id}", entry.name).as_bytes());
    URL_SAFE_NO_PAD.encode(&digest.as_bytes()[..12])
}

/// A list of strings (RFC 9651).
fn header<'a>(names: impl Iterator<Item = &'a str>) -> Option<HeaderValue> {
    let names: Vec<_> = names.map(|name| format!("\"{name}\"")).collect();
    (!names.is_empty()).then(|| HeaderValue::from_str(&names.join(", ")).ok()).flatten()
}
