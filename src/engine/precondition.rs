//! Preconditions of changes: `If-Match` as versions (RFC 9110, 13.1.1), compared with the version of the item.

use resourceful_contract::Version;

use super::Call;
use crate::error::{Error, ErrorKind, Fault};

/// The versions that a caller expects an item to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// Any version, as long as the item exists.
    Any,
    /// One of these; empty where none of the caller's tags was issued by this application.
    OneOf {
        versions: Vec<Version>,
        /// Whether the caller also sent weak tags, which match nothing.
        has_weak: bool,
    },
}

impl Expected {
    /// Whether a request depends on the item's version: `If-Match: *` asks for any.
    pub(super) fn has_versions(expected: Option<&Self>) -> bool {
        matches!(expected, Some(Self::OneOf { .. }))
    }

    pub(crate) fn admits(&self, version: Version) -> bool {
        match self {
            Self::Any => true,
            Self::OneOf { versions, .. } => versions.contains(&version),
        }
    }

    /// The error for a change to an item in another version.
    pub(super) fn mismatch(&self) -> Error {
        match self {
            Self::OneOf { versions, has_weak: true } if versions.is_empty() => Error::weak_etag(),
            Self::OneOf { versions, .. } if versions.is_empty() => Error::unknown_etag(),
            _ => Error::precondition_failed("if-match"),
        }
    }
}

impl Call<'_> {
    /// Checks the item's version against the expected ones.
    ///
    /// # Errors
    /// Where the item is in a version that the caller does not expect.
    pub(crate) fn check_version(&self, expected: Option<&Expected>, version: Version) -> Result<(), Error> {
        match expected {
            Some(expected) if !expected.admits(self.engine.digest_key.public_version(version)) => {
                Err(expected.mismatch())
            }
            _ => Ok(()),
        }
    }

    /// Refuses a change without an expected version, where the resource requires one.
    pub(crate) fn require_if_match(&self, expected: Option<&Expected>) -> Result<(), Error> {
        if self.definition().require_if_match && expected.is_none() {
            let detail = "Changes of this resource need If-Match with the item's ETag.";
            return Err(Error::new(ErrorKind::PreconditionRequired, "precondition-required", detail)
                .with_faults(vec![Fault::header("If-Match", "required", detail)]));
        }
        Ok(())
    }
}
