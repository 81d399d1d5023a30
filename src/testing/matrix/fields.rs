//! The cases of fields that a body may set, for one caller, on every path that changes an item.

use serde_json::{Value as Json, json};

use super::MatrixReport;
use super::cases::Site;
use super::oracle::Row;
use crate::access::Operation;
use crate::error::escape_pointer;
use crate::testing::TestResponse;

impl Site<'_> {
    /// Each field of a row that the caller may change, set to its current value, as a dry run.
    pub(super) async fn sets_fields(&self, report: &mut MatrixReport) {
        let changeable = |row: &&Row| {
            self.oracle.sees(self.entry, row) && self.oracle.admits(self.entry, Operation::Update, row)
        };
        for row in self.rows.iter().filter(changeable).take(2) {
            for field in 0..self.entry.schema.fields.len() {
                if field != self.entry.schema.id {
                    self.sets_field(row, field, report).await;
                }
            }
        }
    }

    /// A unique value of another tenant's row is no conflict, if it is unique within tenants.
    pub(super) async fn uniques(&self, report: &mut MatrixReport) {
        let Some(within) = self.entry.definition.unique_within else { return };
        let changeable = |row: &&Row| {
            self.oracle.sees(self.entry, row) && self.oracle.admits(self.entry, Operation::Update, row)
        };
        let Some(row) = self.rows.iter().find(changeable) else { return };
        let tenant = &self.entry.schema.fields[within].name;
        let unseen =
            |other: &&Row| !self.oracle.sees(self.entry, other) && other.get(tenant) != row.get(tenant);
        let Some(other) = self.rows.iter().find(unseen) else { return };
        for index in self.entry.schema.indexes.iter().filter(|index| index.unique) {
            let own: Vec<_> = index.fields.iter().copied().filter(|field| *field != within).collect();
            let is_settable = |field: &usize| {
                let declared = &self.entry.schema.fields[*field];
                self.outcome_of_field(*field) == Some(json!([200, null])) && !declared.immutable
            };
            if !index.fields.contains(&within) || !own.iter().all(is_settable) {
                continue;
            }
            let names = own.iter().map(|field| self.entry.schema.fields[*field].name.clone());
            let patch: Row =
                names.map(|name| (name.clone(), other.get(&name).cloned().unwrap_or_default())).collect();
            for (path, answer, _) in self.patched(row, patch.clone().into()).await {
                let about = || self.about(&format!("{patch:?} of another tenant by {path}"));
                report.compare(about, &json!(answer.status()), &json!(200));
            }
        }
    }

    async fn sets_field(&self, row: &Row, field: usize, report: &mut MatrixReport) {
        let name = &self.entry.schema.fields[field].name;
        let value = row.get(name).cloned().unwrap_or(Json::Null);
        let Some(expected) = self.outcome_of_field(field) else { return };
        // Callers who see a field and may not set it may send it back unchanged, and nothing else.
        let is_forbidden = expected[0] == 403;
        let is_kept = is_forbidden && self.oracle.tells(self.entry, field);
        let same = if is_kept { json!([200, null]) } else { expected.clone() };
        let other = another(&value).filter(|_| is_forbidden).map(|other| (other, expected.clone()));
        for (value, expected) in [Some((value.clone(), same)), other].into_iter().flatten() {
            for (path, found, pointer) in self.patched(row, json!({name: value})).await {
                let about = || self.about(&format!("`{name}` of {} as {value} by {path}", self.item(row)));
                let found = outcome(&found, &format!("{pointer}/{}", escape_pointer(name)));
                report.compare(about, &found, &expected);
            }
        }
        let declared = &self.entry.schema.fields[field];
        let is_blind = expected[0] == 200
            && !declared.immutable
            && (declared.write_only || !self.oracle.tells(self.entry, field));
        if is_blind {
            self.guesses(row, field, &value, report).await;
        }
    }

    /// The outcome for a field in a body according to `docs/access.md`: a field that does not exist for the caller is
    /// unknown, one that the caller sees and may not set is forbidden unless its value is unchanged, and one that the
    /// server sets is read-only. `None` if it does not specify the outcome.
    fn outcome_of_field(&self, field: usize) -> Option<Json> {
        let declared = &self.entry.schema.fields[field];
        let exists = self.oracle.exists(self.entry, field);
        Some(match (exists, self.oracle.takes(self.entry, field), declared.read_only) {
            (false, ..) => json!([422, "unknown"]),
            (true, false, _) => json!([403, "forbidden"]),
            // Whether bodies may repeat the server's own fields is not a question of access.
            (true, true, true) => return None,
            (true, true, false) => json!([200, null]),
        })
    }

    /// Sends the same merge patch on each path that accepts one, as a dry run: its name, its response, and the location
    /// of the patch in the body.
    async fn patched(&self, row: &Row, patch: Json) -> Vec<(&'static str, TestResponse, &'static str)> {
        let id = &self.entry.schema.id_field().name;
        let tried = |method: &str, path: &str| {
            let request = self.caller.send(self.app.request(method, path)).header("prefer", "dry-run");
            if self.entry.definition.require_if_match { request.header("if-match", "*") } else { request }
        };
        let mut found = vec![("PATCH", tried("PATCH", &self.item(row)).json(patch.clone()).await, "")];
        let boundary = self.app.app().boundary();
        if self.entry.definition.bulk.is_some() {
            let mut one = patch.clone();
            one[id] = row[id].clone();
            one["if_match"] = "*".into();
            let path = format!("{}/bulk", self.collection());
            found.push(("bulk", tried("PATCH", &path).json(json!({"items": [one]})).await, "/items/0"));
        }
        let needs_key = self.entry.definition.idempotency.is_some_and(|idempotency| idempotency.required);
        if boundary.batch.is_some() && !needs_key {
            let one = json!({
                "operation": "update", "resource": &*self.entry.name, "id": row[id], "if_match": "*", "body": patch,
            });
            let path = format!("{}/batch", boundary.prefix);
            let answer = tried("POST", &path).json(json!({"operations": [one]})).await;
            found.push(("a batch", answer, "/operations/0/body"));
        }
        found
    }

    /// A value that the caller sets without seeing the field: the response does not reveal whether the field holds it
    /// already.
    async fn guesses(&self, row: &Row, field: usize, value: &Json, report: &mut MatrixReport) {
        let name = &self.entry.schema.fields[field].name;
        let Some(other) = another(value) else { return };
        let has_counter = self.entry.schema.version.is_some();
        let right = self.patched(row, json!({name: value})).await;
        let wrong = self.patched(row, json!({name: other})).await;
        for ((path, right, _), (_, wrong, _)) in right.iter().zip(&wrong) {
            if wrong.status() != 200 {
                // The other value violates a rule of the model.
                continue;
            }
            let about = || self.about(&format!("a guess of `{name}` of {} by {path}", self.item(row)));
            report.compare(about, &telltale(right, has_counter), &telltale(wrong, has_counter));
        }
    }
}

/// What a response reveals in addition to the item: the number of events, and the version if it is a counter.
fn telltale(answer: &TestResponse, has_counter: bool) -> Json {
    let answer = answer.json();
    let events = answer["events"].as_array().map(Vec::len);
    json!([events, has_counter.then(|| answer["headers"]["etag"].clone())])
}

/// A status, and the code of the fault at one location of the body.
fn outcome(answer: &TestResponse, pointer: &str) -> Json {
    let problem = answer.json();
    let faults = problem["errors"].as_array().into_iter().flatten();
    let code =
        faults.into_iter().find(|fault| fault["pointer"] == pointer).map(|fault| fault["code"].clone());
    json!([answer.status(), code])
}

/// A different value of the same type.
fn another(value: &Json) -> Option<Json> {
    Some(match value {
        Json::Bool(yes) => json!(!yes),
        Json::Number(number) => json!(number.as_i64()?.checked_add(1)?),
        Json::String(text) => json!(format!("{text}1")),
        _ => return None,
    })
}
