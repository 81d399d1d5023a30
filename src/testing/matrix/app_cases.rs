//! The cases of paths that belong to no resource, for one caller.

use serde_json::{Value as Json, json};

use super::oracle::{Access, Oracle};
use super::{Caller, MatrixReport};
use crate::access::Operation;
use crate::catalog::Entry;
use crate::http::{EVENTS_PATH, EXPLAIN_PATH, Path};
use crate::testing::TestApp;

/// The paths outside of resources, tested for one caller.
pub(super) struct AppCases<'a> {
    pub(super) app: &'a TestApp,
    pub(super) caller: &'a Caller,
    pub(super) oracle: &'a Oracle<'a>,
}

impl AppCases<'_> {
    pub(super) async fn run(&self, report: &mut MatrixReport) {
        self.check_explain(report).await;
        self.names(report).await;
        if self.app.app().state().document_by_caller {
            self.check_document(report).await;
        }
    }

    /// Callers without the permission to use `POST /_explain` get the same refusal for any question.
    async fn check_explain(&self, report: &mut MatrixReport) {
        let expected = match &self.app.app().state().explain_permission {
            None => 404,
            // No scope covers this path.
            Some(_) if self.oracle.is_limited() => 403,
            Some(permission) if self.oracle.caller_access(permission) == Access::All => 422,
            Some(_) if self.oracle.is_anonymous() => 401,
            Some(_) => 403,
        };
        let response =
            self.caller.send(self.app.post(EXPLAIN_PATH)).json(json!({"no such": "question"})).await;
        let about = || format!("a question why as {}", self.caller.name);
        report.compare(about, &json!(response.status()), &json!(expected));
    }

    /// Callers without rights on any resource do not learn whether a resource exists.
    async fn names(&self, report: &mut MatrixReport) {
        let state = self.app.app().state();
        let entries = state.engine.catalog.entries();
        let refused_status = if self.oracle.is_anonymous() { 401 } else { 403 };
        if state.max_batch_operations.is_some() {
            let writes = [Operation::Create, Operation::Update, Operation::Delete];
            let may =
                |entry: &Entry| writes.iter().any(|write| self.oracle.access(entry, *write) != Access::None);
            let expected = if entries.iter().any(|entry| may(entry)) { 422 } else { refused_status };
            let unknown = json!({"operations": [{"operation": "create", "resource": "no such", "body": {}}]});
            let path = format!("{}/batch", state.prefix);
            let response = self.caller.send(self.app.post(&path)).json(unknown).await;
            let about = || format!("a batch with an unknown resource as {}", self.caller.name);
            report.compare(about, &json!(response.status()), &json!(expected));
        }
        if state.live.is_some() {
            let may = entries.iter().any(|entry| entry.definition.has_streams() && self.can_list(entry));
            let path = format!("{}{EVENTS_PATH}?types=nothing.*", state.prefix);
            let response = self.request_status(&path).await;
            let about = || format!("{path} as {}", self.caller.name);
            report.compare(about, &json!(response), &json!(if may { 400 } else { refused_status }));
        }
    }

    /// The status of the response to a stream request.
    async fn request_status(&self, path: &str) -> u16 {
        let opened = self.caller.send(self.app.get(path)).stream().await;
        opened.map_or_else(|refused_status| refused_status.status(), |_| 200)
    }

    /// The document names exactly the parameters that the caller may use.
    async fn check_document(&self, report: &mut MatrixReport) {
        let document = self.caller.send(self.app.get("/openapi.json")).await.json();
        let state = self.app.app().state();
        let catalog = &state.engine.catalog;
        for entry in catalog.entries() {
            let path = Path::Collection.template(&state.prefix, &entry.definition);
            let parameters = names(&document, &path);
            for (field, declared) in entry.schema.fields.iter().enumerate() {
                let is_documented = parameters.contains(&declared.name.as_str());
                let is_permitted = entry.definition.filterable[field]
                    && self.can_list(entry)
                    && self.oracle.can_reveal(entry, field);
                let about =
                    || format!("`{}` of {path} in the document of {}", declared.name, self.caller.name);
                report.compare(about, &json!(is_documented), &json!(is_permitted));
            }
            for relation in &entry.links {
                let (target, dotted) = (catalog.entry(relation.target), format!("{}.", relation.link.name));
                let is_documented = parameters.iter().any(|name| name.starts_with(&dotted));
                let filterable = |field: usize| target.definition.filterable[field];
                let is_permitted = self.can_list(entry)
                    && self.can_list(target)
                    && self.oracle.is_relation_visible(entry, relation)
                    && (0..target.schema.fields.len())
                        .any(|field| filterable(field) && self.oracle.can_reveal(target, field));
                let about =
                    || format!("`{}` of {path} in the document of {}", relation.link.name, self.caller.name);
                report.compare(about, &json!(is_documented), &json!(is_permitted));
            }
            if let Some(tree) = entry.definition.tree {
                let below = Path::Subtree.template(&state.prefix, &entry.definition);
                let is_permitted = self.can_list(entry) && self.oracle.can_reveal(entry, tree.parent);
                let about = || format!("{below} in the document of {}", self.caller.name);
                report.compare(about, &json!(!document["paths"][&below].is_null()), &json!(is_permitted));
            }
        }
    }

    fn can_list(&self, entry: &Entry) -> bool {
        let open = |operation| self.oracle.access(entry, operation) != Access::None;
        open(Operation::Read) && open(Operation::List)
    }
}

/// The names of the parameters of a list, each of which refers to a component.
fn names<'a>(document: &'a Json, path: &str) -> Vec<&'a str> {
    let parameters = document["paths"][path]["get"]["parameters"].as_array().into_iter().flatten();
    let referred = parameters.filter_map(|one| document.pointer(one["$ref"].as_str()?.strip_prefix('#')?));
    referred.filter_map(|parameter| parameter["name"].as_str()).collect()
}
