//! Request bodies: the media type, the size, and JSON without duplicate members.

use std::time::Duration;

use axum::body::{Body as RequestBody, Bytes};
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body_util::BodyExt as _;
use serde_json::Value as Json;

use super::content_coding::Coding;
use super::strict_json::ParseFailure;
use super::{Body, strict_json};
use crate::error::{Error, ErrorKind};

pub(super) const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");
pub(super) const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");
pub(super) const ACCEPT_QUERY: HeaderName = HeaderName::from_static("accept-query");

/// The fewest bytes per JSON value, on average, in a body of the maximum size.
const BYTES_PER_VALUE: usize = 8;

impl Body {
    /// The media types that are accepted.
    pub(crate) const fn media_types(self) -> &'static [&'static str] {
        match self {
            Self::None => &[],
            Self::Update | Self::BulkUpdate => &["application/merge-patch+json", "application/json"],
            _ => &["application/json"],
        }
    }

    /// The header that names the accepted media types: the method's own, where it has one (RFC 5789, RFC 10008, LDP),
    /// or `Accept` (RFC 9110, 12.5.1).
    pub(crate) const fn accept(self) -> Option<(HeaderName, HeaderValue)> {
        const JSON: HeaderValue = HeaderValue::from_static("application/json");
        const PATCH: HeaderValue = HeaderValue::from_static("application/merge-patch+json, application/json");
        match self {
            Self::Create | Self::BulkCreate | Self::Action(_) => Some((ACCEPT_POST, JSON)),
            Self::Update | Self::BulkUpdate => Some((ACCEPT_PATCH, PATCH)),
            Self::Query => Some((ACCEPT_QUERY, JSON)),
            Self::Replace | Self::BulkDelete => Some((ACCEPT, JSON)),
            Self::None => None,
        }
    }
}

/// The limits of a request's body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyLimit {
    /// The most bytes, decoded.
    pub(crate) bytes: usize,
    /// How long a client may pause while sending it.
    pub(crate) idle_timeout: Duration,
}

/// Reads a JSON body within its limit, if there is a body.
pub(super) async fn read_optional_json(
    kind: Body,
    headers: &HeaderMap,
    body: RequestBody,
    limit: BodyLimit,
) -> Result<Option<Json>, Error> {
    if http_body::Body::is_end_stream(&body) {
        return Ok(None);
    }
    read_json(kind, headers, body, limit).await.map(Some)
}

/// Reads a JSON body within its limit.
pub(super) async fn read_json(
    kind: Body,
    headers: &HeaderMap,
    body: RequestBody,
    limit: BodyLimit,
) -> Result<Json, Error> {
    check_media_type(kind, headers)?;
    // The supported codings have been removed by now.
    Coding::of(headers)?;
    parse_json(kind, &read_bytes(headers, body, limit).await?, limit.bytes)
}

/// Parses JSON with a bounded number of values.
pub(super) fn parse_json(kind: Body, bytes: &[u8], limit: usize) -> Result<Json, Error> {
    let most = (limit / BYTES_PER_VALUE).max(1_024);
    if bytes.len() > most && count_values(bytes) > most {
        let detail = format!("A body may have at most {most} values, of any kind.");
        return Err(Error::new(ErrorKind::PayloadTooLarge, "payload-too-large", detail));
    }
    strict_json::parse(bytes).map_err(|failure| match failure {
        ParseFailure::Json(error) => {
            Error::new(ErrorKind::BadRequest, "invalid-json", format!("The body is not JSON: {error}."))
        }
        ParseFailure::Numbers(faults) if kind == Body::Query => Error::invalid_query(faults),
        ParseFailure::Numbers(faults) => Error::validation(faults),
    })
}

/// Reads a body within its limit, as it was sent.
pub(super) async fn read_bytes(
    headers: &HeaderMap,
    mut body: RequestBody,
    BodyLimit { bytes: limit, idle_timeout }: BodyLimit,
) -> Result<Bytes, Error> {
    let declared = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > limit as u64) {
        return Err(too_large(limit));
    }
    let (mut first, mut rest) = (Bytes::new(), Vec::new());
    while let Some(frame) =
        tokio::time::timeout(idle_timeout, body.frame()).await.map_err(|_| body_timeout(idle_timeout))?
    {
        // Trailers are ignored.
        let Ok(bytes) = frame.map_err(body_error)?.into_data() else { continue };
        if first.len() + rest.len() + bytes.len() > limit {
            return Err(too_large(limit));
        }
        // Most bodies are one chunk; many chunks would take more memory than their bytes.
        if first.is_empty() && rest.is_empty() {
            first = bytes;
        } else {
            if rest.is_empty() {
                // Reserves at once what was declared, which is within the limit.
                let declared = declared.and_then(|length| usize::try_from(length).ok());
                rest.reserve_exact(declared.unwrap_or(first.len() + bytes.len()));
            }
            rest.extend_from_slice(&std::mem::take(&mut first));
            rest.extend_from_slice(&bytes);
        }
    }
    Ok(if rest.is_empty() { first } else { rest.into() })
}

/// The memory budget has no room for another body.
#[derive(Debug, thiserror::Error)]
#[error("the memory limit for request bodies is reached")]
pub(super) struct BudgetExceeded;

/// The error for a body that could not be read to its end.
fn body_error(error: axum::Error) -> Error {
    let mut inner = error.into_inner();
    // Each layer of the body may have wrapped it.
    let error = loop {
        inner = match inner.downcast::<axum::Error>() {
            Ok(wrapped) => wrapped.into_inner(),
            Err(error) => match error.downcast::<Error>() {
                Ok(refused) => return *refused,
                Err(error) => break axum::Error::new(error),
            },
        };
    };
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(one) = cause {
        if one.is::<BudgetExceeded>() {
            let detail = "The server's memory limit for request bodies is reached. Try again.";
            return Error::new(ErrorKind::Unavailable, "overloaded", detail).with_source(error);
        }
        cause = one.source();
    }
    Error::new(ErrorKind::BadRequest, "incomplete-body", "The body ended early.").with_source(error)
}

fn body_timeout(idle_timeout: Duration) -> Error {
    let detail =
        format!("The request body stalled for {} ms; nothing was changed.", idle_timeout.as_millis());
    Error::new(ErrorKind::RequestTimeout, "request-timeout", detail)
}

/// Counts the values of a JSON text: each takes much more memory than text.
fn count_values(json: &[u8]) -> usize {
    let (mut count, mut in_text, mut is_escaped, mut is_open) = (1, false, false, false);
    for byte in json {
        if in_text {
            match byte {
                _ if is_escaped => is_escaped = false,
                b'\\' => is_escaped = true,
                b'"' => in_text = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' => continue,
            // An empty container has no values; any other has one more than it has commas.
            b']' | b'}' if is_open => count -= 1,
            b',' | b'[' | b'{' => count += 1,
            b'"' => in_text = true,
            _ => {}
        }
        is_open = matches!(byte, b'[' | b'{');
    }
    count
}

fn check_media_type(kind: Body, headers: &HeaderMap) -> Result<(), Error> {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut parts = content_type.split(';');
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

pub(super) fn too_large(limit: usize) -> Error {
    Error::new(
        ErrorKind::PayloadTooLarge,
        "payload-too-large",
        format!("A body may have at most {limit} bytes."),
    )
}

#[cfg(test)]
mod tests {
    use super::count_values;

    #[test]
    fn counts_json_values() {
        for (json, count) in [
            ("1", 1),
            ("[]", 1),
            ("[ ]", 1),
            ("{}", 1),
            ("[1]", 2),
            ("[{},{}]", 3),
            (r#"{"a": [1, 2, {"b": null}], "c": "x,[{\"]"}"#, 7),
            (r#"["\\", 1]"#, 3),
        ] {
            assert_eq!(count_values(json.as_bytes()), count, "{json}");
        }
    }
}
