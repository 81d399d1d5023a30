//! A response in a test.

use std::fmt::{self, Write as _};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json::Value as Json;

/// A response.
///
/// `Display` writes the parts that a snapshot should pin: the status, the headers that are part of the contract in
/// alphabetical order, and the body, indented. Values that differ between runs (request and trace ids) are masked.
#[derive(Clone, Debug)]
pub struct TestResponse {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl TestResponse {
    pub(super) const fn new(status: StatusCode, headers: HeaderMap, body: Bytes) -> Self {
        Self { status, headers, body }
    }

    /// The status code.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status.as_u16()
    }

    /// The value of the first header with this name, if there is one and it is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// All headers.
    #[must_use]
    pub const fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The body's bytes.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.body
    }

    /// The body as text.
    ///
    /// # Panics
    /// If it is not UTF-8.
    #[must_use]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is text")
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// If it is not JSON.
    #[must_use]
    pub fn json(&self) -> Json {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic_with(&format!("the body is JSON ({error}): {self}")))
    }

    /// The `items` of a list.
    ///
    /// # Panics
    /// If the body is no list.
    #[must_use]
    pub fn items(&self) -> Vec<Json> {
        self.json()["items"].as_array().cloned().unwrap_or_else(|| panic_with(&format!("a list: {self}")))
    }
}

#[expect(clippy::panic, reason = "a test fails by panicking, and its message is the answer")]
fn panic_with(expectation: &str) -> ! {
    panic!("expected {expectation}")
}

impl fmt::Display for TestResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.status)?;
        let mut headers: Vec<_> = self.headers.iter().collect();
        headers.sort_by(|a, b| a.0.as_str().cmp(b.0.as_str()));
        for (name, value) in headers {
            let value = if name == "x-request-id" { "…" } else { value.to_str().unwrap_or("(not text)") };
            writeln!(f, "{name}: {value}")?;
        }
        f.write_char('\n')?;
        match serde_json::from_slice::<Json>(&self.body) {
            Ok(mut json) => {
                if let Some(trace) = json.get_mut("trace_id") {
                    *trace = "…".into();
                }
                write!(f, "{json:#}")
            }
            Err(_) => f.write_str(&String::from_utf8_lossy(&self.body)),
        }
    }
}
