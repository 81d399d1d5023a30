//! The error type of the crate: what went wrong, in words that a client may read.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

use resourceful_contract::{ErrorKind as StorageKind, StorageError};

/// The maximum number of faults in a response: a body may have more of them than a response should list.
pub(crate) const MAX_FAULTS: usize = 1_000;

/// A failed operation.
///
/// Only [`detail`](Self::detail) and the [`faults`](Self::faults) are ever sent to a client, as problem details (RFC
/// 9457); the source goes to the log.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    code: &'static str,
    detail: Cow<'static, str>,
    faults: Vec<Fault>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The kind of a failure; each has one HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request is malformed (400).
    BadRequest,
    /// Missing or invalid credentials (401).
    Unauthenticated,
    /// Visible, but not allowed (403).
    Forbidden,
    /// Absent, or not visible to this caller (404).
    NotFound,
    /// The resource does not have this method (405).
    MethodNotAllowed,
    /// The change conflicts with other rows, or with the state of this one (409).
    Conflict,
    /// `If-Match` or `If-None-Match` does not hold (412).
    PreconditionFailed,
    /// The body is larger than the application accepts (413).
    PayloadTooLarge,
    /// The body has a media type that is not supported here (415).
    UnsupportedMediaType,
    /// The endpoint requires another protocol (426).
    UpgradeRequired,
    /// The body is well-formed, but its content is not allowed (422).
    Validation,
    /// The resource requires `If-Match` (428).
    PreconditionRequired,
    /// A caller or a tenant has reached its limit of concurrent use (429).
    TooManyRequests,
    /// A declaration has faults, so there is no application; never sent to a client.
    Declaration,
    /// The address cannot be listened on; never sent to a client.
    Listen,
    /// The URI is longer than the server reads (414).
    UriTooLong,
    /// The head of the request is larger than the server reads (431).
    HeadersTooLarge,
    /// The client stopped sending its request (408).
    RequestTimeout,
    /// An internal failure of the server (500).
    Internal,
    /// Overloaded, or the storage is unavailable; a retry may succeed (503).
    Unavailable,
    /// The deadline of the request passed (504).
    DeadlineExceeded,
}

/// One fault of a request: its location and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// The location of the fault.
    pub at: FaultLocation,
    /// A machine-readable code: `required`, `type`, `range`, `unknown` …
    pub code: Cow<'static, str>,
    /// A human-readable sentence.
    pub detail: String,
}

/// The location of a fault in a request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultLocation {
    /// In the body, as a JSON Pointer (RFC 6901).
    Pointer(String),
    /// In the query string, by the parameter's name.
    Parameter(String),
    /// In a header, by its name.
    Header(&'static str),
}

impl Fault {
    /// A fault in the body, at a JSON Pointer (RFC 6901).
    #[must_use]
    pub fn pointer(
        pointer: impl Into<String>,
        code: impl Into<Cow<'static, str>>,
        detail: impl Into<String>,
    ) -> Self {
        Self { at: FaultLocation::Pointer(pointer.into()), code: code.into(), detail: detail.into() }
    }

    /// A fault in the query string.
    #[must_use]
    pub fn parameter(
        name: impl Into<String>,
        code: impl Into<Cow<'static, str>>,
        detail: impl Into<String>,
    ) -> Self {
        Self { at: FaultLocation::Parameter(name.into()), code: code.into(), detail: detail.into() }
    }

    /// A fault in a header.
    #[must_use]
    pub fn header(name: &'static str, code: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        Self { at: FaultLocation::Header(name), code: code.into(), detail: detail.into() }
    }

    /// The same fault, where its body is nested inside of another at this pointer.
    pub(crate) fn nested_at(mut self, location: &str) -> Self {
        if let FaultLocation::Pointer(pointer) = &mut self.at {
            pointer.insert_str(0, location);
        }
        self
    }
}

impl Error {
    /// An error with a code and a detail that a client may read.
    #[must_use]
    pub fn new(kind: ErrorKind, code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner { kind, code, detail: detail.into(), faults: Vec::new(), source: None }))
    }

    /// The same, with the faults it is about.
    #[must_use]
    pub fn with_faults(mut self, faults: Vec<Fault>) -> Self {
        self.0.faults = faults;
        self
    }

    /// The same, with its cause, which goes to the log only.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The kind of this failure.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// A machine-readable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        self.0.code
    }

    /// A human-readable sentence.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// The faults of the request, where it has any.
    #[must_use]
    pub fn faults(&self) -> &[Fault] {
        &self.0.faults
    }

    /// The same failure, where its body is nested inside of another at this pointer.
    pub(crate) fn nested_at(mut self, location: &str) -> Self {
        self.0.faults = self.0.faults.into_iter().map(|fault| fault.nested_at(location)).collect();
        self
    }

    /// The same failure of a request whose parameters are members of its body.
    pub(crate) fn with_body_pointers(mut self) -> Self {
        for fault in &mut self.0.faults {
            if let FaultLocation::Parameter(name) = &fault.at {
                fault.at = FaultLocation::Pointer(format!("/{}", escape_pointer(name)));
            }
        }
        self
    }

    pub(crate) fn not_found() -> Self {
        Self::new(ErrorKind::NotFound, "not-found", "Nothing exists at this path, or you may not see it.")
    }

    pub(crate) fn method_not_allowed() -> Self {
        Self::new(ErrorKind::MethodNotAllowed, "method-not-allowed", "This path has the methods in `Allow`.")
    }

    pub(crate) fn internal(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(
            ErrorKind::Internal,
            "internal",
            "The server failed. The cause is in its log under this trace_id.",
        )
        .with_source(source)
    }

    pub(crate) fn unavailable() -> Self {
        Self::new(ErrorKind::Unavailable, "unavailable", "The server cannot answer now. Try again.")
    }

    fn query_timeout() -> Self {
        let detail = "The query exceeded the database's time limit, and nothing was changed. Request less: filter by indexed fields, leave out the count or related items.";
        Self::new(ErrorKind::DeadlineExceeded, "query-timeout", detail)
    }

    pub(crate) fn concurrent_change() -> Self {
        let detail = "Concurrent requests kept changing the same items, and nothing was changed. Try again.";
        Self::new(ErrorKind::Conflict, "concurrent-change", detail)
    }

    pub(crate) fn validation(mut faults: Vec<Fault>) -> Self {
        faults.sort();
        faults.dedup_by(|a, b| a.at == b.at && a.code == b.code);
        faults.truncate(MAX_FAULTS);
        Self::new(ErrorKind::Validation, "validation", "The body is invalid: see `errors`.")
            .with_faults(faults)
    }

    pub(crate) fn invalid_query(mut faults: Vec<Fault>) -> Self {
        faults.truncate(MAX_FAULTS);
        Self::new(
            ErrorKind::BadRequest,
            "invalid-query",
            "The query has unknown or invalid parameters, and none was ignored: see `errors`.",
        )
        .with_faults(faults)
    }

    pub(crate) fn precondition_failed(header: &'static str) -> Self {
        match header {
            "if-match" => Self::mismatch(
                "If-Match",
                "The item has changed since: read it again and repeat the change on its new ETag.",
            ),
            _ => Self::mismatch("If-None-Match", "The item exists already."),
        }
    }

    pub(crate) fn weak_etag() -> Self {
        Self::mismatch(
            "If-Match",
            "A weak tag (W/\"…\") matches nothing here (RFC 9110, 13.1.1): a proxy that changes responses may have made it weak. Send the tag without `W/`; whether the item has changed was not compared.",
        )
    }

    pub(crate) fn unknown_etag() -> Self {
        Self::mismatch(
            "If-Match",
            "This ETag is of no version of this item: send the ETag of the item's last response.",
        )
    }

    fn mismatch(header: &'static str, detail: &'static str) -> Self {
        Self::new(ErrorKind::PreconditionFailed, "precondition-failed", detail)
            .with_faults(vec![Fault::header(header, "mismatch", detail)])
    }
}

impl From<StorageError> for Error {
    fn from(error: StorageError) -> Self {
        let pointers = |code: &'static str, detail: &str| -> Vec<Fault> {
            error
                .fields()
                .iter()
                .map(|field| Fault::pointer(format!("/{}", escape_pointer(field)), code, detail))
                .collect()
        };
        match error.kind() {
            StorageKind::NotFound => Self::not_found(),
            StorageKind::VersionMismatch => Self::precondition_failed("if-match").with_source(error),
            StorageKind::UniqueViolation => {
                let faults = pointers("unique", "Another item has this value already.");
                Self::new(ErrorKind::Conflict, "unique", "Another item holds the same unique values.")
                    .with_faults(faults)
                    .with_source(error)
            }
            StorageKind::ExclusionViolation => {
                let faults = pointers("exclusion", "Another item excludes this value.");
                Self::new(ErrorKind::Conflict, "exclusion", "Another item excludes these values.")
                    .with_faults(faults)
                    .with_source(error)
            }
            StorageKind::ForeignKeyViolation => {
                let faults = pointers(
                    "foreign-key",
                    "This refers to an item that is not there, or is still referred to.",
                );
                Self::new(
                    ErrorKind::Conflict,
                    "foreign-key",
                    "The item refers to one that is not there, or others still refer to it.",
                )
                .with_faults(faults)
                .with_source(error)
            }
            StorageKind::Rejected => {
                Self::new(ErrorKind::Validation, "validation", "The database does not accept this change.")
                    .with_faults(pointers("rejected", "The database does not accept this value."))
                    .with_source(error)
            }
            StorageKind::TimedOut => Self::query_timeout().with_source(error),
            StorageKind::Contended => Self::concurrent_change().with_source(error),
            StorageKind::Unavailable => Self::unavailable().with_source(error),
            _ => Self::internal(error),
        }
    }
}

/// A report for people, where `main` returns the error: the failure, its faults and their locations, and every cause.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut report = self.0.detail.to_string();
        f.write_str(&report)?;
        for fault in &self.0.faults {
            let (FaultLocation::Pointer(location) | FaultLocation::Parameter(location)) = &fault.at else {
                continue;
            };
            write!(f, "\n  {location}: {}", fault.detail)?;
        }
        let mut cause = self.source();
        while let Some(one) = cause {
            let text = one.to_string();
            if !report.contains(&text) {
                write!(f, "\n  because: {text}")?;
                report.push_str(&text);
            }
            cause = one.source();
        }
        Ok(())
    }
}

/// The code and the detail; with `{:#}` the causes as well, for logs.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.source() {
            // The detail is for clients, which must not see the cause.
            Some(source) if f.alternate() && self.kind() == ErrorKind::Internal => {
                return write!(f, "{}: {}", self.0.code, causes(source));
            }
            _ => write!(f, "{}: {}", self.0.code, self.0.detail)?,
        }
        for fault in &self.0.faults {
            let (FaultLocation::Pointer(location) | FaultLocation::Parameter(location)) = &fault.at else {
                continue;
            };
            write!(f, "; {location}: {}", fault.detail)?;
        }
        match self.source() {
            Some(source) if f.alternate() => write!(f, ": {}", causes(source)),
            _ => Ok(()),
        }
    }
}

/// A failure and its causes, in one line; a cause that repeats the text before it is left out.
pub(crate) fn causes(error: &dyn StdError) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(one) = cause {
        let text = one.to_string();
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = one.source();
    }
    line
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

/// A name as one step of a JSON Pointer (RFC 6901, 3).
pub(crate) fn escape_pointer(name: &str) -> Cow<'_, str> {
    if name.contains(['~', '/']) {
        Cow::Owned(name.replace('~', "~0").replace('/', "~1"))
    } else {
        Cow::Borrowed(name)
    }
}
