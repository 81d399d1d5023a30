//! Dry runs and replays, for one caller.

use std::collections::BTreeSet;

use serde_json::{Value as Json, json};

use super::MatrixReport;
use super::cases::ResourceCases;
use super::oracle::{Access, Row};
use crate::access::Operation;
use crate::http::Endpoint;
use crate::testing::{TestRequest, TestResponse};

impl ResourceCases<'_> {
    /// Dry runs of an empty change or a delete of each row: which are admitted, and what the response shows.
    pub(super) async fn dry_runs(&self, endpoint: Endpoint, report: &mut MatrixReport) {
        let names = |json: &Json| -> BTreeSet<String> {
            json.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect()
        };
        for row in self.rows {
            let request =
                self.caller.send(self.app.request(endpoint.method().as_str(), &self.item_path(row)));
            let response = self.send_change(endpoint, request.header("prefer", "dry-run")).await;
            let about = || self.label(&format!("{} {} as a trial", endpoint.method(), self.item_path(row)));
            let expected = self.expected_status(endpoint, row);
            // A row that others refer to cannot be deleted.
            if expected == 200 && response.status() == 409 {
                continue;
            }
            report.compare(about, &json!(response.status()), &json!(expected));
            if response.status() != 200 {
                continue;
            }
            let (dry_run, shown) = (response.json(), self.request("GET", &self.item_path(row)).await.json());
            if endpoint == Endpoint::Update {
                report.compare(about, &dry_run["body"], &shown);
            }
            let is_own_event = |event: &&Json| {
                event["type"]
                    .as_str()
                    .is_some_and(|event_type| event_type.split('.').next() == Some(&*self.entry.name))
            };
            for event in dry_run["events"].as_array().into_iter().flatten().filter(is_own_event) {
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
            for attempt in ["first", "again"] {
                let request = self.caller.send(self.app.patch(&self.item_path(row)));
                let response =
                    self.send_change(Endpoint::Update, request.header("idempotency-key", &key)).await;
                let about = || self.label(&format!("PATCH {} under a key, {attempt}", self.item_path(row)));
                let expected = self.expected_status(Endpoint::Update, row);
                report.compare(about, &json!(response.status()), &json!(expected));
                if response.status() == 200 {
                    let shown = self.request("GET", &self.item_path(row)).await.json();
                    report.compare(about, &response.json(), &shown);
                    let replayed = response.header("idempotent-replayed").is_some();
                    report.compare(about, &json!(replayed), &json!(attempt == "again"));
                }
            }
        }
    }

    async fn send_change(&self, endpoint: Endpoint, request: TestRequest) -> TestResponse {
        let is_required = self.entry.definition.require_if_match;
        let request = if is_required { request.header("if-match", "*") } else { request };
        if endpoint == Endpoint::Delete { request.await } else { request.json(json!({})).await }
    }

    fn expected_status(&self, endpoint: Endpoint, row: &Row) -> u16 {
        let right = endpoint.right();
        let readable = self.oracle.access(self.entry, Operation::Read) != Access::None;
        let is_visible = self.oracle.is_readable(self.entry, row);
        match (
            self.oracle.access(self.entry, right),
            readable,
            is_visible,
            self.oracle.is_admitted(self.entry, right, row),
        ) {
            (Access::None, ..) | (_, false, ..) => self.refused_status(),
            (_, _, false, _) => 404,
            (_, _, _, false) => self.refused_status(),
            _ => 200,
        }
    }
}
