//! What every answer says of itself: that it is text for programs, whatever it holds.

use http::header::{CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderName, HeaderValue};

/// Shown as a page it may load and frame nothing.
static POLICY: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
const NOSNIFF: (HeaderName, HeaderValue) = (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
const NO_REFERRER: (HeaderName, HeaderValue) = (REFERRER_POLICY, HeaderValue::from_static("no-referrer"));

/// Adds these headers, unless the answer says otherwise itself.
pub(crate) fn inert(headers: &mut HeaderMap) {
    if headers.get(CONTENT_SECURITY_POLICY).is_some_and(is_ours) {
        // Remembered answers were here before.
        return;
    }
    for (name, value) in [NOSNIFF, NO_REFERRER, (CONTENT_SECURITY_POLICY, POLICY.clone())] {
        headers.entry(name).or_insert(value);
    }
}

/// Whether it is this very value, and not one that says the same.
fn is_ours(value: &HeaderValue) -> bool {
    std::ptr::eq(value.as_bytes(), POLICY.as_bytes())
}
