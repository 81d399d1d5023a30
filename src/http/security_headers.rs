//! What every answer says of itself: that it is text for programs, whatever it holds.

use http::header::{CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderName, HeaderValue};

const NOSNIFF: (HeaderName, HeaderValue) = (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
const NO_REFERRER: (HeaderName, HeaderValue) = (REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
/// Shown as a page it may load and frame nothing.
const INERT: (HeaderName, HeaderValue) =
    (CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));

/// Adds these headers, unless the answer says otherwise itself.
pub(crate) fn set_security_headers(headers: &mut HeaderMap) {
    for (name, value) in [NOSNIFF, NO_REFERRER, INERT] {
        // Remembered answers have them: to look costs less than an entry.
        if !headers.contains_key(&name) {
            headers.insert(name, value);
        }
    }
}
