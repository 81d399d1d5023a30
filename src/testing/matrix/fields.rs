//! The cases of fields that a body may set, for one caller, on every path that changes an item.

use serde_json::{Value as Json, json};

use super::MatrixReport;
use super::cases::ResourceCases;
use super::oracle::Row;
use crate::access::Operation;
use crate::error::escape_pointer;
use crate::testing::TestResponse;

impl ResourceCases<'_> {
    /// Each field of a row that the caller may change, set to its current value, as a dry run.
    pub(super) async fn sets_fields(&self, report: &mut MatrixReport) {
        let changeable = |row: &&Row| {
            self.oracle.is_readable(self.entry, row)
                && self.oracle.is_admitted(self.entry, Operation::Update, row)
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
            self.oracle.is_readable(self.entry, row)
                && self.oracle.is_admitted(self.entry, Operation::Update, row)
        };
        let Some(row) = self.rows.iter().find(changeable) else { return };
        let tenant = &self.entry.schema.fields[within].name;
        let unseen = |other: &&Row| {
            !self.oracle.is_readable(self.entry, other) && other.get(tenant) != row.get(tenant)
        };
        let Some(other) = self.rows.iter().find(unseen) else { return };
        for index in self.entry.schema.indexes.iter().filter(|index| index.unique) {
            let own: Vec<_> = index.fields.iter().copied().filter(|field| *field != within).collect();
            let is_settable = |field: &usize| {
                let declared = &self.entry.schema.fields[*field];
                self.expected_outcome(*field) == Some(json!([200, null])) && !declared.immutable
            };
            if !index.fields.contains(&within) || !own.iter().all(is_settable) {
                continue;
            }
            let names = own.iter().map(|field| self.entry.schema.fields[*field].name.clone());
            let patch: Row =
                names.map(|name| (name.clone(), other.get(&name).cloned().unwrap_or_default())).collect();
            for (path, response, _) in self.send_patches(row, patch.clone().into()).await {
                let about = || self.label(&format!("{patch:?} of another tenant by {path}"));
                report.compare(about, &json!(response.status()), &json!(200));
            }
        }
    }

    async fn sets_field(&self, row: &Row, field: usize, report: &mut MatrixReport) {
        let name = &self.entry.schema.fields[field].name;
        let value = row.get(name).cloned().unwrap_or(Json::Null);
        let Some(expected) = self.expected_outcome(field) else { return };
        // Callers who see a field and may not set it may send it back unchanged, and nothing else.
        let is_forbidden = expected[0] == 403;
        let can_keep = is_forbidden && self.oracle.can_reveal(self.entry, field);
        let same = if can_keep { json!([200, null]) } else { expected.clone() };
        let other = different_value(&value).filter(|_| is_forbidden).map(|other| (other, expected.clone()));
        for (value, expected) in [Some((value.clone(), same)), other].into_iter().flatten() {
            for (path, found, pointer) in self.send_patches(row, json!({name: value})).await {
                let about =
                    || self.label(&format!("`{name}` of {} as {value} by {path}", self.item_path(row)));
                let found = outcome(&found, &format!("{pointer}/{}", escape_pointer(name)));
                report.compare(about, &found, &expected);
            }
        }
        let declared = &self.entry.schema.fields[field];
        let is_write_blind = expected[0] == 200
            && !declared.immutable
            && (declared.write_only || !self.oracle.can_reveal(self.entry, field));
        if is_write_blind {
            self.test_guesses(row, field, &value, report).await;
        }
    }

    /// The outcome for a field in a body according to `docs/access.md`: a field that does not exist for the caller is
    /// unknown, one that the caller sees and may not set is forbidden unless its value is unchanged, and one that the
    /// server sets is read-only. `None` if it does not specify the outcome.
    fn expected_outcome(&self, field: usize) -> Option<Json> {
        let declared = &self.entry.schema.fields[field];
        let exists = self.oracle.exists_in_body(self.entry, field);
        Some(match (exists, self.oracle.can_write(self.entry, field), declared.read_only) {
            (false, ..) => json!([422, "unknown"]),
            (true, false, _) => json!([403, "forbidden"]),
            // Whether bodies may repeat the server's own fields is not a question of access.
            (true, true, true) => return None,
            (true, true, false) => json!([200, null]),
        })
    }

    /// Sends the same merge patch on each path that accepts one, as a dry run: its name, its response, and the location
    /// of the patch in the body.
    async fn send_patches(&self, row: &Row, patch: Json) -> Vec<(&'static str, TestResponse, &'static str)> {
        let id = &self.entry.schema.id_field().name;
        let tried = |method: &str, path: &str| {
            let request = self.caller.send(self.app.request(method, path)).header("prefer", "dry-run");
            if self.entry.definition.require_if_match { request.header("if-match", "*") } else { request }
        };
        let mut found = vec![("PATCH", tried("PATCH", &self.item_path(row)).json(patch.clone()).await, "")];
        let state = self.app.app().state();
        if self.entry.definition.bulk.is_some() {
            let mut one = patch.clone();
            one[id] = row[id].clone();
            one["if_match"] = "*".into();
            let path = format!("{}/bulk", self.collection_path());
            found.push(("bulk", tried("PATCH", &path).json(json!({"items": [one]})).await, "/items/0"));
        }
        let needs_key = self.entry.definition.idempotency.is_some_and(|idempotency| idempotency.required);
        if state.max_batch_operations.is_some() && !needs_key {
            let one = json!({
                "operation": "update", "resource": &*self.entry.name, "id": row[id], "if_match": "*", "body": patch,
            });
            let path = format!("{}/batch", state.prefix);
            let response = tried("POST", &path).json(json!({"operations": [one]})).await;
            found.push(("a batch", response, "/operations/0/body"));
        }
        found
    }

    /// A value that the caller sets without seeing the field: the response does not reveal whether the field holds it
    /// already.
    async fn test_guesses(&self, row: &Row, field: usize, value: &Json, report: &mut MatrixReport) {
        let name = &self.entry.schema.fields[field].name;
        let Some(other) = different_value(value) else { return };
        let has_counter = self.entry.schema.version.is_some();
        let right = self.send_patches(row, json!({name: value})).await;
        let wrong = self.send_patches(row, json!({name: other})).await;
        for ((path, right, _), (_, wrong, _)) in right.iter().zip(&wrong) {
            if wrong.status() != 200 {
                // The other value violates a rule of the model.
                continue;
            }
            let about = || self.label(&format!("a guess of `{name}` of {} by {path}", self.item_path(row)));
            report.compare(about, &observable(right, has_counter), &observable(wrong, has_counter));
        }
    }
}

/// What a response reveals in addition to the item: the number of events, and the version if it is a counter.
fn observable(response: &TestResponse, has_counter: bool) -> Json {
    let response = response.json();
    let events = response["events"].as_array().map(Vec::len);
    json!([events, has_counter.then(|| response["headers"]["etag"].clone())])
}

/// A status, and the code of the fault at one location of the body.
fn outcome(response: &TestResponse, pointer: &str) -> Json {
    let problem = response.json();
    let faults = problem["errors"].as_array().into_iter().flatten();
    let code =
        faults.into_iter().find(|fault| fault["pointer"] == pointer).map(|fault| fault["code"].clone());
    json!([response.status(), code])
}

/// A different value of the same type.
fn different_value(value: &Json) -> Option<Json> {
    Some(match value {
        Json::Bool(yes) => json!(!yes),
        Json::Number(number) => json!(number.as_i64()?.checked_add(1)?),
        Json::String(text) => json!(format!("{text}1")),
        _ => return None,
    })
}
