//! Responses for the outcomes of the engine.

use axum::body::{Body, Bytes};
use axum::response::Response;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, LINK, LOCATION, VARY};
use http::{HeaderMap, HeaderValue, StatusCode};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use resourceful_contract::Value;

use super::conditional;
use super::prefer::{PREFERENCE_APPLIED, Prefer};
use crate::cache::Content;
use crate::engine::{Item, Page};
use crate::query::Pairs;

pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// The longest `Link` that is sent: proxies read the head of a response into a buffer of 4 KiB or little more.
const MAX_LINK: usize = 2 << 10;
/// The most bytes of a response that may have spare capacity.
const SHRINK_THRESHOLD: usize = 64 << 10;

/// The caching headers of a resource's responses: how long they may be kept, and for which requests.
#[derive(Clone, Copy, Debug)]
pub(super) struct CacheHeaders<'a> {
    pub(super) cache_control: &'a HeaderValue,
    pub(super) vary: &'a HeaderValue,
}

/// Everything of a path segment that is not a pchar (RFC 3986, 3.3), and `%` itself.
const SEGMENT: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'/')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');
/// The same for a value in a query string.
const QUERY_VALUE: &AsciiSet = &SEGMENT.add(b'&').add(b'+').add(b'=').add(b'\'');

/// A response with capacity for the headers that are added here and on its way out.
fn build_response(status: StatusCode, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = HeaderMap::with_capacity(12);
    response
}

/// The response with an item that was read.
pub(super) fn item(item: Item, cache_headers: CacheHeaders<'_>) -> Content {
    let tag = conditional::strong_tag(&item);
    content(item.json, tag, cache_headers)
}

/// The response with a page of a list, and links to its neighbours.
pub(super) fn page(page: Page, cache_headers: CacheHeaders<'_>, link: Option<Url<'_>>) -> Content {
    let tag = conditional::weak_tag(&page.json);
    let links = link.map(|url| url.links(page.next.as_deref(), page.prev.as_deref()));
    let mut content = content(page.json, tag, cache_headers);
    let Content::Found { headers, .. } = &mut content else { return content };
    if let Some(links) = links.filter(|links| links.len() <= MAX_LINK)
        && let Ok(links) = HeaderValue::from_str(&links)
    {
        headers.insert(LINK, links);
    }
    if let Some(total) = page.total {
        let applied = if total.exact { "count=exact" } else { "count=estimated" };
        headers.insert(PREFERENCE_APPLIED, HeaderValue::from_static(applied));
    }
    content
}

/// The response with a list without pages.
pub(super) fn unpaged_list(json: impl Into<Vec<u8>>, cache_headers: CacheHeaders<'_>) -> Content {
    let json = json.into();
    let tag = conditional::weak_tag(&json);
    content(json, tag, cache_headers)
}

fn content(mut json: Vec<u8>, tag: HeaderValue, cache_headers: CacheHeaders<'_>) -> Content {
    if json.len() > SHRINK_THRESHOLD {
        // The body is held until its client has received it, and its spare capacity would be as well.
        json.shrink_to_fit();
    }
    // With capacity for the headers that are added on its way out.
    let mut headers = HeaderMap::with_capacity(16);
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(ETAG, tag.clone());
    headers.insert(CACHE_CONTROL, cache_headers.cache_control.clone());
    headers.insert(VARY, cache_headers.vary.clone());
    Content::Found { headers, tag, body: json.into() }
}

/// The response to a read: 200, or 304 if the client has it.
pub(super) fn read(is_not_modified: bool, headers: HeaderMap, body: Bytes) -> Response {
    let mut response = Response::new(if is_not_modified { Body::empty() } else { Body::from(body) });
    *response.headers_mut() = headers;
    if is_not_modified {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response.headers_mut().remove(CONTENT_TYPE);
    }
    response
}

/// The response with an item after a change.
pub(super) fn changed(item: Item, status: StatusCode) -> Response {
    let tag = conditional::strong_tag(&item);
    let mut response = build_response(status, Body::from(item.json));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(ETAG, tag);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    response
}

/// The response to a change whose result is not an item.
pub(super) fn json_response(json: impl Into<Body>, status: StatusCode) -> Response {
    let mut response = build_response(status, json.into());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    response
}

/// The path above a path.
pub(super) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// The response with a new item, at `location`.
pub(super) fn created(item: Item, location: &str, prefer: &Prefer) -> Response {
    let response = changed(item, StatusCode::CREATED);
    let mut response = if prefer.minimal { minimal(response) } else { response };
    if let Ok(location) = HeaderValue::from_str(location) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

/// The same response without its body, for a client that prefers that (RFC 7240, 4.2).
pub(super) fn minimal(mut response: Response) -> Response {
    *response.body_mut() = Body::empty();
    response.headers_mut().remove(CONTENT_TYPE);
    response.headers_mut().insert(PREFERENCE_APPLIED, HeaderValue::from_static("return=minimal"));
    response
}

pub(super) fn empty(status: StatusCode) -> Response {
    build_response(status, Body::empty())
}

/// The response of GET without its body (RFC 9110, 9.3.2). The length of a body that is encoded while it is sent is
/// unknown.
pub(crate) fn head(response: Response) -> Response {
    use http_body::Body as _;
    let (mut parts, body) = response.into_parts();
    // axum removes the body of a merged route itself, and sets its length.
    if let Some(length) = body.size_hint().exact().filter(|length| *length > 0)
        && parts.status != StatusCode::NOT_MODIFIED
    {
        parts.headers.entry(CONTENT_LENGTH).or_insert(length.into());
    }
    Response::from_parts(parts, Body::empty())
}

/// The path of an item below its collection.
pub(super) fn location(collection: &str, id: &Value) -> String {
    let mut encoded = Vec::new();
    resourceful_contract::json::value(&mut encoded, id);
    let text = match id {
        Value::Text(text) => text.clone(),
        _ => String::from_utf8_lossy(&encoded).trim_matches('"').to_owned(),
    };
    format!("{}/{}", collection.trim_end_matches('/'), utf8_percent_encode(&text, SEGMENT))
}

/// The URL of a list, from which the URLs of its neighbours are made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Url<'a> {
    pub(super) path: &'a str,
    pub(super) query: Option<&'a str>,
}

impl Url<'_> {
    fn links(self, next: Option<&str>, prev: Option<&str>) -> String {
        let mut links = String::new();
        let mut link = |relation: &str, page_cursor: Option<(&str, &str)>| {
            if !links.is_empty() {
                links.push_str(", ");
            }
            links.push('<');
            links.push_str(self.path);
            self.write_query(page_cursor, &mut links);
            links.push_str(">; rel=\"");
            links.push_str(relation);
            links.push('"');
        };
        if let Some(next) = next {
            link("next", Some(("after", next)));
        }
        if let Some(prev) = prev {
            link("prev", Some(("before", prev)));
        }
        link("first", None);
        links
    }

    /// The same query at another position.
    fn write_query(self, page_cursor: Option<(&str, &str)>, out: &mut String) {
        let mut separator = '?';
        let mut push = |name: &str, value: &str, out: &mut String| {
            out.push(separator);
            separator = '&';
            // Brackets are delimiters in a URI, so they are encoded as the rest is.
            out.extend(utf8_percent_encode(name, QUERY_VALUE));
            out.push('=');
            out.extend(utf8_percent_encode(value, QUERY_VALUE));
        };
        for (name, value) in Pairs::of(self.query).flatten() {
            if !matches!(name.as_ref(), "after" | "before" | "page") {
                push(&name, &value, out);
            }
        }
        if let Some((name, cursor)) = page_cursor {
            push(name, cursor, out);
        }
    }
}
