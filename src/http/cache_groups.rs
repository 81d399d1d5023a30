//! Cache groups (RFC 9875): which responses become invalid together, for caches between this server and its clients.
//!
//! A list is in the group of its resource (`"products"`), an item in a group of its own; both are in the group of all
//! responses of the resource (`"products/*"`), in those that its declaration names as tags, and in the list groups of
//! all other resources that they show.

use crate::resource::id_text;
use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::catalog::{Catalog, Entry};

pub(super) const GROUPS: HeaderName = HeaderName::from_static("cache-groups");
pub(super) const INVALIDATION: HeaderName = HeaderName::from_static("cache-group-invalidation");

/// The groups of a list; `None` if responses of the resource are not cached. `related` are the other resources that it
/// shows or was queried through.
pub(super) fn list_groups(entry: &Entry, related: &[Arc<str>]) -> Option<HeaderValue> {
    groups(entry, &entry.name, related)
}

/// The groups of an item.
pub(super) fn item_groups(entry: &Entry, id: &str, related: &[Arc<str>]) -> Option<HeaderValue> {
    groups(entry, &item_group(entry, id), related)
}

fn groups(entry: &Entry, own: &str, related: &[Arc<str>]) -> Option<HeaderValue> {
    let cache = entry.definition.cache.as_ref()?;
    let all = format!("{}/*", entry.name);
    let names = [own, &all].into_iter().chain(cache.tags.iter().map(String::as_str));
    header_value(names.chain(related.iter().map(AsRef::as_ref)))
}

/// The groups that a change of a resource invalidates: its lists and what is related to it, the item or all items, and
/// every response of resources that declare so. Empty if no responses are cached at all.
pub(super) fn invalidated_groups(catalog: &Catalog, entry: &Entry, id: Option<&str>) -> Vec<String> {
    if catalog.write_observer.is_none() {
        return Vec::new();
    }
    let id_type = entry.schema.id_field().field_type;
    let id = id.and_then(|id| id_type.parse(id).ok()).map(|id| id_text(&id));
    let own = id.map_or_else(|| format!("{}/*", entry.name), |id| item_group(entry, &id));
    let mut names = vec![entry.name.to_string(), own];
    for other in catalog.entries() {
        let patterns = other.definition.cache.iter().flat_map(|cache| &cache.invalidated_by);
        let is_declared = |pattern: &String| pattern.split('.').next() == Some(&*entry.name);
        if patterns.into_iter().any(is_declared) {
            names.push(format!("{}/*", other.name));
        }
    }
    names
}

/// Sets the header that names the invalidated groups, each once.
pub(super) fn set_invalidation(mut names: Vec<String>, headers: &mut HeaderMap) {
    let mut known = HashSet::new();
    names.retain(|name| known.insert(name.clone()));
    if let Some(groups) = header_value(names.iter().map(String::as_str)) {
        headers.insert(INVALIDATION, groups);
    }
}

/// The group of an item, named by a digest: an id may contain anything and have any length; a group's name may not.
fn item_group(entry: &Entry, id: &str) -> String {
    let digest = blake3::hash(format!("{}/{id}", entry.name).as_bytes());
    URL_SAFE_NO_PAD.encode(&digest.as_bytes()[..12])
}

/// A list of strings (RFC 9651).
fn header_value<'a>(names: impl Iterator<Item = &'a str>) -> Option<HeaderValue> {
    let names: Vec<_> = names.map(|name| format!("\"{}\"", short_name(name))).collect();
    (!names.is_empty()).then(|| HeaderValue::from_str(&names.join(", ")).ok()).flatten()
}

/// A name of a length that every cache accepts (RFC 9875, 2).
fn short_name(name: &str) -> Cow<'_, str> {
    if name.len() <= 32 {
        return name.into();
    }
    URL_SAFE_NO_PAD.encode(&blake3::hash(name.as_bytes()).as_bytes()[..12]).into()
}
