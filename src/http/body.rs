//! Request bodies: the media type, the size, and JSON that says each thing once.

use axum::body::{Body as RequestBody, Bytes};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde_json::Value as Json;

use super::strict::Unread;
use super::{Body, strict};
use crate::error::{Error, ErrorKind};

pub(super) const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");
pub(super) const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");
pub(super) const ACCEPT_QUERY: HeaderName = HeaderName::from_static("accept-query");

impl Body {
    /// The media types that are read.
    pub(crate) const fn media_types(self) -> &'static [&'static str] {
        match self {
            Self::None => &[],
            Self::Update | Self::BulkUpdate => &["application/merge-patch+json", "application/json"],
            _ => &["application/json"],
        }
    }

    /// The header that names the media types, where the method has one (RFC 5789, RFC 10008, LDP).
    pub(crate) const fn accept(self) -> Option<(HeaderName, HeaderValue)> {
        const JSON: HeaderValue = HeaderValue::from_static("application/json");
        const PATCH: HeaderValue = HeaderValue::from_static("application/merge-patch+json, application/json");
        match self {
            Self::Create | Self::BulkCreate | Self::Action(_) => Some((ACCEPT_POST, JSON)),
            Self::Update | Self::BulkUpdate => Some((ACCEPT_PATCH, PATCH)),
            Self::Query => Some((ACCEPT_QUERY, JSON)),
            Self::None | Self::Replace | Self::BulkDelete => None,
        }
    }
}

/// Reads a JSON body of at most `limit` bytes, where there is any.
pub(super) async fn maybe_json(
    kind: Body,
    headers: &HeaderMap,
    body: RequestBody,
    limit: usize,
) -> Result<Option<Json>, Error> {
    if http_body::Body::is_end_stream(&body) {
        return Ok(None);
    }
    json(kind, headers, body, limit).await.map(Some)
}

/// Reads a JSON body of at most `limit` bytes.
pub(super) async fn json(
    kind: Body,
    headers: &HeaderMap,
    body: RequestBody,
    limit: usize,
) -> Result<Json, Error> {
    check_media_type(kind, headers)?;
    let bytes = bytes(headers, body, limit).await?;
    strict::read(&bytes).map_err(|unread| match unread {
        Unread::Json(error) => {
            Error::new(ErrorKind::BadRequest, "invalid-json", format!("The body is not JSON: {error}."))
        }
        Unread::Numbers(faults) if kind == Body::Query => Error::invalid_query(faults),
        Unread::Numbers(faults) => Error::validation(faults),
    })
}

/// Reads a body of at most `limit` bytes.
pub(super) async fn bytes(headers: &HeaderMap, body: RequestBody, limit: usize) -> Result<Bytes, Error> {
    let declared = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > limit as u64) {
        return Err(too_large(limit));
    }
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large(limit)),
        Err(error) => {
            Err(Error::new(ErrorKind::BadRequest, "incomplete-body", "The body ended early.")
                .with_source(error))
        }
    }
}

fn check_media_type(kind: Body, headers: &HeaderMap) -> Result<(), Error> {
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut parts = given.split(';');
    let essence = parts.next().unwrap_or_default().trim();
    let charset = parts.find_map(|part| {
        let (name, value) = part.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"'))
    });
    let accepted = kind.media_types();
    // JSON is UTF-8 (RFC 8259, 8.1).
    if accepted.iter().any(|known| essence.eq_ignore_ascii_case(known))
        && charset.is_none_or(|charset| charset.eq_ignore_ascii_case("utf-8"))
    {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::UnsupportedMediaType,
        "unsupported-media-type",
        format!("Send the body as {}, in UTF-8.", accepted.join(" or ")),
    ))
}

fn too_large(limit: usize) -> Error {
    Error::new(
        ErrorKind::PayloadTooLarge,
        "payload-too-large",
        format!("A body may have at most {limit} bytes."),
    )
}
