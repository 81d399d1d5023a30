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
//! be used again with another prefix. [`conformance_tests!`](crate::conformance_tests) makes a `#[test]` of each case.

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
#[macro_use]
mod tests_macro;
mod writes;

use std::any::Any;
use std::fmt;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;

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

impl Case {
    /// Runs the case in tables whose names begin with the prefix; `None` if it does not apply to the storage's capabilities.
    /// A panic of the storage is a failure of the case.
    pub async fn run(&self, storage: Arc<dyn Storage>, prefix: &str) -> Option<Result<(), Failure>> {
        if !(self.needs)(&storage.capabilities()) {
            return None;
        }
        let mut running = (self.run)(Fixture::new(storage, prefix.to_owned()));
        let outcome =
            poll_fn(move |context| match catch_unwind(AssertUnwindSafe(|| running.as_mut().poll(context))) {
                Ok(polled) => polled,
                Err(panic) => {
                    Poll::Ready(Err(Failure::new(format!("it panicked: {}", message(panic.as_ref())))))
                }
            });
        Some(outcome.await)
    }
}

/// The message of a panic.
fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}

/// Runs all cases that apply to the storage's capabilities.
pub async fn run(storage: Arc<dyn Storage>, prefix: &str) -> Report {
    let mut report = Report { storage: storage.name(), outcomes: Vec::new() };
    for (number, case) in cases().into_iter().enumerate() {
        let outcome = case.run(storage.clone(), &format!("{prefix}_{number}")).await;
        report.outcomes.push((case.name, outcome));
    }
    report
}

/// Runs one case by its name, in tables of its own. This is what a test of
/// [`conformance_tests!`](crate::conformance_tests) runs.
///
/// # Errors
/// Where the case fails, or there is none of this name.
pub async fn check(name: &str, storage: Arc<dyn Storage>) -> Result<(), Failure> {
    let Some(case) = cases().into_iter().find(|case| case.name == name) else {
        return Err(Failure::new(format!("there is no case `{name}`")));
    };
    let outcome = case.run(storage.clone(), &unique_prefix()).await;
    if outcome.is_none() {
        println!("{}: {name}: left out, not among its capabilities", storage.name());
    }
    outcome.unwrap_or(Ok(()))
}

/// A prefix that no other case of this or another run has.
fn unique_prefix() -> String {
    let id = uuid::Uuid::now_v7().simple().to_string();
    // The end of a time-ordered id is random, and names of tables are short.
    format!("c{}", &id[20..])
}

/// The outcomes of all cases.
#[derive(Debug)]
pub struct Report {
    storage: &'static str,
    outcomes: Vec<(&'static str, Option<Result<(), Failure>>)>,
}

impl Report {
    /// The number of passed cases.
    #[must_use]
    pub fn passed(&self) -> usize {
        self.outcomes.iter().filter(|(_, outcome)| matches!(outcome, Some(Ok(())))).count()
    }

    /// The names of the failed cases.
    #[must_use]
    pub fn failed(&self) -> Vec<&'static str> {
        let failed = |outcome: &Option<Result<(), Failure>>| matches!(outcome, Some(Err(_)));
        self.outcomes.iter().filter(|(_, outcome)| failed(outcome)).map(|(name, _)| *name).collect()
    }

    /// # Panics
    /// If a case failed.
    pub fn assert_passed(&self) {
        assert!(self.failed().is_empty(), "{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, outcome) in &self.outcomes {
            match outcome {
                Some(Ok(())) => writeln!(f, "{}: {name} ... ok", self.storage)?,
                Some(Err(failure)) => writeln!(f, "{}: {name} ... FAILED: {failure}", self.storage)?,
                None => writeln!(f, "{}: {name} ... left out: not among its capabilities", self.storage)?,
            }
        }
        write!(f, "{}: {} of {} cases held", self.storage, self.passed(), self.outcomes.len())
    }
}

/// For cases that apply to every storage.
const fn needs_nothing(_: &Capabilities) -> bool {
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
    (@needs) => { $crate::conformance::needs_nothing };
    (@needs $capability:ident) => { |capabilities| capabilities.$capability };
}
use named;

/// Fails a case unless both values are equal.
fn expect_eq<T: PartialEq + fmt::Debug>(label: &str, actual: &T, expected: &T) -> Result<(), Failure> {
    if actual == expected {
        return Ok(());
    }
    Err(Failure::new(format!("{label}: expected {expected:?}, found {actual:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_macro_has_every_case() {
        let names: Vec<_> = cases().iter().map(|case| case.name).collect();
        assert_eq!(tests_macro::NAMES, names);
    }
}
