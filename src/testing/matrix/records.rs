//! The cases of bulk routes, batches, actions, history, events and deleted items, for one caller.

use serde_json::{Value as Json, json};

use super::MatrixReport;
use super::cases::{Site, text};
use super::oracle::{Reach, Row, is_deleted};
use crate::access::Operation;
use crate::http::Endpoint;
use crate::outbox::Event;
use crate::resource::{Acted, Right, Target};
use crate::testing::TestResponse;

impl Site<'_> {
    /// The history of each item, and its state at the current time.
    pub(super) async fn histories(&self, report: &mut MatrixReport) {
        let readable = self.oracle.reach(self.entry, Operation::Read) != Reach::None;
        let may = self.oracle.reach(self.entry, Right::History) != Reach::None && readable;
        let now = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
        for row in self.rows {
            let admitted = self.oracle.admits(self.entry, Operation::Read, row)
                && self.oracle.admits(self.entry, Right::History, row)
                && (!is_deleted(self.entry, row) || self.oracle.admits(self.entry, Right::Deleted, row));
            let live = admitted && self.oracle.sees(self.entry, row);
            let asked = [("/history".to_owned(), admitted), (format!("?as_of={now}"), live)];
            for (rest, shown) in asked {
                let path = format!("{}{rest}", self.item(row));
                let answer = self.ask("GET", &path).await;
                let about = || self.about(&path);
                let expected = match (may, shown) {
                    (false, _) => self.refused(),
                    (_, false) => 404,
                    _ => 200,
                };
                report.compare(about, &json!(answer.status()), &json!(expected));
                if rest == "/history" && answer.status() == 200 {
                    self.entries(row, &answer, report).await;
                }
                for (position, field) in self.entry.schema.fields.iter().enumerate() {
                    let told = answer.text().contains(&format!("\"{}\":", field.name));
                    let hidden = !self.oracle.shows(self.entry, position);
                    if answer.status() == 200
                        && hidden
                        && !["id", "at", "actor", "tenant"].contains(&field.name.as_str())
                    {
                        report.compare(about, &json!(told), &json!(false));
                    }
                }
            }
        }
    }

    /// An entry is shown if the caller may see the state before or after it, and the field values of those states only.
    async fn entries(&self, row: &Row, answer: &TestResponse, report: &mut MatrixReport) {
        let id = text(&row[&self.entry.schema.id_field().name]);
        let engine = &self.app.app().boundary().engine;
        let Ok(written) = engine.audit_entries(self.catalog.entry(self.entry.position), &id).await else {
            return;
        };
        let limit = self.entry.definition.default_limit as usize;
        let admits = |state: &Option<Row>| {
            state.as_ref().is_some_and(|state| {
                self.oracle.admits(self.entry, Operation::Read, state)
                    && self.oracle.admits(self.entry, Right::History, state)
                    && (!is_deleted(self.entry, state)
                        || self.oracle.admits(self.entry, Right::Deleted, state))
            })
        };
        let mut after = Some(row.clone());
        let mut expected = Vec::new();
        for (operation, changes) in written {
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
        for (found, expected) in answer.items().iter().zip(&expected) {
            let about = || self.about(&format!("an entry of {}", self.item(row)));
            report.compare(about, &found["operation"], &expected[0]);
            for (side, shown) in [("from", &expected[1]), ("to", &expected[2])] {
                if shown == &json!(false) {
                    report.compare(about, &json!(holds(found, side)), &json!(false));
                }
            }
        }
        let about = || self.about(&format!("entries of {}", self.item(row)));
        report.compare(about, &json!(answer.items().len()), &json!(expected.len()));
    }

    fn bulk(&self) -> String {
        format!("{}/bulk", self.collection())
    }

    /// Each row through a batch: the result is that of the single route.
    pub(super) async fn batches(&self, report: &mut MatrixReport) {
        let boundary = self.app.app().boundary();
        if boundary.batch.is_none() {
            return;
        }
        let path = format!("{}/batch", boundary.prefix);
        let reach = self.oracle.reach(self.entry, Operation::Update);
        let readable = self.oracle.reach(self.entry, Operation::Read) != Reach::None;
        for row in self.rows {
            let id = &row[&self.entry.schema.id_field().name];
            // An ETag that no item has: a request that gets as far as comparing it changes nothing.
            let operation = json!({
                "operation": "update", "resource": &*self.entry.name, "id": id,
                "if_match": "\"no-such-version\"", "body": {},
            });
            let body = json!({"operations": [operation]});
            let answer = self.caller.send(self.app.post(&path)).json(body).await;
            let sees = self.oracle.sees(self.entry, row);
            let expected =
                match (reach, readable, sees, self.oracle.admits(self.entry, Operation::Update, row)) {
                    (Reach::None, ..) | (_, false, ..) => self.refused(),
                    (_, _, false, _) => 404,
                    (_, _, _, false) => 403,
                    _ => 412,
                };
            let about = || self.about(&format!("a batch with {}", self.item(row)));
            report.compare(about, &json!(answer.status()), &json!(expected));
        }
    }

    /// Bulk creates are admitted like single creates.
    pub(super) async fn bulk_creates(&self, report: &mut MatrixReport) {
        let body = json!({"items": [{"no such field": 1}]});
        let answer = self.caller.send(self.app.post(&self.bulk())).json(body).await;
        let may =
            self.oracle.reach(self.entry, Operation::Create) != Reach::None && self.oracle.fills(self.entry);
        let expected = if may { 422 } else { self.refused() };
        report.compare(|| self.about("a bulk create"), &json!(answer.status()), &json!(expected));
    }

    /// Each row by itself through the bulk route, by its id and by a filter.
    pub(super) async fn bulk_writes(&self, endpoint: Endpoint, report: &mut MatrixReport) {
        let right = endpoint.right();
        let reach = self.oracle.reach(self.entry, right);
        let readable = self.oracle.reach(self.entry, Operation::Read) != Reach::None;
        let name = &self.entry.schema.id_field().name;
        let patches = endpoint == Endpoint::BulkUpdate;
        for row in self.rows {
            let sees = self.oracle.sees(self.entry, row);
            let allowed = sees && self.oracle.admits(self.entry, right, row);
            // Nothing is changed: the ETag is one that no item has, or the request is a dry run.
            let (body, ok) = if patches {
                (json!({"items": [{name: row[name], "if_match": "\"no-such-version\""}]}), 412)
            } else {
                (json!({"ids": [row[name]]}), 200)
            };
            let request = self.app.request(endpoint.method().as_str(), &self.bulk());
            let answer = self.caller.send(request).header("prefer", "dry-run").json(body).await;
            let expected = match (reach, readable, sees, allowed) {
                (Reach::None, ..) | (_, false, ..) => self.refused(),
                (_, _, false, _) => 404,
                (_, _, _, false) => 403,
                _ => ok,
            };
            let about = || self.about(&format!("{} of {} in bulk", endpoint.method(), self.item(row)));
            // A row that others refer to cannot be deleted.
            if answer.status() != 409 || allowed && patches {
                report.compare(about, &json!(answer.status()), &json!(expected));
            }
        }
    }

    /// A row, as events contain it.
    pub(super) fn shape(&self, row: &Row) -> Json {
        let names = self.entry.definition.visible.iter().map(|field| &self.entry.schema.fields[*field].name);
        names.filter_map(|name| Some((name.clone(), row.get(name)?.clone()))).collect::<Row>().into()
    }

    /// Of an event of each row the caller receives what a read of the row shows.
    pub(super) async fn told(&self, report: &mut MatrixReport) {
        let boundary = self.app.app().boundary();
        let actor = self.caller.actor.clone().with_included(&boundary.roles);
        let schema = &self.entry.schema;
        for row in self.rows {
            let told = async |data: &Row| {
                let event =
                    Event::updated(&self.entry.name, &text(&row[&schema.id_field().name]), self.shape(data));
                let told = boundary.engine.shown_to(&actor, &event).await;
                told.map_or_else(|error| json!(error.detail()), |told| json!(told.map(|told| told.data)))
            };
            let about = || self.about(&format!("an event of {}", self.item(row)));
            // Access to an earlier state of the item does not give access to its current state.
            let seen = self.rows.iter().find(|row| self.oracle.sees(self.entry, row));
            if let Some(seen) = seen.filter(|_| !self.oracle.admits(self.entry, Operation::Read, row)) {
                report.compare(about, &told(seen).await, &Json::Null);
            }
            let told = told(row).await;
            if is_deleted(self.entry, row) {
                // Callers who could see it before receive the event.
                let admitted = self.oracle.admits(self.entry, Operation::Read, row)
                    && self.oracle.reach(self.entry, Operation::Read) != Reach::None;
                report.compare(about, &json!(!told.is_null()), &json!(admitted));
                continue;
            }
            let answer = self.ask("GET", &self.item(row)).await;
            let expected = if answer.status() == 200 { answer.json() } else { Json::Null };
            report.compare(about, &told, &expected);
        }
    }

    pub(super) fn reaches_deleted(&self, endpoint: Endpoint) -> bool {
        match endpoint {
            Endpoint::Action(acted) => self.entry.definition.actions[acted.position].action.reaches_deleted,
            _ => false,
        }
    }

    /// Deleted items, on request, for callers who may see them.
    pub(super) async fn deleted(&self, report: &mut MatrixReport) {
        if self.entry.definition.deleted_at.is_none() {
            return;
        }
        let may = self.oracle.reach(self.entry, Right::Deleted) != Reach::None;
        let lists = self.oracle.reach(self.entry, Operation::List) != Reach::None
            && self.oracle.reach(self.entry, Operation::Read) != Reach::None;
        for (asked, with_live) in [("only", false), ("include", true)] {
            let path = format!("{}?deleted={asked}&limit=200", self.collection());
            let answer = self.ask("GET", &path).await;
            let about = || self.about(&path);
            if !may || !lists {
                report.compare(about, &json!(answer.status()), &json!(self.refused()));
                continue;
            }
            let admits = |right: Right, row: &Row| self.oracle.admits(self.entry, right, row);
            let shown = self.rows.iter().filter(|row| {
                let gone = is_deleted(self.entry, row);
                admits(Operation::Read.into(), row)
                    && admits(Operation::List.into(), row)
                    && if gone { admits(Right::Deleted, row) } else { with_live }
            });
            let expected = shown.count().min(self.entry.definition.max_limit as usize);
            report.compare(about, &json!(answer.items().len()), &json!(expected));
        }
    }

    pub(super) async fn acts(&self, endpoint: Endpoint, acted: Acted, report: &mut MatrixReport) {
        if acted.target == Target::Item {
            return self.writes(endpoint, report).await;
        }
        let prefix = &self.app.app().boundary().prefix;
        let path = endpoint.path().template(prefix, &self.entry.definition);
        // The input is invalid: admitted callers get a validation error, others are refused.
        let answer = self.caller.send(self.app.post(&path)).json(json!([])).await;
        let expected =
            if self.oracle.reach(self.entry, endpoint.right()) == Reach::None { self.refused() } else { 422 };
        report.compare(|| self.about(&format!("POST {path}")), &json!(answer.status()), &json!(expected));
    }
}
