//! The policy matrix: compares every path of an application with its declaration, for every caller, row and field.

mod app_cases;
mod cases;
mod dry_runs;
mod fields;
mod oracle;
mod records;
mod streams;
mod trees;

use std::fmt;

use serde_json::Value as Json;

use super::{TestApp, TestRequest};
use crate::access::Actor;
use crate::error::Error;

/// Derives test cases for each caller, row and field of an application, sends them on every path, and compares the
/// responses with what the declaration states for the existing rows.
///
/// Load the rows first, a few of each kind that the rules distinguish. The matrix changes nothing.
///
/// ```
/// use resourceful::prelude::*;
/// use resourceful::testing::{TestApp, policy_matrix};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # #[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
/// # struct Note { id: i64, user_id: String, text: String }
/// let notes = define_resource::<Note>("notes")
///     .adapter(Memory::new().table("notes"))
///     .permissions(Permissions::read(anyone()).write(signed_in()))
///     .preset(owned_by("user_id").open([Operation::Read, Operation::List]))
///     .build()?;
/// let tokens = BearerTokens::new().token("of-ada", Actor::user("ada"));
/// let app = TestApp::build(create_app(AppPreset::Testing).authenticator(tokens).resource(notes)).await?;
/// let row = |id, user| serde_json::json!({"id": id, "user_id": user, "text": "hello"});
/// app.app().load().rows("notes", [row(1, "ada"), row(2, "bob")])?.commit().await?;
///
/// let report = policy_matrix(&app)
///     .caller("nobody", Actor::anonymous(), [])
///     .caller("ada", Actor::user("ada"), [("authorization", "Bearer of-ada")])
///     .run()
///     .await?;
/// report.assert_passed();
/// # Ok(()) }
/// ```
pub fn policy_matrix(app: &TestApp) -> PolicyMatrix<'_> {
    PolicyMatrix { app, callers: Vec::new() }
}

/// A matrix before its run; see [`policy_matrix`].
#[derive(Debug)]
#[must_use]
pub struct PolicyMatrix<'a> {
    app: &'a TestApp,
    callers: Vec<Caller>,
}

/// A caller: an actor, and the headers by which the application recognizes it.
#[derive(Clone, Debug)]
struct Caller {
    name: String,
    actor: Actor,
    headers: Vec<(String, String)>,
}

impl Caller {
    fn send(&self, request: TestRequest) -> TestRequest {
        self.headers.iter().fold(request, |request, (name, value)| request.header(name, value))
    }
}

impl PolicyMatrix<'_> {
    /// Adds a caller: the expected actor, and the headers that authenticate it.
    pub fn caller<'h>(
        mut self,
        name: &str,
        actor: Actor,
        headers: impl IntoIterator<Item = (&'h str, &'h str)>,
    ) -> Self {
        let headers = headers.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        self.callers.push(Caller { name: name.to_owned(), actor, headers });
        self
    }

    /// Runs every case.
    ///
    /// # Errors
    /// If the rows cannot be read.
    pub async fn run(self) -> Result<MatrixReport, Error> {
        let engine = &self.app.app().state().engine;
        let mut rows = Vec::new();
        for entry in engine.catalog.entries() {
            rows.push(engine.rows(entry).await?);
        }
        let mut report = MatrixReport::default();
        for caller in &self.callers {
            let actor = caller.actor.clone().with_included(&self.app.app().state().roles);
            let explained_to = self.app.app().state().explain_permission.as_ref();
            let oracle = oracle::Oracle::of(&engine.catalog, &rows, &actor, explained_to).await;
            app_cases::AppCases { app: self.app, caller, oracle: &oracle }.run(&mut report).await;
            for entry in engine.catalog.entries() {
                let cases = cases::ResourceCases {
                    app: self.app,
                    caller,
                    others: &self.callers,
                    oracle: &oracle,
                    entry,
                    catalog: &engine.catalog,
                    rows: &rows[entry.position],
                };
                cases.run(&mut report).await;
            }
        }
        Ok(report)
    }
}

/// The results of a matrix.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct MatrixReport {
    /// The number of compared responses.
    pub cases: usize,
    /// Every response that differs from the declaration.
    pub failures: Vec<String>,
}

impl MatrixReport {
    /// # Panics
    /// If any response differs from the declaration, with the failures.
    pub fn assert_passed(&self) {
        assert!(self.failures.is_empty(), "{self}");
        assert!(self.cases > 0, "the matrix tried nothing: name callers and load rows");
    }

    fn compare(&mut self, what: impl FnOnce() -> String, found: &Json, expected: &Json) {
        self.cases += 1;
        if found != expected {
            self.failures.push(format!("{}: expected {expected}, found {found}", what()));
        }
    }
}

impl fmt::Display for MatrixReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} cases, {} not as declared", self.cases, self.failures.len())?;
        for failure in self.failures.iter().take(20) {
            writeln!(f, "  {failure}")?;
        }
        Ok(())
    }
}
