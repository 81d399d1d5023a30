//! What can go wrong below the engine.

use std::error::Error as StdError;
use std::fmt;

use crate::report::Report;

/// A storage's failure: a kind to act on, context for the log, and the cause.
///
/// `Display` is one line with every cause, for logs. `Debug` is a [`Report`](crate::Report), which is what Rust prints where `main`
/// returns the error. Neither of them nor the cause ever reaches a client: the engine answers by kind, field names and
/// its own words.
pub struct StorageError {
    kind: ErrorKind,
    /// Which change of the change set failed.
    change: Option<usize>,
    /// The fields concerned, by their wire names.
    fields: Vec<String>,
    context: Vec<(&'static str, String)>,
    help: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// What kind of failure, as far as the engine acts differently on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The row of an update or a delete is absent, or its guard's filter hides it.
    NotFound,
    /// The row is there and its version is another than the guard's.
    VersionMismatch,
    /// Another row holds the same unique values; `fields` names them where known.
    UniqueViolation,
    /// Another row excludes this one by a rule other than equality (an exclusion constraint); `fields` names the fields
    /// of the rule where known.
    ExclusionViolation,
    /// A row referred to is absent, or a row to be deleted is still referred to; `fields` names the
    /// referring ones where known.
    ForeignKeyViolation,
    /// The database refused a change for a rule of its own (check, not null, length, a trigger); `fields` names those
    /// whose values it refused where known.
    Rejected,
    /// Other changes at the same time were in the way again and again (locks, deadlocks, serialization failures), and
    /// nothing was changed; the storage has retried within its bounds.
    Contended,
    /// The statement took longer than it may, and was ended.
    TimedOut,
    /// Not available now and worth another try: no connection, shutting down, or a change while the database is
    /// read-only.
    Unavailable,
    /// Something stored does not read as its declared type.
    Corrupt,
    /// The storage cannot do what was asked; its capabilities say so.
    Unsupported,
    /// Anything else.
    Internal,
}

impl StorageError {
    /// An error of this kind.
    #[must_use]
    pub const fn new(kind: ErrorKind) -> Self {
        Self { kind, change: None, fields: Vec::new(), context: Vec::new(), help: None, source: None }
    }

    /// The same, of this position in the change set.
    #[must_use]
    pub fn at_change(mut self, position: usize) -> Self {
        self.change = Some(position);
        self
    }

    /// The same, concerning these fields (wire names).
    #[must_use]
    pub fn with_fields(mut self, fields: Vec<String>) -> Self {
        self.fields = fields;
        self
    }

    /// The same, with a pair of context for the log.
    #[must_use]
    pub fn with_context(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.context.push((key, value.into()));
        self
    }

    /// The same, with the fix that fits: what a person who reads this is to do.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The same, with its cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What kind of failure this is.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The fix that fits, where one is known.
    #[must_use]
    pub fn help(&self) -> Option<&str> {
        self.help.as_deref()
    }

    /// Which change of the change set failed, where one did.
    #[must_use]
    pub const fn change(&self) -> Option<usize> {
        self.change
    }

    /// The fields concerned, by their wire names.
    #[must_use]
    pub fn fields(&self) -> &[String] {
        &self.fields
    }
}

impl ErrorKind {
    /// What failed, in a few words.
    const fn summary(self) -> &'static str {
        match self {
            Self::NotFound => "no such row",
            Self::VersionMismatch => "the row has another version",
            Self::UniqueViolation => "another row holds the same unique values",
            Self::ExclusionViolation => "another row excludes this one",
            Self::ForeignKeyViolation => "a foreign key does not hold",
            Self::Rejected => "the database refused a change",
            Self::Contended => "concurrent changes were in the way",
            Self::TimedOut => "the statement took longer than it may",
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
        let mut said = String::new();
        let mut next = StdError::source(self);
        while let Some(cause) = next {
            let text = cause.to_string();
            // Many errors repeat their cause.
            if !said.contains(&text) {
                write!(f, "; cause: {text}")?;
                said = text;
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
