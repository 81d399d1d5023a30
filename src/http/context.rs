//! What every answer says of its request: ids for logs and traces.

use axum::extract::Request;
use http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// A request's ids: the client's own where they are safe to repeat, minted ones otherwise.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    request_id: HeaderValue,
    minted: Uuid,
    trace: Option<[u8; 32]>,
}

impl Context {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let minted = Uuid::now_v7();
        let request_id = match headers.get(REQUEST_ID) {
            Some(id) if is_safe(id.as_bytes()) => id.clone(),
            _ => {
                let mut buffer = Uuid::encode_buffer();
                let text = minted.hyphenated().encode_lower(&mut buffer);
                HeaderValue::from_str(text).expect("a UUID is made of visible ASCII")
            }
        };
        Self { request_id, minted, trace: headers.get(TRACEPARENT).and_then(trace) }
    }

    /// The context that a request was given when it came in.
    pub(crate) fn carried_by(request: &Request) -> Self {
        request.extensions().get().cloned().unwrap_or_else(|| Self::of(request.headers()))
    }

    pub(crate) const fn request_id(&self) -> &HeaderValue {
        &self.request_id
    }

    /// The trace that this request belongs to (W3C Trace Context): the caller's, or one of its own.
    pub(crate) fn trace_id(&self) -> String {
        match &self.trace {
            Some(trace) => String::from_utf8_lossy(trace).into_owned(),
            None => self.minted.simple().to_string(),
        }
    }
}

/// At most 128 characters that mean nothing in a log, a header or a page.
fn is_safe(id: &[u8]) -> bool {
    (1..=128).contains(&id.len())
        && id.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(byte))
}

/// The trace id of `00-<trace>-<parent>-<flags>`.
fn trace(header: &HeaderValue) -> Option<[u8; 32]> {
    let bytes = header.as_bytes();
    let hex = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
    if bytes.len() < 55 || bytes.starts_with(b"ff") || bytes[2] != b'-' || bytes[35] != b'-' {
        return None;
    }
    let trace: [u8; 32] = bytes[3..35].try_into().ok()?;
    (trace.iter().all(hex) && trace.iter().any(|byte| *byte != b'0')).then_some(trace)
}
