//! Filters, sorts, searches, page sizes and `Cache-Control`.

use resourceful_contract::FieldType;

use super::Faults;
use crate::resource::derive::Draft;

/// Parameters and body keys with another meaning, with which a filter of that name would be ambiguous.
const RESERVED: [&str; 12] = [
    "sort",
    "fields",
    "include",
    "limit",
    "after",
    "before",
    "page",
    "q",
    "deleted",
    "as_of",
    "filter",
    "last_event_id",
];
/// Keys of the filter tree in a body.
const CONNECTIVES: [&str; 3] = ["and", "or", "not"];

pub(super) fn verify(draft: &Draft, faults: &mut Faults) {
    let builder = &draft.builder;
    let indexed = builder.indexes.iter().flat_map(|(names, _)| names);
    for name in indexed.chain(&builder.filterable).chain(&builder.sortable) {
        if RESERVED.contains(&name.as_str()) || CONNECTIVES.contains(&name.as_str()) {
            faults.push(
                Some(name),
                format!("`{name}` is a word of the query language, so it cannot be filtered by"),
                format!("rename it on the wire: #[serde(rename = \"{name}_value\")]"),
            );
        }
    }
    list_parameters(draft, faults);
    let of = |name: &String| draft.position(name).map(|position| &draft.fields[position]);
    for name in builder.filterable.iter().chain(&builder.sortable).chain(&builder.searchable) {
        if of(name).is_some_and(|field| field.hidden) {
            faults.push(
                Some(name),
                "it is hidden, and filters, sorts and searches would reveal its value",
                "drop it from .filterable(…), .sortable(…) and .searchable(…)",
            );
        }
    }
    for name in &builder.sortable {
        if of(name).is_some_and(|field| !field.field_type.is_ordered()) {
            faults.push(Some(name), "objects and arrays have no order", "drop it from .sortable(…)");
        }
    }
    for name in &builder.searchable {
        if of(name).is_some_and(|field| field.field_type != FieldType::Text) {
            faults.push(Some(name), "only text can be searched", "drop it from .searchable(…)");
        }
    }
    if builder.default_limit == 0 || builder.max_limit < builder.default_limit {
        faults.push(
            None,
            "a page's default size must be at least 1 and at most the largest size",
            ".limits(50, 200)",
        );
    }
    if let Some(directives) = &builder.cache_control
        && http::HeaderValue::from_str(directives).is_err()
    {
        faults.push(None, "Cache-Control cannot hold this text", ".cache_control(\"public, max-age=60\")");
    }
}

/// Reports list parameters whose names have another meaning in a query, and those without values.
fn list_parameters(draft: &Draft, faults: &mut Faults) {
    for parameter in &draft.builder.list_parameters {
        let name = parameter.name.as_str();
        let legal = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_';
        if name.is_empty() || !name.chars().all(legal) {
            faults.push(
                None,
                format!("`{name}` cannot be the name of a list parameter"),
                "lower case letters, digits and underscores, such as ListParameter::new(\"draft\")",
            );
        } else if RESERVED.contains(&name) || draft.position(name).is_some() {
            faults.push(
                None,
                format!("the list parameter `{name}` has the name of a field, or of a parameter that lists have anyway"),
                "give it another name",
            );
        }
        let mut values: Vec<_> = parameter.values.iter().map(|(value, _)| value.as_str()).collect();
        values.sort_unstable();
        if values.is_empty() || values.windows(2).any(|two| two[0] == two[1]) {
            faults.push(
                None,
                format!("the list parameter `{name}` has no values, or one of them twice"),
                ".value(\"include\", json!({}))",
            );
        }
    }
}
