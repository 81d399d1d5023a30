//! Dry runs and replays, for one caller.

use std::collections::BTreeSet;

use serde_json::{Value as Json, json};

use super::MatrixReport;
use super::cases::Site;
use super::oracle::{Reach, Row};
use crate::access::Operation;
use crate::http::Endpoint;
use crate::testing::{TestRequest, TestResponse};

impl Site<'_> {
    /// Dry runs of an empty change or a delete of each row: which are admitted, and what the response shows.
    pub(super) async fn dry_runs(&self, endpoint: Endpoint, report: &mut MatrixReport) {
        let names = |json: &Json| -> BTreeSet<String> {
            json.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect()
        };
        for row in self.rows {
            let request = self.caller.send(self.app.request(endpoint.method().as_str(), &self.item(row)));
            let answer = self.changed(endpoint, request.header("prefer", "dry-run")).await;
            let about = || self.about(&format!("{} {} as a trial", endpoint.method(), self.item(row)));
            let expected = self.outcome(endpoint, row);
            // A row that others refer to cannot be deleted.
            if expected == 200 && answer.status() == 409 {
                continue;
            }
            report.compare(about, &json!(answer.status()), &json!(expected));
            if answer.status() != 200 {
                continue;
            }
            let (tried, shown) = (answer.json(), self.ask("GET", &self.item(row)).await.json());
            if endpoint == Endpoint::Update {
                report.compare(about, &tried["body"], &shown);
            }
            let own = |event: &&Json| {
                event["type"].as_str().is_some_and(|said| said.split('.').next() == Some(&*self.entry.name))
            };
            for event in tried["events"].as_array().into_iter().flatten().filter(own) {
                report.compare(about, &json!(names(&event["data"])), &json!(names(&shown)));
            }
        }
    }

    /// Each row, changed with an idempotency key twice: both responses are what the caller sees of the row.
    pub(super) async fn replays(&self, report: &mut MatrixReport) {
        if self.entry.definition.idempotency.is_none() {
            return;
        }
        for row in self.rows {
            let key = format!("matrix-{}", uuid::Uuid::new_v4());
            for given in ["first", "again"] {
                let request = self.caller.send(self.app.patch(&self.item(row)));
                let answer = self.changed(Endpoint::Update, request.header("idempotency-key", &key)).await;
                let about = || self.about(&format!("PATCH {} under a key, {given}", self.item(row)));
                let expected = self.outcome(Endpoint::Update, row);
                report.compare(about, &json!(answer.status()), &json!(expected));
                if answer.status() == 200 {
                    let shown = self.ask("GET", &self.item(row)).await.json();
                    report.compare(about, &answer.json(), &shown);
                    let replayed = answer.header("idempotent-replayed").is_some();
                    report.compare(about, &json!(replayed), &json!(given == "again"));
                }
            }
        }
    }

    async fn changed(&self, endpoint: Endpoint, request: TestRequest) -> TestResponse {
        let requires = self.entry.definition.require_if_match;
        let request = if requires { request.header("if-match", "*") } else { request };
        if endpoint == Endpoint::Delete { request.await } else { request.json(json!({})).await }
    }

    fn outcome(&self, endpoint: Endpoint, row: &Row) -> u16 {
        let right = endpoint.right();
        let readable = self.oracle.reach(self.entry, Operation::Read) != Reach::None;
        let sees = self.oracle.sees(self.entry, row);
        match (
            self.oracle.reach(self.entry, right),
            readable,
            sees,
            self.oracle.admits(self.entry, right, row),
        ) {
            (Reach::None, ..) | (_, false, ..) => self.refused(),
            (_, _, false, _) => 404,
            (_, _, _, false) => self.refused(),
            _ => 200,
        }
    }
}
