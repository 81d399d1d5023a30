//! Conformance test suite for adapters, as named cases.
//!
//! ```
//! # fn run(storage: std::sync::Arc<dyn resourceful_contract::Storage>) { let _ = async {
//! use resourceful_contract::conformance;
//!
//! let report = conformance::run(storage, "a_prefix_of_this_run").await;
//! println!("{report}");
//! report.assert_passed();
//! # }; }
//! ```
//!
//! Each case creates tables of its own, whose names begin with the prefix, so that cases do not interfere and a database can
//! be used again with another prefix.

mod bus;
mod cache_store;
mod concurrency;
mod fixture;
mod guards;
mod identity;
mod keyset;
mod logic;
mod numbers;
mod operators;
mod pages;
mod relations;
mod schema;
mod search;
mod sets;
mod types;
mod writes;

use std::fmt;
use std::sync::Arc;

use crate::{Capabilities, Storage, StorageError};

pub use bus::bus;
pub use cache_store::cache_store;
pub use fixture::Fixture;

/// A behaviour that storages must have.
#[derive(Clone, Copy)]
pub struct Case {
    /// The behaviour, as a sentence in snake case.
    pub name: &'static str,
    /// Whether the case applies to a storage with these capabilities.
    pub needs: fn(&Capabilities) -> bool,
    run: fn(Fixture) -> Outcome,
}

/// The future of a case: success, or a failure with the expected and the actual value.
type Outcome = std::pin::Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;

/// Why a case failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure(String);

impl Failure {
    fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        Self(format!("the storage failed: {error}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Case").field(&self.name).finish()
    }
}

/// All storage cases.
#[must_use]
pub fn cases() -> Vec<Case> {
    [
        types::CASES,
        numbers::CASES,
        operators::CASES,
        search::CASES,
        logic::CASES,
        pages::CASES,
        keyset::CASES,
        identity::CASES,
        writes::CASES,
        sets::CASES,
        guards::CASES,
        relations::CASES,
        schema::CASES,
        concurrency::CASES,
    ]
    .concat()
}

/// Runs all cases that apply to the storage's capabilities.
pub async fn run(storage: Arc<dyn Storage>, prefix: &str) -> Report {
    let capabilities = storage.capabilities();
    let mut report = Report { storage: storage.name(), lines: Vec::new() };
    for (number, case) in cases().into_iter().enumerate() {
        let outcome = if (case.needs)(&capabilities) {
            let fixture = Fixture::new(storage.clone(), format!("{prefix}_{number}"));
            Some((case.run)(fixture).await)
        } else {
            None
        };
        report.lines.push((case.name, outcome));
    }
    report
}

/// The outcomes of all cases.
#[derive(Debug)]
pub struct Report {
    storage: &'static str,
    lines: Vec<(&'static str, Option<Result<(), Failure>>)>,
}

impl Report {
    /// The number of passed cases.
    #[must_use]
    pub fn passed(&self) -> usize {
        self.lines.iter().filter(|(_, outcome)| matches!(outcome, Some(Ok(())))).count()
    }

    /// The names of the failed cases.
    #[must_use]
    pub fn failed(&self) -> Vec<&'static str> {
        let failed = |outcome: &Option<Result<(), Failure>>| matches!(outcome, Some(Err(_)));
        self.lines.iter().filter(|(_, outcome)| failed(outcome)).map(|(name, _)| *name).collect()
    }

    /// # Panics
    /// If a case failed.
    pub fn assert_passed(&self) {
        assert!(self.failed().is_empty(), "{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, outcome) in &self.lines {
            match outcome {
                Some(Ok(())) => writeln!(f, "{}: {name} ... ok", self.storage)?,
                Some(Err(failure)) => writeln!(f, "{}: {name} ... FAILED: {failure}", self.storage)?,
                None => writeln!(f, "{}: {name} ... left out: not among its capabilities", self.storage)?,
            }
        }
        write!(f, "{}: {} of {} cases held", self.storage, self.passed(), self.lines.len())
    }
}

/// For cases that apply to every storage.
const fn always(_: &Capabilities) -> bool {
    true
}

/// Builds a list of cases from async functions over a fixture; a needed capability is an attribute before its cases.
macro_rules! named {
    ($($(#[needs($capability:ident)])? $name:ident),* $(,)?) => {
        &[$($crate::conformance::Case {
            name: stringify!($name),
            needs: $crate::conformance::named!(@needs $($capability)?),
            run: |fixture| Box::pin($name(fixture)),
        }),*]
    };
    (@needs) => { $crate::conformance::always };
    (@needs $capability:ident) => { |capabilities| capabilities.$capability };
}
use named;

/// Fails a case unless both values are equal.
fn same<T: PartialEq + fmt::Debug>(what: &str, found: &T, expected: &T) -> Result<(), Failure> {
    if found == expected {
        return Ok(());
    }
    Err(Failure::new(format!("{what}: expected {expected:?}, found {found:?}")))
}
