//! A compact copy of the head of a long-lived request.

use axum::body::Body;
use axum::extract::Request;
use http::request::Parts;
use http::{Extensions, HeaderName, HeaderValue, Method, Version};

/// A request's method, URI, headers and extensions, written out: parsed parts take many times the memory, and keep
/// everything that was read from the connection.
pub(super) struct CompactHead {
    version: Version,
    /// The method, the URI and each header name and value, one per line: none of them contains a line break.
    lines: Box<[u8]>,
    extensions: Extensions,
}

impl CompactHead {
    pub(super) fn of(parts: &Parts) -> Self {
        let mut lines = Vec::new();
        let uri = parts.uri.to_string();
        let headers =
            parts.headers.iter().flat_map(|(name, value)| [name.as_str().as_bytes(), value.as_bytes()]);
        for line in [parts.method.as_str().as_bytes(), uri.as_bytes()].into_iter().chain(headers) {
            lines.extend_from_slice(line);
            lines.push(b'\n');
        }
        // An empty map takes no memory.
        let extensions =
            if parts.extensions.is_empty() { Extensions::new() } else { parts.extensions.clone() };
        Self { version: parts.version, lines: lines.into(), extensions }
    }

    /// The parts that it was made of; header values are marked sensitive, which keeps them out of logs.
    pub(super) fn parts(&self) -> Parts {
        let mut parts = Request::new(Body::empty()).into_parts().0;
        let mut lines = self.lines.split(|byte| *byte == b'\n');
        parts.version = self.version;
        parts.extensions = self.extensions.clone();
        if let Some(method) = lines.next().and_then(|line| Method::from_bytes(line).ok()) {
            parts.method = method;
        }
        if let Some(uri) = lines.next().and_then(|line| line.try_into().ok()) {
            parts.uri = uri;
        }
        while let (Some(name), Some(value)) = (lines.next(), lines.next()) {
            if let (Ok(name), Ok(mut value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
            {
                value.set_sensitive(true);
                parts.headers.append(name, value);
            }
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restores_request_parts() {
        let request = Request::builder()
            .method("QUERY")
            .uri("http://shop.example/orders?q=a%20b")
            .version(Version::HTTP_2);
        let request = request
            .header("accept", "a")
            .header("cookie", "b")
            .header("accept", "")
            .header("x-odd", &b"\xe9"[..]);
        let (parts, _) = request.extension(7_u8).body(Body::empty()).unwrap().into_parts();
        let restored = CompactHead::of(&parts).parts();
        assert_eq!(
            (&restored.method, &restored.uri, restored.version),
            (&parts.method, &parts.uri, parts.version)
        );
        assert_eq!(restored.headers, parts.headers);
        assert!(restored.headers.values().all(HeaderValue::is_sensitive));
        assert_eq!(restored.extensions.get::<u8>(), Some(&7));
    }
}
