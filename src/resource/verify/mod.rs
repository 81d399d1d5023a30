//! The verification of declarations, one subject per file. Each rule reports every fault it finds.

mod actions;
mod cache;
mod fields;
mod hooks;
mod identity;
mod mandatory;
mod names;
mod queries;
mod relations;

use std::fmt;

use resourceful_contract::{ErrorKind as StorageKind, StorageError};

use super::derive::Draft;
use crate::error::{Error, ErrorKind};

pub(super) fn verify_declaration(draft: &Draft, faults: &mut Faults) {
    mandatory::verify(draft, faults);
    names::verify(draft, faults);
    hooks::verify(draft, faults);
    actions::verify(draft, faults);
    cache::verify(draft, faults);
    // The faults of a model without fields are reported already.
    if !draft.fields.is_empty() {
        identity::verify(draft, faults);
        fields::verify(draft, faults);
        queries::verify(draft, faults);
        relations::verify(draft, faults);
    }
}

/// The faults of a declaration.
///
/// ```
/// use resourceful::prelude::*;
///
/// let errors = define_dynamic_resource("notes", serde_json::json!({
///     "type": "object",
///     "properties": {"id": {"type": "string", "format": "uuid"}},
/// }))
/// .build()
/// .unwrap_err();
/// assert!(errors.to_string().contains(".permissions("));
/// assert_eq!(errors.faults().len(), 2); // no adapter either
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct DefinitionErrors {
    faults: Vec<DefinitionFault>,
}

/// One fault of a declaration, with a suggested fix.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DefinitionFault {
    /// The resource.
    pub resource: String,
    /// The field, if the fault concerns one.
    pub field: Option<String>,
    /// A description of the fault.
    pub message: String,
    /// The suggested fix.
    pub help: String,
    /// Whether a database or a bus is to blame that may be back later, and not the declaration.
    pub is_transient: bool,
}

impl DefinitionErrors {
    pub(crate) fn new(faults: Vec<DefinitionFault>) -> Self {
        Self { faults }
    }

    /// Adds further faults.
    pub(crate) fn with(mut self, faults: Faults) -> Self {
        self.faults.extend(faults.faults);
        self
    }

    /// The faults, in the order in which they were found.
    #[must_use]
    pub fn faults(&self) -> &[DefinitionFault] {
        &self.faults
    }
}

impl fmt::Display for DefinitionErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the declaration has {} fault(s):", self.faults.len())?;
        for fault in &self.faults {
            write!(f, "\n  {}", fault.resource)?;
            if let Some(field) = &fault.field {
                write!(f, ".{field}")?;
            }
            write!(f, ": {}\n    help: {}", fault.message, fault.help)?;
        }
        Ok(())
    }
}

/// The same text as `Display`: this is what `fn main() -> Result<(), …>` prints.
impl fmt::Debug for DefinitionErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for DefinitionErrors {}

impl From<DefinitionErrors> for Error {
    fn from(errors: DefinitionErrors) -> Self {
        Self::new(ErrorKind::Declaration, "declaration", errors.to_string()).with_source(errors)
    }
}

/// Collects the faults of one resource.
pub(crate) struct Faults {
    resource: String,
    faults: Vec<DefinitionFault>,
}

impl Faults {
    pub(crate) fn of(resource: &str) -> Self {
        Self { resource: resource.to_owned(), faults: Vec::new() }
    }

    /// Adds a fault, unless it was added already: operations share rules.
    pub(crate) fn push(&mut self, field: Option<&str>, message: impl Into<String>, help: impl Into<String>) {
        self.add(field, message.into(), help.into(), false);
    }

    /// Adds the failure of a database or a bus.
    pub(crate) fn push_failure(&mut self, error: &StorageError, message: impl Into<String>, help: &str) {
        let is_transient =
            matches!(error.kind(), StorageKind::Unavailable | StorageKind::TimedOut | StorageKind::Contended);
        self.add(None, message.into(), help.to_owned(), is_transient);
    }

    fn add(&mut self, field: Option<&str>, message: String, help: String, is_transient: bool) {
        let (resource, field) = (self.resource.clone(), field.map(str::to_owned));
        let fault = DefinitionFault { resource, field, message, help, is_transient };
        if !self.faults.contains(&fault) {
            self.faults.push(fault);
        }
    }

    pub(crate) fn into_errors(self) -> DefinitionErrors {
        DefinitionErrors::new(self.faults)
    }

    pub(crate) fn into_faults(self) -> Vec<DefinitionFault> {
        self.faults
    }

    pub(crate) fn into_result(self) -> Result<(), DefinitionErrors> {
        if self.faults.is_empty() { Ok(()) } else { Err(self.into_errors()) }
    }
}
