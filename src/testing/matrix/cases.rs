//! The cases of one resource's paths, for one caller.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use resourceful_contract::{Cardinality, FieldType, Filter, Test, Value};
use serde_json::{Value as Json, json};

use super::oracle::{Access, Oracle, Row, value};
use super::{Caller, MatrixReport};
use crate::access::Operation;
use crate::catalog::{Catalog, Entry, LinkedRelation};
use crate::http::{Endpoint, Path};
use crate::testing::{TestApp, TestResponse};

/// One resource, tested for one caller.
pub(super) struct ResourceCases<'a> {
    pub(super) app: &'a TestApp,
    pub(super) caller: &'a Caller,
    pub(super) others: &'a [Caller],
    pub(super) oracle: &'a Oracle<'a>,
    pub(super) entry: &'a Entry,
    pub(super) catalog: &'a Catalog,
    pub(super) rows: &'a [Row],
}

impl ResourceCases<'_> {
    pub(super) async fn run(&self, report: &mut MatrixReport) {
        for endpoint in Endpoint::of(&self.entry.definition) {
            // A path without a case is unproven: a new endpoint does not compile without an arm.
            match endpoint {
                Endpoint::List => {
                    self.lists(report).await;
                    self.deleted(report).await;
                }
                Endpoint::Query | Endpoint::QueryPost => self.bodies(endpoint, report).await,
                Endpoint::Read => {
                    self.items(report).await;
                    self.events(report).await;
                }
                Endpoint::Create => self.creates(report).await,
                Endpoint::Update => {
                    self.writes(endpoint, report).await;
                    self.references(report).await;
                    self.sets_fields(report).await;
                    self.uniques(report).await;
                    self.batches(report).await;
                    self.dry_runs(endpoint, report).await;
                    self.replays(report).await;
                }
                Endpoint::Delete => {
                    self.writes(endpoint, report).await;
                    self.dry_runs(endpoint, report).await;
                }
                Endpoint::Replace => self.writes(endpoint, report).await,
                Endpoint::Stream => self.streams(report).await,
                Endpoint::History => self.histories(report).await,
                Endpoint::Children => self.children(report).await,
                Endpoint::Subtree => self.subtrees(report).await,
                Endpoint::BulkCreate => self.bulk_creates(report).await,
                Endpoint::BulkUpdate | Endpoint::BulkDelete => self.bulk_writes(endpoint, report).await,
                Endpoint::Action(action_ref) => self.actions(endpoint, action_ref, report).await,
            }
        }
    }

    pub(super) fn collection_path(&self) -> String {
        Path::Collection.template(&self.app.app().state().prefix, &self.entry.definition)
    }

    pub(super) fn item_path(&self, row: &Row) -> String {
        format!(
            "{}/{}",
            self.collection_path(),
            encoded(&scalar_text(&row[&self.entry.schema.id_field().name]))
        )
    }

    pub(super) async fn request(&self, method: &str, path: &str) -> TestResponse {
        self.caller.send(self.app.request(method, path)).await
    }

    pub(super) fn label(&self, what: &str) -> String {
        format!("{} as {}", what, self.caller.name)
    }

    /// The status for callers without access.
    pub(super) fn refused_status(&self) -> u16 {
        if self.oracle.is_anonymous() { 401 } else { 403 }
    }

    /// Whether lists are closed to the caller, so that the query is not even parsed.
    pub(super) fn is_closed(&self) -> bool {
        let closed = |operation| self.oracle.access(self.entry, operation) == Access::None;
        closed(Operation::List) || closed(Operation::Read)
    }

    pub(super) fn listed_rows(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| self.oracle.is_listed(self.entry, row))
    }

    /// Compares a list's ids, as a set, and each item with what the caller may see of it.
    pub(super) fn compare_list(
        &self,
        what: &str,
        response: &TestResponse,
        expected: Option<Vec<&Row>>,
        report: &mut MatrixReport,
    ) {
        let id = &self.entry.schema.id_field().name;
        let about = || self.label(what);
        if self.is_closed() {
            return report.compare(about, &json!(response.status()), &json!(self.refused_status()));
        }
        let Some(expected) = expected else {
            return report.compare(about, &json!(response.status()), &json!(400));
        };
        if response.status() != 200 {
            return report.compare(about, &json!(response.status()), &json!(200));
        }
        let key = |row: &Json| row[id].to_string();
        let mut found: Vec<Json> = response.items();
        let mut wanted: Vec<Json> =
            expected.into_iter().map(|row| self.oracle.visible_item(self.entry, row)).collect();
        found.sort_by_key(key);
        wanted.sort_by_key(key);
        report.compare(about, &Json::from(found), &Json::from(wanted));
    }

    async fn lists(&self, report: &mut MatrixReport) {
        let limit = self.entry.definition.max_limit;
        let all: Vec<_> = self.listed_rows().collect();
        if all.len() > limit as usize {
            report.failures.push(format!("{}: more rows than a page holds; load fewer", self.entry.name));
            return;
        }
        let path = format!("{}?limit={limit}", self.collection_path());
        let plain = self.caller.send(self.app.get(&path)).header("prefer", "count=exact").await;
        self.compare_list(&path, &plain, Some(all.clone()), report);
        if !self.is_closed() {
            report.compare(|| self.label("a count"), &plain.json()["page"]["total"], &json!(all.len()));
        }
        for field in 0..self.entry.schema.fields.len() {
            self.sorts(field, report).await;
            for (operator, operand, test) in self.tests(self.entry, field) {
                let name = &self.entry.schema.fields[field].name;
                let query =
                    format!("{path}&{}={}", encoded(&format!("{name}[{operator}]")), encoded(&operand));
                let response = self.request("GET", &query).await;
                let is_legal =
                    self.entry.definition.filterable[field] && self.oracle.can_reveal(self.entry, field);
                let found = self.listed_rows().filter(|row| test.passes(&value(self.entry, field, row)));
                self.compare_list(&query, &response, is_legal.then(|| found.collect()), report);
            }
        }
        self.searches(&path, report).await;
        for relation in &self.entry.links {
            self.relation(&path, relation, report).await;
        }
        self.cursors(report).await;
    }

    /// Every operator of a field, with operands from all rows, whether or not the caller may see them.
    fn tests(&self, entry: &Entry, field: usize) -> Vec<(&'static str, String, Test)> {
        let is_array = matches!(entry.schema.fields[field].field_type, FieldType::Array(_));
        let mut operands: Vec<Value> = Vec::new();
        for row in self.oracle.rows_of(entry) {
            let operand = match value(entry, field, row) {
                Value::Array(items) if is_array => items.first().cloned(),
                value => Some(value),
            };
            let operand = operand.filter(|operand| !matches!(operand, Value::Json(_) | Value::Null));
            operands.extend(
                operand.filter(|operand| operands.iter().all(|known| !known.compare(operand).is_eq())),
            );
        }
        let mut tests = vec![("is_null", "true".to_owned(), Test::IsNull(true))];
        // One operand from the first rows, one from the last, which most likely belongs to another caller.
        let (first, last) = (operands.first(), operands.last().filter(|_| operands.len() > 1));
        for operand in first.into_iter().chain(last) {
            tests.extend(self::tests(entry.schema.fields[field].field_type, operand));
        }
        tests
    }

    async fn sorts(&self, field: usize, report: &mut MatrixReport) {
        let name = &self.entry.schema.fields[field].name;
        let limit = self.entry.definition.max_limit;
        for direction in ["", "-"] {
            let query = format!("{}?limit={limit}&sort={direction}{}", self.collection_path(), encoded(name));
            let response = self.request("GET", &query).await;
            let is_legal = self.entry.definition.sortable[field] && self.oracle.can_reveal(self.entry, field);
            self.compare_list(&query, &response, is_legal.then(|| self.listed_rows().collect()), report);
        }
        let shown =
            self.entry.definition.visible.contains(&field) && self.oracle.is_visible(self.entry, field);
        let query = format!("{}?limit=1&fields={}", self.collection_path(), encoded(name));
        let response = self.request("GET", &query).await;
        let status = if self.is_closed() { self.refused_status() } else { if shown { 200 } else { 400 } };
        report.compare(|| self.label(&query), &json!(response.status()), &json!(status));
    }

    async fn searches(&self, path: &str, report: &mut MatrixReport) {
        let searchable = self.entry.definition.searchable.iter().copied();
        let revealed_fields: Vec<_> =
            searchable.clone().filter(|field| self.oracle.can_reveal(self.entry, *field)).collect();
        for field in searchable {
            let words = self.rows.iter().filter_map(|row| match value(self.entry, field, row) {
                Value::Text(text) => text.split_whitespace().next().map(str::to_owned),
                _ => None,
            });
            for word in words.take(3).collect::<Vec<_>>() {
                let query = format!("{path}&q={}", encoded(&word));
                let response = self.request("GET", &query).await;
                let filter = Filter::Search(revealed_fields.clone(), word);
                let found = self.listed_rows().filter(|row| self.oracle.matches(self.entry, &filter, row));
                self.compare_list(
                    &query,
                    &response,
                    (!revealed_fields.is_empty()).then(|| found.collect()),
                    report,
                );
            }
        }
    }

    async fn relation(&self, path: &str, relation: &LinkedRelation, report: &mut MatrixReport) {
        let target = self.catalog.entry(relation.target);
        let name = &relation.link.name;
        let readable = self.oracle.access(target, Operation::Read) != Access::None
            && self.oracle.is_relation_visible(self.entry, relation);
        let response = self.request("GET", &format!("{path}&include={name}")).await;
        let status = if self.is_closed() { self.refused_status() } else { if readable { 200 } else { 400 } };
        report.compare(
            || self.label(&format!("{path}&include={name}")),
            &json!(response.status()),
            &json!(status),
        );
        if response.status() == 200 {
            let id = &self.entry.schema.id_field().name;
            for item in response.items() {
                let Some(row) = self.rows.iter().find(|row| row[id] == item[id]) else { continue };
                let expected = self.included_items(relation, row);
                report.compare(|| self.label(&format!("{name} of {}", item[id])), &item[name], &expected);
            }
        }
        let listable = readable && self.oracle.access(target, Operation::List) != Access::None;
        for field in 0..target.schema.fields.len() {
            for (operator, operand, test) in self.tests(target, field) {
                let dotted = format!("{name}.{}[{operator}]", target.schema.fields[field].name);
                let query = format!("{path}&{}={}", encoded(&dotted), encoded(&operand));
                let response = self.request("GET", &query).await;
                let is_legal =
                    listable && target.definition.filterable[field] && self.oracle.can_reveal(target, field);
                let found = self.listed_rows().filter(|row| {
                    self.oracle.related(self.entry, relation, row).any(|other| {
                        self.oracle.is_listed(target, other) && test.passes(&value(target, field, other))
                    })
                });
                self.compare_list(&query, &response, is_legal.then(|| found.collect()), report);
            }
        }
    }

    fn included_items(&self, relation: &LinkedRelation, row: &Row) -> Json {
        let target = self.catalog.entry(relation.target);
        let visible =
            self.oracle.related(self.entry, relation, row).filter(|row| self.oracle.is_readable(target, row));
        let mut visible: Vec<_> = visible.collect();
        visible
            .sort_by(|a, b| value(target, target.schema.id, a).compare(&value(target, target.schema.id, b)));
        let mut shown = visible.into_iter().map(|row| self.oracle.visible_item(target, row));
        match relation.link.cardinality {
            Cardinality::One => shown.next().unwrap_or(Json::Null),
            Cardinality::Many => shown.take(relation.limit as usize).collect(),
        }
    }

    /// A cursor is accepted only from the caller that received it. With cached responses, these are all callers with
    /// the same rights.
    async fn cursors(&self, report: &mut MatrixReport) {
        let path = format!("{}?limit=1", self.collection_path());
        let page = self.request("GET", &path).await;
        let Some(cursor) = (page.status() == 200).then(|| page.json()["page"]["next"].clone()) else {
            return;
        };
        let Some(cursor) = cursor.as_str() else { return };
        let who = |caller: &Caller| {
            (caller.actor.id().map(str::to_owned), caller.actor.tenant().map(str::to_owned))
        };
        for other in self.others.iter().filter(|other| who(other) != who(self.caller)) {
            let is_same_page = other.send(self.app.get(&path)).await.text() == page.text();
            let is_shared = is_same_page && self.entry.definition.cache.is_some();
            let response = other.send(self.app.get(&format!("{path}&after={cursor}"))).await;
            let refused = (400..500).contains(&response.status());
            report.compare(
                || self.label(&format!("a cursor brought by {}", other.name)),
                &json!(refused),
                &json!(!is_shared),
            );
        }
    }

    /// For each field, the body form of an equality filter, and its negation.
    async fn bodies(&self, endpoint: Endpoint, report: &mut MatrixReport) {
        let path = endpoint.path().template(&self.app.app().state().prefix, &self.entry.definition);
        let limit = self.entry.definition.max_limit;
        for (field, declared) in self.entry.schema.fields.iter().enumerate() {
            let Some(present) =
                self.rows.iter().find_map(|row| row.get(&declared.name)).filter(|value| value.is_string())
            else {
                continue;
            };
            if !declared.field_type.operators().contains(&"eq") {
                continue;
            }
            let test = Test::Eq(declared.field_type.read_json(present).unwrap_or(Value::Null));
            for negated in [false, true] {
                let own = json!({&declared.name: {"eq": present}});
                let filter = if negated { json!({"not": own}) } else { json!({"or": [own]}) };
                let body = json!({"filter": filter, "limit": limit});
                let request = self.app.request(endpoint.method().as_str(), &path);
                let response = self.caller.send(request).json(body.clone()).await;
                let is_legal =
                    self.entry.definition.filterable[field] && self.oracle.can_reveal(self.entry, field);
                let found =
                    self.listed_rows().filter(|row| test.passes(&value(self.entry, field, row)) != negated);
                self.compare_list(
                    &format!("{path} {body}"),
                    &response,
                    is_legal.then(|| found.collect()),
                    report,
                );
            }
        }
    }

    async fn items(&self, report: &mut MatrixReport) {
        let reach = self.oracle.access(self.entry, Operation::Read);
        let absent = comparable_problem(
            &self
                .request(
                    "GET",
                    &format!("{}/{}", self.collection_path(), scalar_text(&absent_id(self.entry))),
                )
                .await,
        );
        for row in self.rows {
            let path = self.item_path(row);
            let response = self.request("GET", &path).await;
            let about = || self.label(&path);
            let head = self.request("HEAD", &path).await;
            report.compare(about, &json!(head.status()), &json!(response.status()));
            if reach == Access::None {
                report.compare(about, &json!(response.status()), &json!(self.refused_status()));
            } else if self.oracle.is_readable(self.entry, row) {
                report.compare(about, &json!(response.status()), &json!(200));
                if response.status() == 200 {
                    report.compare(about, &response.json(), &self.oracle.visible_item(self.entry, row));
                    let tag = response.header("etag").unwrap_or_default().to_owned();
                    let known = self.caller.send(self.app.get(&path)).header("if-none-match", &tag).await;
                    report.compare(about, &json!(known.status()), &json!(304));
                }
            } else {
                report.compare(about, &comparable_problem(&response), &absent);
            }
        }
    }

    async fn creates(&self, report: &mut MatrixReport) {
        let can_create = self.oracle.access(self.entry, Operation::Create) != Access::None
            && self.oracle.has_fill_values(self.entry);
        // The body is never valid: the case tests which callers reach validation.
        let response =
            self.caller.send(self.app.post(&self.collection_path())).json(json!({"no such field": 1})).await;
        let expected = if can_create { 422 } else { self.refused_status() };
        report.compare(|| self.label("a create"), &json!(response.status()), &json!(expected));
        for (field, declared) in self.entry.schema.fields.iter().enumerate() {
            if !can_create || declared.read_only && !declared.hidden {
                continue;
            }
            let body = json!({&declared.name: null, "no such field": 1});
            let response = self.caller.send(self.app.post(&self.collection_path())).json(body).await;
            let exists = self.oracle.exists_in_body(self.entry, field);
            let forbidden = exists && !self.oracle.can_write(self.entry, field);
            let expected = if forbidden { 403 } else { 422 };
            let about = || self.label(&format!("a create with {}", declared.name));
            report.compare(about, &json!(response.status()), &json!(expected));
            let pointer = format!("/{}", crate::error::escape_pointer(&declared.name));
            let problem = response.json();
            let mut faults = problem["errors"].as_array().into_iter().flatten();
            let unknown = faults.any(|fault| fault["pointer"] == pointer && fault["code"] == "unknown");
            report.compare(about, &json!(unknown), &json!(!exists));
        }
    }

    pub(super) async fn writes(&self, endpoint: Endpoint, report: &mut MatrixReport) {
        let operation = endpoint.right();
        let reach = self.oracle.access(self.entry, operation);
        let readable = self.oracle.access(self.entry, Operation::Read) != Access::None;
        let absent_path = format!("{}/{}", self.collection_path(), scalar_text(&absent_id(self.entry)));
        // An ETag that no item has: a request that gets as far as comparing it changes nothing.
        let try_at = async |path: &str| {
            let path = match endpoint {
                Endpoint::Action(action_ref) => {
                    format!("{path}/{}", self.entry.definition.actions[action_ref.position].name)
                }
                _ => path.to_owned(),
            };
            let request = self.caller.send(self.app.request(endpoint.method().as_str(), &path));
            let request = request.header("if-match", "\"no-such-version\"");
            if endpoint == Endpoint::Delete { request.await } else { request.json(json!({})).await }
        };
        let absent = try_at(&absent_path).await;
        let creates = endpoint == Endpoint::Replace && self.entry.definition.has_client_ids();
        if reach != Access::None && readable && !creates {
            report.compare(|| self.label("a change of nothing"), &json!(absent.status()), &json!(404));
        }
        let absent = comparable_problem(&absent);
        for row in self.rows {
            let response = try_at(&self.item_path(row)).await;
            let is_visible = if self.can_target_deleted(endpoint) {
                self.oracle.is_admitted(self.entry, Operation::Read, row)
            } else {
                self.oracle.is_readable(self.entry, row)
            };
            let allowed = is_visible && self.oracle.is_admitted(self.entry, operation, row);
            let about = || self.label(&format!("{} {}", endpoint.method(), self.item_path(row)));
            if endpoint == Endpoint::Delete && (reach == Access::None || !readable || !allowed) {
                // Without a version to compare, the statement alone decides; if it is permitted, it deletes nothing.
                let plain = self.request("DELETE", &self.item_path(row)).await;
                report.compare(about, &json!(plain.status()), &json!(response.status()));
            }
            if reach == Access::None || !readable {
                report.compare(about, &json!(response.status()), &json!(self.refused_status()));
            } else if allowed {
                report.compare(about, &json!(response.status()), &json!(412));
            } else if is_visible {
                report.compare(about, &json!(response.status()), &json!(self.refused_status()));
            } else {
                let found = comparable_problem(&response);
                // A PUT that creates checks the id against rows that the caller does not see, too.
                let same = found == absent || (creates && response.status() == 412);
                report.compare(about, &json!(same), &json!(true));
            }
        }
    }

    /// A reference to a row that the caller may not see fails like one to a row that does not exist.
    async fn references(&self, report: &mut MatrixReport) {
        let changeable = |row: &&Row| {
            self.oracle.is_readable(self.entry, row)
                && self.oracle.is_admitted(self.entry, Operation::Update, row)
        };
        let Some(row) = self.rows.iter().find(changeable) else { return };
        for relation in &self.entry.links {
            let field = &self.entry.schema.fields[relation.link.local];
            let settable = !(field.hidden || field.read_only || field.immutable)
                && self.oracle.is_visible(self.entry, relation.link.local)
                && self.oracle.can_write(self.entry, relation.link.local);
            if relation.link.cardinality == Cardinality::Many || !settable {
                continue;
            }
            let target = self.catalog.entry(relation.target);
            let refer = async |id: &Json| {
                let request = self.caller.send(self.app.patch(&self.item_path(row)));
                request.json(json!({&field.name: id})).await
            };
            let absent = comparable_problem(&refer(&absent_id(target)).await);
            let unseen =
                self.oracle.rows_of(target).iter().filter(|row| !self.oracle.is_readable(target, row));
            let ids = unseen.map(|other| &other[&target.schema.id_field().name]);
            // The current target is excluded: it is already known to callers who see the row.
            for id in ids.filter(|id| row.get(&field.name) != Some(*id)).take(3) {
                let about = || self.label(&format!("{} of {} to {id}", field.name, self.item_path(row)));
                report.compare(about, &comparable_problem(&refer(id).await), &absent);
            }
        }
    }
}

/// An id that no row has.
fn absent_id(entry: &Entry) -> Json {
    match entry.schema.id_field().field_type {
        FieldType::Integer => json!(987_654_321_987_i64),
        FieldType::Uuid => json!("00000000-0000-7000-8000-00000000dead"),
        _ => json!("there-is-no-such-id"),
    }
}

/// Every test with a value operand that this type supports, with this operand.
fn tests(of: FieldType, operand: &Value) -> impl Iterator<Item = (&'static str, String, Test)> {
    let mut serialized = Vec::new();
    resourceful_contract::json::value(&mut serialized, operand);
    let serialized =
        serde_json::from_slice::<Json>(&serialized).map(|json| scalar_text(&json)).unwrap_or_default();
    // In a list a comma separates values.
    let in_list = serialized.replace('%', "%25").replace(',', "%2C");
    of.operators().iter().filter_map(move |operator| {
        let one = operand.clone();
        let part = || serialized.clone();
        Some(match *operator {
            "eq" => ("eq", part(), Test::Eq(one)),
            "ne" => ("ne", part(), Test::Ne(one)),
            "gt" => ("gt", part(), Test::Gt(one)),
            "gte" => ("gte", part(), Test::Gte(one)),
            "lt" => ("lt", part(), Test::Lt(one)),
            "lte" => ("lte", part(), Test::Lte(one)),
            "in" => ("in", in_list.clone(), Test::In(vec![one])),
            "nin" => ("nin", in_list.clone(), Test::NotIn(vec![one])),
            "between" => ("between", format!("{in_list},{in_list}"), Test::Between(one.clone(), one)),
            "contains" => ("contains", part(), Test::Contains(part())),
            "starts" => ("starts", part(), Test::Starts(part())),
            "ends" => ("ends", part(), Test::Ends(part())),
            "has" => ("has", part(), Test::Has(one)),
            "overlaps" => ("overlaps", in_list.clone(), Test::Overlaps(vec![one])),
            _ => return None,
        })
    })
}

/// A problem's status and members, without those that differ between equivalent problems.
fn comparable_problem(response: &TestResponse) -> Json {
    let mut problem = response.json();
    for member in ["instance", "trace_id"] {
        problem[member] = Json::Null;
    }
    json!([response.status(), problem])
}

/// A JSON scalar, as in a path or a query string.
pub(super) fn scalar_text(json: &Json) -> String {
    json.as_str().map_or_else(|| json.to_string(), str::to_owned)
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}
