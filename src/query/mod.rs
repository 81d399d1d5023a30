//! Parsing of queries: a query string or a body becomes one tree, or a list of faults.

mod body;
mod cursor;
mod digest;
mod filter;
mod list_parameters;
mod parameters;
mod select;
mod url;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use resourceful_contract::{Count, Filter, Sort};

use crate::catalog::{Catalog, Entry, LinkedRelation, Visibilities};
use crate::error::{Error, Fault};

pub(crate) use cursor::{Binding, CursorContent, CursorKey, KeysDigest};
pub(crate) use cursor::{invalid_cursor, outdated_cursor};
pub(crate) use filter::MAX_URL_VALUES;
pub(crate) use list_parameters::compile_list_parameters;
pub(crate) use parameters::{Pairs, parse_whole_number, read as read_parameters};
pub(crate) use url::LAST_EVENT_ID;

/// A list request, every name resolved against the declaration.
#[derive(Debug)]
pub(crate) struct ListRequest {
    pub(crate) filter: Filter,
    /// Includes the id, so that the order is total.
    pub(crate) sort: Vec<Sort>,
    pub(crate) selection: Selection,
    pub(crate) limit: u32,
    pub(crate) position: PagePosition,
    pub(crate) count: Option<Count>,
    pub(crate) deleted: Option<Deleted>,
    /// Whether the request came in a body, so that faults found later are pointers into it.
    pub(crate) is_in_body: bool,
}

/// An item request.
#[derive(Debug, Default)]
pub(crate) struct ItemRequest {
    pub(crate) selection: Selection,
    pub(crate) deleted: Option<Deleted>,
    /// The time of the requested state.
    pub(crate) as_of: Option<DateTime<Utc>>,
}

/// A stream request.
#[derive(Debug)]
pub(crate) struct StreamRequest {
    pub(crate) filter: Filter,
    /// The fields, in the schema's order; `None` shows all that are visible.
    pub(crate) fields: Option<Vec<usize>>,
}

/// Which items are selected where soft-deleted ones are kept; by default those that are not deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deleted {
    Include,
    Only,
}

/// Which part of each item a response shows.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    /// The fields, in the schema's order; `None` shows all that are visible.
    pub(crate) fields: Option<Vec<usize>>,
    pub(crate) includes: Vec<Arc<LinkedRelation>>,
}

impl Selection {
    /// Whether this is the default: all visible fields, no includes.
    pub(crate) fn is_default(&self) -> bool {
        self.fields.is_none() && self.includes.is_empty()
    }
}

/// Where the requested page begins or ends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PagePosition {
    Start,
    After(String),
    Before(String),
    /// By number, from 1.
    Page(u64),
}

/// The context in which a request is read: the declarations, and what the caller may see.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    pub(crate) catalog: &'a Catalog,
    pub(crate) entry: &'a Entry,
    pub(crate) visibilities: &'a Visibilities,
}

impl Reader<'_> {
    /// Reads the query string of a list.
    ///
    /// # Errors
    /// Every fault of the query string, at once.
    pub(crate) fn list(&self, query: Option<&str>) -> Result<ListRequest, Error> {
        url::list(self, query).map_err(Error::invalid_query)
    }

    /// Reads the query string of a stream.
    ///
    /// # Errors
    /// Every fault of the query string, at once.
    pub(crate) fn stream(&self, query: Option<&str>) -> Result<StreamRequest, Error> {
        url::stream(self, query).map_err(Error::invalid_query)
    }

    /// Reads the body form of a stream.
    ///
    /// # Errors
    /// Every fault of the body, at once.
    pub(crate) fn stream_body(&self, body: &serde_json::Value) -> Result<StreamRequest, Error> {
        body::stream(self, body).map_err(Error::invalid_query)
    }

    /// Reads the body form of a list.
    ///
    /// # Errors
    /// Every fault of the body, at once.
    pub(crate) fn list_body(&self, body: &serde_json::Value) -> Result<ListRequest, Error> {
        body::list(self, body).map_err(Error::invalid_query)
    }

    /// Reads a filter in the body form, by itself.
    ///
    /// # Errors
    /// Every fault of the filter, at once.
    pub(crate) fn filter(&self, filter: &serde_json::Value) -> Result<Filter, Error> {
        body::filter(self, filter).map_err(Error::invalid_query)
    }

    /// Reads the query string of one item.
    ///
    /// # Errors
    /// Every fault of the query string, at once.
    pub(crate) fn item(&self, query: Option<&str>) -> Result<ItemRequest, Error> {
        url::item(self, query).map_err(Error::invalid_query)
    }
}

/// Reads a filter that the application itself wrote, over every field of the stored row.
///
/// # Errors
/// A description of what does not fit the resource.
pub(crate) fn trusted_filter(
    catalog: &Catalog,
    entry: &Entry,
    filter: &serde_json::Value,
) -> Result<Filter, String> {
    body::trusted_filter(catalog, entry, filter)
}

/// Whether a query string may follow relations, so that the caller's visibility of them is needed before it is read.
pub(crate) fn may_follow_relations(query: Option<&str>) -> bool {
    // `include` and a dotted name, in any encoding.
    let query = query.unwrap_or_default().as_bytes();
    query.iter().any(|byte| matches!(byte, b'.' | b'%')) || query.windows(7).any(|word| word == b"include")
}

/// Refuses every parameter: for methods that take none.
///
/// # Errors
/// Every parameter that is present.
pub(crate) fn reject_parameters(query: Option<&str>) -> Result<(), Error> {
    let mut faults = Vec::new();
    for parameter in read_parameters(query, &mut faults) {
        faults.push(Fault::parameter(parameter.name(), "unknown", "This method takes no parameters."));
    }
    if faults.is_empty() { Ok(()) } else { Err(Error::invalid_query(faults)) }
}
