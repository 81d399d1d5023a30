//! What can go wrong below the engine.

use std::error::Error as StdError;
use std::fmt;

/// A storage's failure: a kind to act on, context for the log, and the cause.
///
/// `Display` is one line. Neither it nor the cause ever reaches a client: the engine answers by kind, field
/// names and its own words.
#[derive(Debug)]
pub struct StorageError {
    kind: ErrorKind,
    /// Which change of the change set failed.
    change: Option<usize>,
    /// The fields concerned, by their wire names.
    fields: Vec<String>,
    context: Vec<(&'static str, String)>,
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
    /// Not available now and worth another try: no connection, shutting down.
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
        Self { kind, change: None, fields: Vec::new(), context: Vec::new(), source: None }
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

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            ErrorKind::NotFound => "no such row",
            ErrorKind::VersionMismatch => "the row has another version",
            ErrorKind::UniqueViolation => "another row holds the same unique values",
            ErrorKind::ExclusionViolation => "another row excludes this one",
            ErrorKind::ForeignKeyViolation => "a foreign key does not hold",
            ErrorKind::Rejected => "the database refused a change",
            ErrorKind::Contended => "concurrent changes were in the way",
            ErrorKind::TimedOut => "the statement took longer than it may",
            ErrorKind::Unavailable => "the storage is not available",
            ErrorKind::Corrupt => "a stored value does not read as its declared type",
            ErrorKind::Unsupported => "the storage cannot do this",
            ErrorKind::Internal => "the storage failed",
        };
        f.write_str(what)?;
        if !self.fields.is_empty() {
            write!(f, "; fields: {}", self.fields.join(", "))?;
        }
        for (key, value) in &self.context {
            write!(f, "; {key}: {value}")?;
        }
        if let Some(source) = &self.source {
            write!(f, "; cause: {source}")?;
        }
        Ok(())
    }
}

impl StdError for StorageError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
