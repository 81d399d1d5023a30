//! The cases of bulk routes, batches, actions, history, events and deleted items, for one caller.

use serde_json::{Value as Json, json};

use super::MatrixReport;
use super::cases::{ResourceCases, scalar_text};
use super::oracle::{Access, Row, is_deleted};
use crate::access::Operation;
use crate::http::Endpoint;
use crate::outbox::Event;
use crate::resource::{ActionRef, Right, Target};
use crate::testing::TestResponse;

impl ResourceCases<'_> {
    /// The history of each item, and its state at the current time.
    pub(super) async fn histories(&self, report: &mut MatrixReport) {
        let readable = self.oracle.access(self.entry, Operation::Read) != Access::None;
        let is_allowed = self.oracle.access(self.entry, Right::History) != Access::None && readable;
        let now = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
        for row in self.rows {
            let admitted = self.oracle.is_admitted(self.entry, Operation::Read, row)
                && self.oracle.is_admitted(self.entry, Right::History, row)
                && (!is_deleted(self.entry, row) || self.oracle.is_admitted(self.entry, Right::Deleted, row));
            let is_live = admitted && self.oracle.is_readable(self.entry, row);
            let asked = [("/history".to_owned(), admitted), (format!("?as_of={now}"), is_live)];
            for (rest, shown) in asked {
                let path = format!("{}{rest}", self.item_path(row));
                let response = self.request("GET", &path).await;
                let about = || self.label(&path);
                let expected = match (is_allowed, shown) {
                    (false, _) => self.refused_status(),
                    (_, false) => 404,
                    _ => 200,
                };
                report.compare(about, &json!(response.status()), &json!(expected));
                if rest == "/history" && response.status() == 200 {
                    self.compare_entries(row, &response, report).await;
                }
                for (position, field) in self.entry.schema.fields.iter().enumerate() {
                    let is_shown = response.text().contains(&format!("\"{}\":", field.name));
                    let hidden = !self.oracle.is_visible(self.entry, position);
                    if response.status() == 200
                        && hidden
                        && !["id", "at", "actor", "tenant"].contains(&field.name.as_str())
                    {
                        report.compare(about, &json!(is_shown), &json!(false));
                    }
                }
            }
        }
    }

    /// An entry is shown if the caller may see the state before or after it, and the field values of those states only.
    async fn compare_entries(&self, row: &Row, response: &TestResponse, report: &mut MatrixReport) {
        let id = scalar_text(&row[&self.entry.schema.id_field().name]);
        let engine = &self.app.app().state().engine;
        let Ok(recorded) = engine.audit_entries(self.catalog.entry(self.entry.position), &id).await else {
            return;
        };
        let limit = self.entry.definition.default_limit as usize;
        let admits = |state: &Option<Row>| {
            state.as_ref().is_some_and(|state| {
                self.oracle.is_admitted(self.entry, Operation::Read, state)
                    && self.oracle.is_admitted(self.entry, Right::History, state)
                    && (!is_deleted(self.entry, state)
                        || self.oracle.is_admitted(self.entry, Right::Deleted, state))
            })
        };
        let mut after = Some(row.clone());
        let mut expected = Vec::new();
        for (operation, changes) in recorded {
            let mut before = (operation != "create").then(|| after.clone().unwrap_or_default());
            for (name, change) in &changes {
                if let (Some(before), Some(from)) = (&mut before, change.get("from")) {
                    before.insert(name.clone(), from.clone());
                }
            }
            let (was, is) = (admits(&before), admits(&after));
            if was || is {
                // The values of a state are shown only if the caller may see it.
                let from = before.is_none() || was && (is || after.is_none());
                expected.push(json!([operation, from, is]));
            }
            after = before;
        }
        expected.truncate(limit);
        let holds = |entry: &Json, side: &str| {
            entry["changes"].as_object().into_iter().flatten().any(|(_, change)| change.get(side).is_some())
        };
        for (found, expected) in response.items().iter().zip(&expected) {
            let about = || self.label(&format!("an entry of {}", self.item_path(row)));
            report.compare(about, &found["operation"], &expected[0]);
            for (side, shown) in [("from", &expected[1]), ("to", &expected[2])] {
                if shown == &json!(false) {
                    report.compare(about, &json!(holds(found, side)), &json!(false));
                }
            }
        }
        let about = || self.label(&format!("entries of {}", self.item_path(row)));
        report.compare(about, &json!(response.items().len()), &json!(expected.len()));
    }

    fn bulk_path(&self) -> String {
        format!("{}/bulk", self.collection_path())
    }

    /// Each row through a batch: the result is that of the single route.
    pub(super) async fn batches(&self, report: &mut MatrixReport) {
        let state = self.app.app().state();
        if state.max_batch_operations.is_none() {
            return;
        }
        let path = format!("{}/batch", state.prefix);
        let reach = self.oracle.access(self.entry, Operation::Update);
        let readable = self.oracle.access(self.entry, Operation::Read) != Access::None;
        for row in self.rows {
            let id = &row[&self.entry.schema.id_field().name];
            // An ETag that no item has: a request that gets as far as comparing it changes nothing.
            let operation = json!({
                "operation": "update", "resource": &*self.entry.name, "id": id,
                "if_match": "\"no-such-version\"", "body": {},
            });
            let body = json!({"operations": [operation]});
            let response = self.caller.send(self.app.post(&path)).json(body).await;
            let is_visible = self.oracle.is_readable(self.entry, row);
            let expected = match (
                reach,
                readable,
                is_visible,
                self.oracle.is_admitted(self.entry, Operation::Update, row),
            ) {
                (Access::None, ..) | (_, false, ..) => self.refused_status(),
                (_, _, false, _) => 404,
                (_, _, _, false) => 403,
                _ => 412,
            };
            let about = || self.label(&format!("a batch with {}", self.item_path(row)));
            report.compare(about, &json!(response.status()), &json!(expected));
        }
    }

    /// Bulk creates are admitted like single creates.
    pub(super) async fn bulk_creates(&self, report: &mut MatrixReport) {
        let body = json!({"items": [{"no such field": 1}]});
        let response = self.caller.send(self.app.post(&self.bulk_path())).json(body).await;
        let is_allowed = self.oracle.access(self.entry, Operation::Create) != Access::None
            && self.oracle.has_fill_values(self.entry);
        let expected = if is_allowed { 422 } else { self.refused_status() };
        report.compare(|| self.label("a bulk create"), &json!(response.status()), &json!(expected));
    }

    /// Each row by itself through the bulk route, by its id and by a filter.
    pub(super) async fn bulk_writes(&self, endpoint: Endpoint, report: &mut MatrixReport) {
        let right = endpoint.right();
        let reach = self.oracle.access(self.entry, right);
        let readable = self.oracle.access(self.entry, Operation::Read) != Access::None;
        let name = &self.entry.schema.id_field().name;
        let is_update = endpoint == Endpoint::BulkUpdate;
        for row in self.rows {
            let is_visible = self.oracle.is_readable(self.entry, row);
            let allowed = is_visible && self.oracle.is_admitted(self.entry, right, row);
            // Nothing is changed: the ETag is one that no item has, or the request is a dry run.
            let (body, ok) = if is_update {
                (json!({"items": [{name: row[name], "if_match": "\"no-such-version\""}]}), 412)
            } else {
                (json!({"ids": [row[name]]}), 200)
            };
            let request = self.app.request(endpoint.method().as_str(), &self.bulk_path());
            let response = self.caller.send(request).header("prefer", "dry-run").json(body).await;
            let expected = match (reach, readable, is_visible, allowed) {
                (Access::None, ..) | (_, false, ..) => self.refused_status(),
                (_, _, false, _) => 404,
                (_, _, _, false) => 403,
                _ => ok,
            };
            let about = || self.label(&format!("{} of {} in bulk", endpoint.method(), self.item_path(row)));
            // A row that others refer to cannot be deleted.
            if response.status() != 409 || allowed && is_update {
                report.compare(about, &json!(response.status()), &json!(expected));
            }
        }
    }

    /// A row, as events contain it.
    pub(super) fn event_data(&self, row: &Row) -> Json {
        let names = self.entry.definition.visible.iter().map(|field| &self.entry.schema.fields[*field].name);
        names.filter_map(|name| Some((name.clone(), row.get(name)?.clone()))).collect::<Row>().into()
    }

    /// Of an event of each row the caller receives what a read of the row shows.
    pub(super) async fn events(&self, report: &mut MatrixReport) {
        let state = self.app.app().state();
        let actor = self.caller.actor.clone().with_included(&state.roles);
        let schema = &self.entry.schema;
        for row in self.rows {
            let visible_event = async |data: &Row| {
                let event = Event::updated(
                    &self.entry.name,
                    &scalar_text(&row[&schema.id_field().name]),
                    self.event_data(data),
                );
                let event = state.engine.visible_event(&actor, &event).await;
                event.map_or_else(|error| json!(error.detail()), |event| json!(event.map(|event| event.data)))
            };
            let about = || self.label(&format!("an event of {}", self.item_path(row)));
            // Access to an earlier state of the item does not give access to its current state.
            let visible_row = self.rows.iter().find(|row| self.oracle.is_readable(self.entry, row));
            if let Some(visible_row) =
                visible_row.filter(|_| !self.oracle.is_admitted(self.entry, Operation::Read, row))
            {
                report.compare(about, &visible_event(visible_row).await, &Json::Null);
            }
            let shown = visible_event(row).await;
            if is_deleted(self.entry, row) {
                // Callers who could see it before receive the event.
                let admitted = self.oracle.is_admitted(self.entry, Operation::Read, row)
                    && self.oracle.access(self.entry, Operation::Read) != Access::None;
                report.compare(about, &json!(!shown.is_null()), &json!(admitted));
                continue;
            }
            let response = self.request("GET", &self.item_path(row)).await;
            let expected = if response.status() == 200 { response.json() } else { Json::Null };
            report.compare(about, &shown, &expected);
        }
    }

    pub(super) fn can_target_deleted(&self, endpoint: Endpoint) -> bool {
        match endpoint {
            Endpoint::Action(action_ref) => {
                self.entry.definition.actions[action_ref.position].action.can_target_deleted
            }
            _ => false,
        }
    }

    /// Deleted items, on request, for callers who may see them.
    pub(super) async fn deleted(&self, report: &mut MatrixReport) {
        if self.entry.definition.deleted_at.is_none() {
            return;
        }
        let is_allowed = self.oracle.access(self.entry, Right::Deleted) != Access::None;
        let lists = self.oracle.access(self.entry, Operation::List) != Access::None
            && self.oracle.access(self.entry, Operation::Read) != Access::None;
        for (asked, includes_live) in [("only", false), ("include", true)] {
            let path = format!("{}?deleted={asked}&limit=200", self.collection_path());
            let response = self.request("GET", &path).await;
            let about = || self.label(&path);
            if !is_allowed || !lists {
                report.compare(about, &json!(response.status()), &json!(self.refused_status()));
                continue;
            }
            let admits = |right: Right, row: &Row| self.oracle.is_admitted(self.entry, right, row);
            let shown = self.rows.iter().filter(|row| {
                let is_gone = is_deleted(self.entry, row);
                admits(Operation::Read.into(), row)
                    && admits(Operation::List.into(), row)
                    && if is_gone { admits(Right::Deleted, row) } else { includes_live }
            });
            let expected = shown.count().min(self.entry.definition.max_limit as usize);
            report.compare(about, &json!(response.items().len()), &json!(expected));
        }
    }

    pub(super) async fn actions(&self, endpoint: Endpoint, action_ref: ActionRef, report: &mut MatrixReport) {
        if action_ref.target == Target::Item {
            return self.writes(endpoint, report).await;
        }
        let prefix = &self.app.app().state().prefix;
        let path = endpoint.path().template(prefix, &self.entry.definition);
        // The input is invalid: admitted callers get a validation error, others are refused.
        let response = self.caller.send(self.app.post(&path)).json(json!([])).await;
        let expected = if self.oracle.access(self.entry, endpoint.right()) == Access::None {
            self.refused_status()
        } else {
            422
        };
        report.compare(|| self.label(&format!("POST {path}")), &json!(response.status()), &json!(expected));
    }
}
