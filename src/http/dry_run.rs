//! The response to a dry run.

use axum::body::Body;
use axum::response::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value as Json, json};

use super::prefer::PREFERENCE_APPLIED;
use super::response::JSON;
use crate::engine::Call;
use crate::error::Error;

/// The response that the change would have had, and the events that would have been published.
pub(super) async fn dry_run_response(response: Response, call: &Call<'_>) -> Result<Response, Error> {
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.map_err(Error::internal)?.to_bytes();
    let body: Json = match bytes.is_empty() {
        true => Json::Null,
        false => serde_json::from_slice(&bytes).map_err(Error::internal)?,
    };
    let mut outcome = json!({"status": parts.status.as_u16(), "headers": {}, "body": body});
    for name in [http::header::LOCATION, http::header::ETAG] {
        if let Some(value) = parts.headers.get(&name).and_then(|value| value.to_str().ok()) {
            outcome["headers"][name.as_str()] = value.into();
        }
    }
    outcome["events"] = call.dry_run_events().await?;
    let mut response = Response::new(Body::from(serde_json::to_vec(&outcome).map_err(Error::internal)?));
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(PREFERENCE_APPLIED, HeaderValue::from_static("dry-run"));
    Ok(response)
}
