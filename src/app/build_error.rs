//! Why an application could not be built.

use std::fmt;

use crate::error::{Error, ErrorKind};
use crate::resource::{DefinitionErrors, DefinitionFault};

/// Why an application could not be built.
///
/// ```
/// use resourceful::prelude::*;
/// use resourceful::BuildError;
///
/// # tokio_test(async {
/// let built = create_app(AppPreset::Production).build().await;
/// let Err(BuildError::Declaration(errors)) = built else { panic!("production needs a secret") };
/// assert!(errors.faults()[0].help.contains(".secret("));
/// # });
/// # fn tokio_test(test: impl Future<Output = ()>) {
/// #     tokio::runtime::Runtime::new().unwrap().block_on(test);
/// # }
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BuildError {
    /// The declaration, a migration or a table is wrong: correct it. Building again fails again.
    Declaration(DefinitionErrors),
    /// Nothing is wrong with the declaration, but a database or a bus cannot be reached: try again later.
    Unavailable(DefinitionErrors),
}

impl BuildError {
    /// Every fault that was found, with its fix.
    #[must_use]
    pub fn faults(&self) -> &[DefinitionFault] {
        self.errors().faults()
    }

    /// Whether building again later may succeed.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }

    const fn errors(&self) -> &DefinitionErrors {
        let (Self::Declaration(errors) | Self::Unavailable(errors)) = self;
        errors
    }
}

impl From<DefinitionErrors> for BuildError {
    fn from(errors: DefinitionErrors) -> Self {
        if errors.faults().iter().all(|fault| fault.is_transient) {
            Self::Unavailable(errors)
        } else {
            Self::Declaration(errors)
        }
    }
}

impl From<BuildError> for Error {
    fn from(error: BuildError) -> Self {
        match &error {
            BuildError::Declaration(errors) => errors.clone().into(),
            BuildError::Unavailable(errors) => {
                Self::new(ErrorKind::Unavailable, "unavailable", errors.to_string()).with_source(error)
            }
        }
    }
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.errors(), f)
    }
}

/// The same text as `Display`: this is what `fn main() -> Result<(), …>` prints.
impl fmt::Debug for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for BuildError {}
