//! Errors of storages.

use std::error::Error as StdError;
use std::fmt;

use crate::report::Report;

/// The error of a storage: a kind that callers act on, context for the log, and the cause.
///
/// `Display` is one line with all causes, for logs. `Debug` is a [`Report`](crate::Report), which is what Rust prints where
/// `main` returns the error. Neither of them nor the cause ever reaches a client: the engine's response is made from the
/// kind, field names and messages of its own.
pub struct StorageError {
    kind: ErrorKind,
    /// Position of the failed change in the change set.
    change: Option<usize>,
    /// The affected fields, by their wire names.
    fields: Vec<String>,
    context: Vec<(&'static str, String)>,
    help: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// Error kinds that the engine treats differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The row of an update or delete does not exist, or its guard's filter excludes it.
    NotFound,
    /// The row exists in another version than the guard's.
    VersionMismatch,
    /// Another row has the same unique values; `fields` names them if known.
    UniqueViolation,
    /// Another row excludes this one by a rule other than equality (an exclusion constraint); `fields` names the fields of
    /// the constraint if known.
    ExclusionViolation,
    /// A referenced row does not exist, or a row to be deleted is still referenced; `fields` names the referencing fields if
    /// known.
    ForeignKeyViolation,
    /// The database refused a change because of a constraint of its own (check, not null, length, a trigger); `fields` names
    /// the fields with refused values if known.
    Rejected,
    /// Concurrent changes conflicted repeatedly (locks, deadlocks, serialization failures), and nothing was changed; the
    /// storage has retried within its limits.
    Contended,
    /// The statement exceeded its time limit and was ended.
    TimedOut,
    /// Temporarily unavailable, worth a retry: no connection, shutting down, or a change while the database is read-only.
    Unavailable,
    /// A stored value cannot be decoded as its declared type.
    Corrupt,
    /// The storage does not support the request, as its capabilities state.
    Unsupported,
    /// Any other error.
    Internal,
}

impl StorageError {
    /// An error of this kind.
    #[must_use]
    pub const fn new(kind: ErrorKind) -> Self {
        Self { kind, change: None, fields: Vec::new(), context: Vec::new(), help: None, source: None }
    }

    /// Sets the position of the failed change in the change set.
    #[must_use]
    pub fn at_change(mut self, position: usize) -> Self {
        self.change = Some(position);
        self
    }

    /// Sets the affected fields (wire names).
    #[must_use]
    pub fn with_fields(mut self, fields: Vec<String>) -> Self {
        self.fields = fields;
        self
    }

    /// Adds a key-value pair of context for the log.
    #[must_use]
    pub fn with_context(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.context.push((key, value.into()));
        self
    }

    /// Sets the fix: what a person who reads the error should do.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Sets the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The kind of this error.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The fix, if one is known.
    #[must_use]
    pub fn help(&self) -> Option<&str> {
        self.help.as_deref()
    }

    /// The position of the failed change in the change set, if one failed.
    #[must_use]
    pub const fn change(&self) -> Option<usize> {
        self.change
    }

    /// The affected fields, by their wire names.
    #[must_use]
    pub fn fields(&self) -> &[String] {
        &self.fields
    }
}

impl ErrorKind {
    /// A short description.
    const fn summary(self) -> &'static str {
        match self {
            Self::NotFound => "no such row",
            Self::VersionMismatch => "the row has another version",
            Self::UniqueViolation => "another row holds the same unique values",
            Self::ExclusionViolation => "another row excludes this one",
            Self::ForeignKeyViolation => "a foreign key does not hold",
            Self::Rejected => "the database refused a change",
            Self::Contended => "concurrent changes conflicted",
            Self::TimedOut => "the statement exceeded its time limit",
            Self::Unavailable => "the storage is not available",
            Self::Corrupt => "a stored value does not read as its declared type",
            Self::Unsupported => "the storage cannot do this",
            Self::Internal => "the storage failed",
        }
    }
}

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.summary())?;
        if !self.fields.is_empty() {
            write!(f, "; fields: {}", self.fields.join(", "))?;
        }
        for (key, value) in &self.context {
            write!(f, "; {key}: {value}")?;
        }
        let mut previous = String::new();
        let mut next = StdError::source(self);
        while let Some(cause) = next {
            let text = cause.to_string();
            // Many errors repeat their cause.
            if !previous.contains(&text) {
                write!(f, "; cause: {text}")?;
                previous = text;
            }
            next = cause.source();
        }
        if let Some(help) = &self.help {
            write!(f, "; help: {help}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut report = Report::new(self.kind.summary());
        if let Some(change) = self.change {
            report = report.detail("change", change.to_string());
        }
        if !self.fields.is_empty() {
            report = report.detail("fields", self.fields.join(", "));
        }
        for (key, value) in &self.context {
            report = report.detail(key, value.as_str());
        }
        if let Some(source) = &self.source {
            report = report.cause(source.as_ref());
        }
        if let Some(help) = &self.help {
            report = report.help(help.as_str());
        }
        fmt::Display::fmt(&report, f)
    }
}

impl StdError for StorageError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
