//! Prepared reads: one item or one list, parsed and authorized, with what a cache has to know about the response.

use std::sync::Arc;

use resourceful_contract::Count;

use super::item::ItemQuery;
use super::list::{ListQuery, Page};
use crate::cache::{Lookup, Tag};
use crate::engine::{Call, Item};
use crate::error::Error;
use crate::query::ListRequest;

/// A read that may run: its query is parsed, and its caller permitted.
pub(crate) struct PreparedRead<'a> {
    call: &'a Call<'a>,
    request: ReadRequest,
}

/// What is read.
enum ReadRequest {
    Item(ItemQuery),
    List(Box<ListRequest>),
}

/// The result of a read.
pub(crate) enum ReadResult {
    /// An item, and its id.
    Item(Item, String),
    Page(Page),
}

impl<'a> Call<'a> {
    /// Parses a request for an item.
    ///
    /// # Errors
    /// Every fault of the query string, and where no item could have this id.
    pub(crate) fn prepare_item(&'a self, id: &str, query: Option<&str>) -> Result<PreparedRead<'a>, Error> {
        let request = self.reader().item(query)?;
        Ok(PreparedRead {
            call: self,
            request: ReadRequest::Item(ItemQuery { id: self.parse_id(id)?, request }),
        })
    }

    /// Parses a request for a list.
    ///
    /// # Errors
    /// Every fault of the request, and where the caller may not list the resource.
    pub(crate) fn prepare_list(
        &'a self,
        query: ListQuery<'_>,
        count: Option<Count>,
    ) -> Result<PreparedRead<'a>, Error> {
        let request = Box::new(self.parse_list_query(query, count)?);
        Ok(PreparedRead { call: self, request: ReadRequest::List(request) })
    }
}

impl PreparedRead<'_> {
    /// The list that is requested; `None` for an item.
    pub(crate) fn list(&self) -> Option<&ListRequest> {
        match &self.request {
            ReadRequest::Item(_) => None,
            ReadRequest::List(request) => Some(request),
        }
    }

    /// The cache lookup for the response; `None` where it is not cached. `path` is part of a list's links.
    pub(crate) fn lookup(&self, path: Option<&str>) -> Option<Lookup> {
        match &self.request {
            ReadRequest::Item(query) => self.call.item_lookup(query),
            ReadRequest::List(request) => self.call.list_lookup(request, path),
        }
    }

    /// The tags of the response.
    pub(crate) fn tags(&self) -> Vec<Tag> {
        match &self.request {
            ReadRequest::Item(query) => self.call.item_tags(query),
            ReadRequest::List(request) => self.call.list_tags(request),
        }
    }

    /// The other resources that the response shows, or was queried through.
    pub(crate) fn related(&self) -> Vec<Arc<str>> {
        match &self.request {
            ReadRequest::Item(query) => self.call.related_to_item(query),
            ReadRequest::List(request) => self.call.related_to_list(request),
        }
    }

    /// Whether other nodes can validate the response.
    pub(crate) fn can_share(&self) -> bool {
        self.call.can_share(&self.related())
    }

    /// Reads.
    ///
    /// # Errors
    /// Where the item does not exist for the caller, a cursor is invalid, or the storage fails.
    pub(crate) async fn run(&self) -> Result<ReadResult, Error> {
        match &self.request {
            ReadRequest::Item(query) => Ok(ReadResult::Item(self.call.read(query).await?, query.id_text())),
            ReadRequest::List(request) => Ok(ReadResult::Page(self.call.list(request).await?)),
        }
    }
}
