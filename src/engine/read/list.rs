//! List: items by filter, sort and page.

use resourceful_contract::{Count, Filter, Position, Query, Test, Total, Value};

use super::include;
use crate::access::Operation;
use crate::authz::{decision, redact};
use crate::catalog::RowFilter;
use crate::engine::Call;
use crate::error::Error;
use crate::query::{Binding, CursorContent, KeysDigest, ListRequest, PagePosition, outdated_cursor};

/// The form of a list request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ListQuery<'a> {
    /// A query string.
    Url(Option<&'a str>),
    /// A request body.
    Body(&'a serde_json::Value),
}

/// A page of a list.
#[derive(Debug)]
pub(crate) struct Page {
    /// The complete response body.
    pub(crate) json: Vec<u8>,
    /// Cursors to the neighbouring pages.
    pub(crate) next: Option<String>,
    pub(crate) prev: Option<String>,
    /// The total, where it was requested.
    pub(crate) total: Option<Total>,
}

impl Call<'_> {
    /// Parses a list request.
    ///
    /// # Errors
    /// Every fault of the request, and where the caller may not list the resource.
    pub(in crate::engine) fn parse_list_query(
        &self,
        query: ListQuery<'_>,
        count: Option<Count>,
    ) -> Result<ListRequest, Error> {
        if self.visibility().listed.is_none() {
            return Err(decision::denied(self.entry, self.actor, Operation::List));
        }
        match query {
            ListQuery::Url(query) => Ok(ListRequest { count, ..self.reader().list(query)? }),
            ListQuery::Body(body) => {
                Ok(ListRequest { count, is_in_body: true, ..self.reader().list_body(body)? })
            }
        }
    }

    /// Returns a page of items.
    pub(crate) async fn list(&self, request: &ListRequest) -> Result<Page, Error> {
        let refused = || decision::denied(self.entry, self.actor, Operation::List);
        let visibility = match request.deleted {
            Some(deleted) => Some(self.visibility_with_deleted(deleted).await?),
            None => None,
        };
        let listed =
            visibility.as_ref().unwrap_or_else(|| self.visibility()).listed.as_ref().ok_or_else(refused)?;
        let binding = Binding::of(&self.reader(), self.actor, listed, request);
        let mut query = listed.guard_query(self.build_query(listed, &binding, request).await?);
        query.resolve(self.entry, &self.engine.catalog).await?;

        let mut json = self.entry.response_buffer(query.limit as usize);
        json.extend_from_slice(b"{\"items\":[");
        let start = json.len();
        let rows = self.entry.storage.fetch(&query, &mut json).await?;
        include::splice(self, &request.selection, &rows, start, &mut json).await?;
        self.entry.record_size(json.len() - start, rows.len);
        redact::redact_list(&self.reader(), &request.selection, start, &mut json)?;

        let id = request.sort.iter().position(|key| key.field == self.entry.schema.id);
        let id = id.expect("a list is sorted by the id last, where by nothing else");
        let cursor =
            |keys: Option<&Vec<_>>| keys.map(|keys| self.engine.cursor_key.seal_row(&binding, keys, id));
        let (next, prev) = match request.position {
            PagePosition::Start => (rows.last.as_ref().filter(|_| rows.more), None),
            PagePosition::After(_) => (rows.last.as_ref().filter(|_| rows.more), rows.first.as_ref()),
            PagePosition::Before(_) => (rows.last.as_ref(), rows.first.as_ref().filter(|_| rows.more)),
            PagePosition::Page(page) => {
                (rows.last.as_ref().filter(|_| rows.more), rows.first.as_ref().filter(|_| page > 1))
            }
        };
        let mut page = Page { json, next: cursor(next), prev: cursor(prev), total: rows.total };
        page.write_footer(query.limit);
        Ok(page)
    }

    async fn build_query(
        &self,
        listed: &RowFilter,
        binding: &Binding,
        request: &ListRequest,
    ) -> Result<Query, Error> {
        let open = |cursor, parameter| self.open_cursor(listed, binding, request, cursor, parameter);
        Ok(Query {
            schema: self.entry.schema.clone(),
            filter: request.filter.clone(),
            sort: request.sort.clone(),
            fields: self.fields(&request.selection),
            includes: include::storage_includes(self, &request.selection).await?,
            keys: include::keys(&request.selection),
            versions: false,
            position: match &request.position {
                PagePosition::Start => Position::Start,
                PagePosition::After(cursor) => Position::After(open(cursor, "after").await?),
                PagePosition::Before(cursor) => Position::Before(open(cursor, "before").await?),
                PagePosition::Page(page) => Position::Offset((page - 1) * u64::from(request.limit)),
            },
            limit: request.limit,
            count: request.count,
        })
    }

    /// The sort keys of the row that a cursor refers to.
    async fn open_cursor(
        &self,
        listed: &RowFilter,
        binding: &Binding,
        request: &ListRequest,
        cursor: &str,
        parameter: &'static str,
    ) -> Result<Vec<Value>, Error> {
        let opened = self.engine.cursor_key.open(binding, &self.reader(), request, cursor, parameter);
        let keys = match opened {
            Ok(CursorContent::Keys(keys)) => Ok(keys),
            Ok(CursorContent::Row(id, digest)) => {
                let keys = Box::pin(self.sort_keys(listed, request, id)).await?;
                keys.filter(|keys| KeysDigest::of(keys) == digest).ok_or_else(|| outdated_cursor(parameter))
            }
            Err(invalid) => Err(invalid),
        };
        keys.map_err(|invalid| if request.is_in_body { invalid.with_body_pointers() } else { invalid })
    }

    /// The sort keys of a row, where this caller sees it in the list.
    async fn sort_keys(
        &self,
        listed: &RowFilter,
        request: &ListRequest,
        id: Value,
    ) -> Result<Option<Vec<Value>>, Error> {
        let schema = &self.entry.schema;
        let query = Query {
            filter: Filter::Compare(schema.id, Test::Eq(id)),
            sort: request.sort.clone(),
            fields: vec![schema.id],
            limit: 1,
            ..Query::all(schema.clone())
        };
        let mut query = listed.guard_query(query);
        query.resolve(self.entry, &self.engine.catalog).await?;
        Ok(self.entry.storage.fetch(&query, &mut Vec::new()).await?.first)
    }
}

impl Page {
    fn write_footer(&mut self, limit: u32) {
        let json = &mut self.json;
        let cursor = |json: &mut Vec<u8>, cursor: Option<&String>| match cursor {
            // The base64url alphabet needs no escaping.
            Some(cursor) => {
                json.push(b'"');
                json.extend_from_slice(cursor.as_bytes());
                json.push(b'"');
            }
            None => json.extend_from_slice(b"null"),
        };
        json.extend_from_slice(b"],\"page\":{\"next\":");
        cursor(json, self.next.as_ref());
        json.extend_from_slice(b",\"prev\":");
        cursor(json, self.prev.as_ref());
        json.extend_from_slice(b",\"limit\":");
        json.extend_from_slice(itoa::Buffer::new().format(limit).as_bytes());
        if let Some(total) = self.total {
            json.extend_from_slice(b",\"total\":");
            json.extend_from_slice(itoa::Buffer::new().format(total.rows).as_bytes());
            json.extend_from_slice(b",\"total_kind\":\"");
            json.extend_from_slice(if total.exact { b"exact" } else { b"estimated" });
            json.push(b'"');
        }
        json.extend_from_slice(b"}}");
    }
}
