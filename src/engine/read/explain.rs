//! Explains why a caller may perform an operation, or may not.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;

use crate::access::Operation;
use crate::access::{Actor, CheckRequest, Step, Verdict};
use crate::authz::decision;
use crate::catalog::Entry;
use crate::engine::{Call, Engine};
use crate::error::{Error, ErrorKind};
use crate::query;
use crate::resource::Right;

/// The result of [`App::explain`](crate::App::explain).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[non_exhaustive]
pub struct Explanation {
    /// The response that the caller would get.
    pub outcome: Outcome,
    /// The rules that were evaluated for the operation, the outermost last.
    pub operation: Vec<ExplainedStep>,
    /// The rules that were evaluated for the caller's visibility; empty for a create.
    pub visibility: Vec<ExplainedStep>,
}

/// The response to a caller, as far as permissions decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Outcome {
    /// The operation runs; without an id, possibly on some rows only.
    Allowed,
    /// 401: an authenticated caller might be admitted.
    Unauthenticated,
    /// 403.
    Forbidden,
    /// 404, although the row exists.
    Hidden,
    /// 404: the row does not exist.
    Absent,
}

/// One evaluated rule, and its outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[non_exhaustive]
pub struct ExplainedStep {
    /// The rule as it was declared.
    pub rule: String,
    /// The outcome of the rule.
    pub said: RuleOutcome,
    /// The reason, where it denied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether the row in question is one of those that the rule allows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row_matches: Option<bool>,
}

/// The outcome of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RuleOutcome {
    /// Allowed.
    Allow,
    /// Allowed for some rows.
    AllowWhere,
    /// Denied.
    Deny,
}

impl Engine {
    /// Explains what a caller may do; `id` narrows the question to one row.
    pub(crate) async fn explain(
        &self,
        actor: &Actor,
        resource: &str,
        operation: Operation,
        id: Option<&str>,
    ) -> Result<Explanation, Error> {
        let entry = self.catalog.find(resource)?;
        let row = match id {
            Some(id) => self.stored_row(entry, id).await?,
            None => None,
        };
        let (verdict, operation_steps) = self.evaluate_rules(entry, actor, operation, row.as_ref()).await?;
        let (read_verdict, visibility) = match operation {
            Operation::Create => (Verdict::Allow, Vec::new()),
            _ => self.evaluate_rules(entry, actor, Operation::Read, row.as_ref()).await?,
        };
        let outcome = match (verdict, read_verdict) {
            (Verdict::Deny(_), _) | (_, Verdict::Deny(_)) if actor.is_anonymous() => Outcome::Unauthenticated,
            (Verdict::Deny(_), _) | (_, Verdict::Deny(_)) => Outcome::Forbidden,
            _ if id.is_none() || operation == Operation::Create => Outcome::Allowed,
            (verdict, read_verdict) => match &row {
                None => Outcome::Absent,
                Some(row) if !self.matches(entry, &read_verdict, row).await? => Outcome::Hidden,
                Some(row) if !self.matches(entry, &verdict, row).await? => Outcome::Forbidden,
                Some(_) => Outcome::Allowed,
            },
        };
        Ok(Explanation { outcome, operation: operation_steps, visibility })
    }

    /// A row as it is stored, regardless of visibility.
    async fn stored_row(
        &self,
        entry: &Arc<Entry>,
        id: &str,
    ) -> Result<Option<crate::engine::write::input::Fields>, Error> {
        let call = Call::as_application(self, entry);
        let Ok(id) = call.parse_id(id) else {
            return Ok(None);
        };
        match call.current(id).await {
            Ok((row, _)) => Ok(Some(row)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn evaluate_rules(
        &self,
        entry: &Arc<Entry>,
        actor: &Actor,
        operation: Operation,
        row: Option<&crate::engine::write::input::Fields>,
    ) -> Result<(Verdict, Vec<ExplainedStep>), Error> {
        let request = CheckRequest { actor: actor.clone(), resource: entry.name.clone(), operation };
        let read = |filter: &serde_json::Value| query::trusted_filter(&self.catalog, entry, filter);
        let mut evaluated = Vec::new();
        let verdict = entry.rights().of(operation.into()).decide(&request, &read, Some(&mut evaluated)).await;
        let right = Right::from(operation);
        let verdict = match right.is_covered(&entry.definition, actor) {
            true => verdict,
            false => {
                let verdict = Verdict::Deny(decision::MISSING_SCOPE.into());
                evaluated
                    .push(Step { rule: "the scopes of the credential".into(), verdict: verdict.clone() });
                verdict
            }
        };
        let mut steps = Vec::with_capacity(evaluated.len());
        for Step { rule, verdict } in evaluated {
            let row_matches = match (row, &verdict) {
                (Some(row), Verdict::Where(_)) => Some(self.matches(entry, &verdict, row).await?),
                _ => None,
            };
            let (said, reason) = match verdict {
                Verdict::Allow => (RuleOutcome::Allow, None),
                Verdict::Where(_) => (RuleOutcome::AllowWhere, None),
                Verdict::Deny(reason) => (RuleOutcome::Deny, Some(reason.into_owned())),
            };
            steps.push(ExplainedStep { rule: rule.to_string(), said, reason, row_matches });
        }
        Ok((verdict, steps))
    }

    async fn matches(
        &self,
        entry: &Arc<Entry>,
        verdict: &Verdict,
        row: &crate::engine::write::input::Fields,
    ) -> Result<bool, Error> {
        let Some(admitted) = crate::catalog::RowFilter::of(verdict) else {
            return Ok(false);
        };
        let call = Call::as_application(self, entry);
        let values = call.row_values(row)?;
        call.admits(&admitted, &values).await
    }
}
