//! The ids of a request for logs and traces, which every response repeats.

use std::net::IpAddr;

use axum::extract::Request;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;
use uuid::{NoContext, Timestamp, Uuid};

use crate::engine::WriteContext;

pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// A request's ids: the client's own where they are safe to repeat, generated ones otherwise.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    request_id: HeaderValue,
    generated_id: Uuid,
    trace: Option<[u8; 32]>,
    /// The request's whole `traceparent`, if it is valid.
    traceparent: Option<HeaderValue>,
    address: Option<IpAddr>,
    deadline: Option<Instant>,
}

impl Context {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        // The ids of one process need no order among themselves.
        let generated_id = Uuid::new_v7(Timestamp::now(NoContext));
        let request_id = match headers.get(REQUEST_ID) {
            Some(id) if is_safe(id.as_bytes()) => id.clone(),
            _ => {
                let mut buffer = Uuid::encode_buffer();
                let text = generated_id.hyphenated().encode_lower(&mut buffer);
                HeaderValue::from_str(text).expect("a UUID is made of visible ASCII")
            }
        };
        // Two of them count as none (W3C Trace Context, 3.2).
        let mut parents = headers.get_all(TRACEPARENT).iter();
        let parent = parents.next().filter(|_| parents.next().is_none());
        let trace = parent.and_then(parse_trace_id);
        Self {
            request_id,
            generated_id,
            trace,
            traceparent: parent.filter(|_| trace.is_some()).cloned(),
            address: None,
            deadline: None,
        }
    }

    /// The same, for a request with this deadline for its response.
    pub(crate) const fn with_deadline(mut self, deadline: Option<Instant>) -> Self {
        self.deadline = deadline;
        self
    }

    /// The same, for a request over a connection from this address.
    pub(crate) const fn with_address(mut self, address: Option<IpAddr>) -> Self {
        self.address = address;
        self
    }

    /// The address of the connection's peer.
    pub(super) const fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// The context that a request was given on arrival.
    pub(crate) fn of_request(request: &Request) -> Self {
        request.extensions().get().cloned().unwrap_or_else(|| Self::of(request.headers()))
    }

    pub(crate) const fn request_id(&self) -> &HeaderValue {
        &self.request_id
    }

    /// The write context of the changes that this request makes.
    pub(super) fn write_context(&self, dry_run: bool) -> WriteContext {
        let text = |value: &HeaderValue| value.to_str().ok().map(str::to_owned);
        let generated_id = self.generated_id.simple().to_string();
        let mut write_context = WriteContext::default();
        write_context.request = text(&self.request_id);
        // The caller's, or the beginning of a new trace (version, trace, parent, not sampled).
        let new_trace = || format!("00-{generated_id}-{}-00", &generated_id[16..]);
        write_context.trace = Some(self.traceparent.as_ref().and_then(text).unwrap_or_else(new_trace));
        write_context.address = self.address;
        write_context.deadline = self.deadline;
        write_context.dry_run = dry_run;
        write_context
    }

    /// The trace that this request belongs to (W3C Trace Context): the caller's, or a new one.
    pub(crate) fn trace_id(&self) -> String {
        match &self.trace {
            Some(trace) => String::from_utf8_lossy(trace).into_owned(),
            None => self.generated_id.simple().to_string(),
        }
    }
}

/// At most 128 characters that have no special meaning in a log, a header or a page.
fn is_safe(id: &[u8]) -> bool {
    (1..=128).contains(&id.len())
        && id.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(byte))
}

/// The trace id of a `traceparent` of version 00: `00-<trace>-<parent>-<flags>`, 55 characters (W3C Trace Context,
/// 3.2.2). Any other value begins a new trace: the id is kept in events, which others read.
fn parse_trace_id(header: &HeaderValue) -> Option<[u8; 32]> {
    const LENGTHS: [usize; 4] = [2, 32, 16, 2];
    let text = header.to_str().ok()?;
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let parts: Vec<&str> = text.splitn(5, '-').collect();
    let is_well_formed = parts.len() == LENGTHS.len()
        && parts.iter().zip(LENGTHS).all(|(part, length)| part.len() == length && part.bytes().all(hex));
    if !is_well_formed || parts[0] != "00" {
        return None;
    }
    // An id of zeros is invalid.
    let is_id = |part: &str| part.bytes().any(|byte| byte != b'0');
    if !is_id(parts[1]) || !is_id(parts[2]) {
        return None;
    }
    parts[1].as_bytes().try_into().ok()
}
