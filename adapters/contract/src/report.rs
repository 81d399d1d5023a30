//! Error reports for terminals.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

/// A human-readable error report: what failed, its details, its causes from the nearest to the root cause, and the fix.
///
/// Rust prints the `Debug` of an error that `main` returns. An error type whose `Debug` writes a report prints sentences
/// instead of nested structs.
///
/// ```
/// use resourceful_contract::Report;
///
/// let cause = std::io::Error::other("connection refused");
/// let report = Report::new("the storage is not available")
///     .detail("database", "postgres at localhost:5432")
///     .cause(&cause)
///     .help("start the server, or correct host and port");
/// assert_eq!(
///     report.to_string(),
///     "the storage is not available\n  \
///      database: postgres at localhost:5432\n  \
///      caused by: connection refused\n  \
///      help: start the server, or correct host and port"
/// );
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Report<'a> {
    summary: Cow<'a, str>,
    details: Vec<(&'a str, Cow<'a, str>)>,
    causes: Vec<String>,
    help: Vec<Cow<'a, str>>,
}

impl<'a> Report<'a> {
    /// A report of what failed, in one line.
    pub fn new(summary: impl Into<Cow<'a, str>>) -> Self {
        Self { summary: summary.into(), details: Vec::new(), causes: Vec::new(), help: Vec::new() }
    }

    /// Adds a named detail.
    pub fn detail(mut self, name: &'a str, value: impl Into<Cow<'a, str>>) -> Self {
        self.details.push((name, value.into()));
        self
    }

    /// Adds a cause and its own causes. A cause that repeats the text of the one before it is left out.
    pub fn cause(mut self, cause: &(dyn StdError + 'static)) -> Self {
        let mut next = Some(cause);
        while let Some(cause) = next {
            let text = cause.to_string();
            if !self.causes.last().is_some_and(|last| last.contains(&text)) {
                self.causes.push(text);
            }
            next = cause.source();
        }
        self
    }

    /// Adds a fix. A report may have several.
    pub fn help(mut self, help: impl Into<Cow<'a, str>>) -> Self {
        self.help.push(help.into());
        self
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.summary)?;
        for (name, value) in &self.details {
            line(f, name, value)?;
        }
        for cause in &self.causes {
            line(f, "caused by", cause)?;
        }
        for help in &self.help {
            line(f, "help", help)?;
        }
        Ok(())
    }
}

/// A named line; further lines of its text are indented below it.
fn line(f: &mut fmt::Formatter<'_>, name: &str, text: &str) -> fmt::Result {
    write!(f, "\n  {name}: {}", text.trim_end().replace('\n', "\n    "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ErrorKind, StorageError};

    #[test]
    fn debug_of_an_error_is_its_report() {
        let io = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "connection refused");
        let error = StorageError::new(ErrorKind::Unavailable)
            .with_context("server", "localhost:5432")
            .with_source(StorageError::new(ErrorKind::Internal).with_source(io))
            .with_help("start the server\nor correct the port");
        let expected = "the storage is not available\n  \
             server: localhost:5432\n  \
             caused by: the storage failed; cause: connection refused\n  \
             help: start the server\n    or correct the port";
        assert_eq!(format!("{error:?}"), expected);
        let line = "the storage is not available; server: localhost:5432; cause: the storage failed; cause: connection \
                    refused; help: start the server\nor correct the port";
        assert_eq!(error.to_string(), line, "each cause once");
        let nested = Report::new("failed").cause(&error).to_string();
        assert!(nested.starts_with("failed\n  caused by: the storage is not available; server:"), "{nested}");
    }
}
