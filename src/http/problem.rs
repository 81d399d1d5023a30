//! Problem details (RFC 9457): the responses to failures. The one place that maps kinds of errors to statuses.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use super::Context;
use crate::error::{Error, ErrorKind, Fault, FaultLocation, causes};

/// Where the types of problems are described, unless the application sets another base.
pub(crate) const DEFAULT_BASE: &str = "https://docs.rs/resourceful/latest/resourceful/problems/";

/// The status of a kind of failure.
pub(crate) const fn status(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::BadRequest => StatusCode::BAD_REQUEST,
        ErrorKind::Unauthenticated => StatusCode::UNAUTHORIZED,
        ErrorKind::Forbidden => StatusCode::FORBIDDEN,
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        ErrorKind::Conflict => StatusCode::CONFLICT,
        ErrorKind::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
        ErrorKind::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorKind::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ErrorKind::UpgradeRequired => StatusCode::UPGRADE_REQUIRED,
        ErrorKind::Validation => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorKind::PreconditionRequired => StatusCode::PRECONDITION_REQUIRED,
        ErrorKind::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
        ErrorKind::UriTooLong => StatusCode::URI_TOO_LONG,
        ErrorKind::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        ErrorKind::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
        ErrorKind::Internal | ErrorKind::Declaration | ErrorKind::Listen => StatusCode::INTERNAL_SERVER_ERROR,
        ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
    }
}

/// The title of a kind of failure: the same words for every occurrence.
pub(crate) const fn title(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::BadRequest => "The request is malformed",
        ErrorKind::Unauthenticated => "Missing or invalid credential",
        ErrorKind::Forbidden => "Not allowed",
        ErrorKind::NotFound => "Not found",
        ErrorKind::MethodNotAllowed => "Method not allowed",
        ErrorKind::Conflict => "Conflict",
        ErrorKind::PreconditionFailed => "The precondition does not hold",
        ErrorKind::PayloadTooLarge => "The body is too large",
        ErrorKind::UnsupportedMediaType => "Unsupported media type",
        ErrorKind::UpgradeRequired => "Another protocol is required",
        ErrorKind::Validation => "The body is invalid",
        ErrorKind::PreconditionRequired => "A precondition is required",
        ErrorKind::TooManyRequests => "Too many",
        ErrorKind::UriTooLong => "The URI is too long",
        ErrorKind::HeadersTooLarge => "The header fields are too large",
        ErrorKind::RequestTimeout => "The request did not arrive in time",
        ErrorKind::Internal | ErrorKind::Declaration | ErrorKind::Listen => "The server failed",
        ErrorKind::Unavailable => "Not available now",
        ErrorKind::DeadlineExceeded => "The deadline passed",
    }
}

/// A problem document.
#[derive(Debug, Serialize)]
struct Problem<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    instance: &'a str,
    code: &'a str,
    trace_id: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FaultEntry<'a>>,
}

#[derive(Debug, Serialize)]
struct FaultEntry<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pointer: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameter: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    header: Option<&'a str>,
    code: &'a str,
    detail: &'a str,
}

impl<'a> Problem<'a> {
    fn of(error: &'a Error, base: &str, instance: &'a str, trace_id: String) -> Self {
        Self {
            r#type: format!("{base}{}", error.code()),
            title: title(error.kind()),
            status: status(error.kind()).as_u16(),
            detail: error.detail(),
            instance,
            code: error.code(),
            trace_id,
            errors: error.faults().iter().map(FaultEntry::from).collect(),
        }
    }
}

/// A failure as a member of a response.
pub(super) fn json(error: &Error, base: &str, instance: &str, context: &Context) -> serde_json::Value {
    serde_json::to_value(Problem::of(error, base, instance, context.trace_id())).unwrap_or_default()
}

impl<'a> From<&'a Fault> for FaultEntry<'a> {
    fn from(fault: &'a Fault) -> Self {
        let (pointer, parameter, header) = match &fault.at {
            FaultLocation::Pointer(pointer) => (Some(pointer.as_str()), None, None),
            FaultLocation::Parameter(name) => (None, Some(name.as_str()), None),
            FaultLocation::Header(name) => (None, None, Some(*name)),
        };
        Self { pointer, parameter, header, code: &fault.code, detail: &fault.detail }
    }
}

/// The response to a failed request. The cause of a 5xx is logged, under the `trace_id` of the response.
pub(crate) fn respond(error: &Error, base: &str, instance: &str, context: &Context) -> Response {
    let status = status(error.kind());
    let trace_id = context.trace_id();
    if status.is_server_error() {
        let cause = std::error::Error::source(error).map(causes);
        tracing::error!(trace_id, code = error.code(), cause, instance, "request failed");
    }
    let body = serde_json::to_vec(&Problem::of(error, base, instance, trace_id));
    let body = body.unwrap_or_else(|_| b"{}".to_vec());
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::TooManyRequests)
        || error.code() == "key-in-flight"
    {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}
