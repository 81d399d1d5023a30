//! Converts writes of single items to bulk requests, and the responses back.

use http::header::{CONTENT_TYPE, ETAG, IF_MATCH, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use percent_encoding::percent_decode_str;
use serde_json::{Value as Json, json};

use super::TestResponse;
use crate::app::App;

/// The bulk request with the effect of a single request; `None` if there is none.
pub(super) fn to_bulk_request(
    app: &App,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    body: &[u8],
) -> Option<(Uri, Json)> {
    let (resource, id, id_field) = parse_item_path(app, uri)?;
    let json: Option<Json> = serde_json::from_slice(body).ok();
    // A body that does not survive parsing unchanged is left to the single route.
    let json = json.filter(|json| json.to_string().as_bytes() == body);
    if json.is_none() && !body.is_empty() {
        return None;
    }
    let is_json =
        headers.get(CONTENT_TYPE).is_none_or(|content_type| content_type.as_bytes().ends_with(b"json"));
    if uri.query().is_some() || headers.contains_key("prefer") || !is_json {
        return None;
    }
    let tag = headers.get(IF_MATCH).and_then(|tag| tag.to_str().ok());
    let bulk_body = match (method.as_str(), id, json) {
        ("POST", None, Some(item)) => json!({"items": [item]}),
        ("PATCH", Some(id), Some(Json::Object(mut patch))) if !patch.contains_key(&id_field) => {
            patch.insert(id_field, id.into());
            if let Some(tag) = tag {
                patch.insert("if_match".to_owned(), tag.into());
            }
            json!({"items": [patch]})
        }
        ("DELETE", Some(id), None) if tag.is_none() => json!({"ids": [id]}),
        _ => return None,
    };
    Some((format!("{resource}/bulk?mode=partial").parse().ok()?, bulk_body))
}

/// The collection of a path, the item's id if it has one, and the name of the id field.
fn parse_item_path(app: &App, uri: &Uri) -> Option<(String, Option<String>, String)> {
    let state = app.state();
    for entry in state.engine.catalog.entries() {
        let definition = &entry.definition;
        let collection = format!("{}/{}", state.prefix, definition.name());
        let Some(rest) = uri.path().strip_prefix(&collection) else { continue };
        let id_field = entry.schema.id_field().name.clone();
        if definition.bulk.is_none() || rest.get(1..).is_some_and(|rest| rest.contains('/')) {
            return None;
        }
        match rest.strip_prefix('/') {
            _ if rest.is_empty() => return Some((collection, None, id_field)),
            Some(id) => {
                let id = percent_decode_str(id).decode_utf8().ok()?;
                return (!definition.is_reserved(&id)).then(|| (collection, Some(id.into_owned()), id_field));
            }
            None => {}
        }
    }
    None
}

/// The result of the one item, as a response of the single route.
pub(super) fn from_bulk_response(response: TestResponse) -> TestResponse {
    if response.status() != 207 {
        return response;
    }
    let result = &response.json()["results"][0];
    let status = result["status"].as_u64().and_then(|status| StatusCode::from_u16(status as u16).ok());
    let mut headers = response.headers().clone();
    for name in [ETAG, LOCATION] {
        if let Some(value) = result[name.as_str()].as_str().and_then(|value| value.parse().ok()) {
            headers.insert(name, value);
        }
    }
    let (body, content_type) = match (result.get("body"), result.get("problem")) {
        (Some(body), _) => (body.to_string(), "application/json"),
        (_, Some(problem)) => (problem.to_string(), "application/problem+json"),
        _ => (String::new(), ""),
    };
    headers.remove(CONTENT_TYPE);
    if !content_type.is_empty() {
        headers.insert(HeaderName::from_static("content-type"), HeaderValue::from_static(content_type));
    }
    TestResponse::new(status.expect("a result has a status"), headers, body.into())
}
