//! What every answer says of its request: ids for logs and traces.

use std::net::IpAddr;

use axum::extract::Request;
use http::{HeaderMap, HeaderName, HeaderValue};
use uuid::{NoContext, Timestamp, Uuid};

use crate::engine::Terms;

pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// A request's ids: the client's own where they are safe to repeat, minted ones otherwise.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    request_id: HeaderValue,
    minted: Uuid,
    trace: Option<[u8; 32]>,
    /// The request's whole `traceparent`, where it is one.
    parent: Option<HeaderValue>,
    address: Option<IpAddr>,
}

impl Context {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        // None of a process need come before the next one.
        let minted = Uuid::new_v7(Timestamp::now(NoContext));
        let request_id = match headers.get(REQUEST_ID) {
            Some(id) if is_safe(id.as_bytes()) => id.clone(),
            _ => {
                let mut buffer = Uuid::encode_buffer();
                let text = minted.hyphenated().encode_lower(&mut buffer);
                HeaderValue::from_str(text).expect("a UUID is made of visible ASCII")
            }
        };
        let parent = headers.get(TRACEPARENT);
        let trace = parent.and_then(trace);
        Self { request_id, minted, trace, parent: parent.filter(|_| trace.is_some()).cloned(), address: None }
    }

    /// The same, of a request that came over a connection from this address.
    pub(crate) const fn at_address(mut self, address: Option<IpAddr>) -> Self {
        self.address = address;
        self
    }

    /// The context that a request was given when it came in.
    pub(crate) fn carried_by(request: &Request) -> Self {
        request.extensions().get().cloned().unwrap_or_else(|| Self::of(request.headers()))
    }

    pub(crate) const fn request_id(&self) -> &HeaderValue {
        &self.request_id
    }

    /// On what terms this request makes changes.
    pub(super) fn terms(&self, dry_run: bool) -> Terms {
        let text = |value: &HeaderValue| value.to_str().ok().map(str::to_owned);
        let minted = self.minted.simple().to_string();
        let mut terms = Terms::default();
        terms.request = text(&self.request_id);
        // The caller's, or the beginning of a trace of its own (version, trace, parent, not sampled).
        let begun = || format!("00-{minted}-{}-00", &minted[16..]);
        terms.trace = Some(self.parent.as_ref().and_then(text).unwrap_or_else(begun));
        terms.address = self.address;
        terms.dry_run = dry_run;
        terms
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
