//! The security headers of every response: it is text for programs, whatever it contains.

use http::header::{CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderName, HeaderValue};

const NOSNIFF: (HeaderName, HeaderValue) = (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
const NO_REFERRER: (HeaderName, HeaderValue) = (REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
/// A response that is shown as a page may load nothing, and may not be framed.
const CONTENT_POLICY: (HeaderName, HeaderValue) =
    (CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));

/// Adds these headers, unless the response sets them itself.
pub(crate) fn set_security_headers(headers: &mut HeaderMap) {
    for (name, value) in [NOSNIFF, NO_REFERRER, CONTENT_POLICY] {
        // Cached responses have them: a look-up costs less than an entry.
        if !headers.contains_key(&name) {
            headers.insert(name, value);
        }
    }
}
