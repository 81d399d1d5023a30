//! The cases of paths that belong to no resource, for one caller.

use serde_json::{Value as Json, json};

use super::oracle::{Oracle, Reach};
use super::{Caller, MatrixReport};
use crate::access::Operation;
use crate::catalog::Entry;
use crate::http::{EVENTS, EXPLAIN, Path};
use crate::testing::TestApp;

/// The paths outside of resources, tested for one caller.
pub(super) struct Apart<'a> {
    pub(super) app: &'a TestApp,
    pub(super) caller: &'a Caller,
    pub(super) oracle: &'a Oracle<'a>,
}

impl Apart<'_> {
    pub(super) async fn run(&self, report: &mut MatrixReport) {
        self.explains(report).await;
        self.names(report).await;
        if self.app.app().boundary().document_by_caller {
            self.documents(report).await;
        }
    }

    /// Callers without the permission to use `POST /_explain` get the same refusal for any question.
    async fn explains(&self, report: &mut MatrixReport) {
        let expected = match &self.app.app().boundary().explained_to {
            None => 404,
            // No scope covers this path.
            Some(_) if self.oracle.is_limited() => 403,
            Some(permission) if self.oracle.reach_of_caller(permission) == Reach::All => 422,
            Some(_) if self.oracle.is_anonymous() => 401,
            Some(_) => 403,
        };
        let answer = self.caller.send(self.app.post(EXPLAIN)).json(json!({"no such": "question"})).await;
        let about = || format!("a question why as {}", self.caller.name);
        report.compare(about, &json!(answer.status()), &json!(expected));
    }

    /// Callers without rights on any resource do not learn whether a resource exists.
    async fn names(&self, report: &mut MatrixReport) {
        let boundary = self.app.app().boundary();
        let entries = boundary.engine.catalog.entries();
        let refused = if self.oracle.is_anonymous() { 401 } else { 403 };
        if boundary.batch.is_some() {
            let writes = [Operation::Create, Operation::Update, Operation::Delete];
            let may =
                |entry: &Entry| writes.iter().any(|write| self.oracle.reach(entry, *write) != Reach::None);
            let expected = if entries.iter().any(|entry| may(entry)) { 422 } else { refused };
            let unknown = json!({"operations": [{"operation": "create", "resource": "no such", "body": {}}]});
            let path = format!("{}/batch", boundary.prefix);
            let answer = self.caller.send(self.app.post(&path)).json(unknown).await;
            let about = || format!("a batch with an unknown resource as {}", self.caller.name);
            report.compare(about, &json!(answer.status()), &json!(expected));
        }
        if boundary.live.is_some() {
            let may = entries.iter().any(|entry| entry.definition.streams() && self.lists(entry));
            let path = format!("{}{EVENTS}?types=nothing.*", boundary.prefix);
            let answer = self.ask(&path).await;
            let about = || format!("{path} as {}", self.caller.name);
            report.compare(about, &json!(answer), &json!(if may { 400 } else { refused }));
        }
    }

    /// The status of the response to a stream request.
    async fn ask(&self, path: &str) -> u16 {
        let opened = self.caller.send(self.app.get(path)).stream().await;
        opened.map_or_else(|refused| refused.status(), |_| 200)
    }

    /// The document names exactly the parameters that the caller may use.
    async fn documents(&self, report: &mut MatrixReport) {
        let document = self.caller.send(self.app.get("/openapi.json")).await.json();
        let boundary = self.app.app().boundary();
        let catalog = &boundary.engine.catalog;
        for entry in catalog.entries() {
            let path = Path::Collection.template(&boundary.prefix, &entry.definition);
            let parameters = names(&document, &path);
            for (field, declared) in entry.schema.fields.iter().enumerate() {
                let named = parameters.contains(&declared.name.as_str());
                let legal = entry.definition.filterable[field]
                    && self.lists(entry)
                    && self.oracle.tells(entry, field);
                let about =
                    || format!("`{}` of {path} in the document of {}", declared.name, self.caller.name);
                report.compare(about, &json!(named), &json!(legal));
            }
            for relation in &entry.links {
                let (target, dotted) = (catalog.entry(relation.target), format!("{}.", relation.link.name));
                let named = parameters.iter().any(|name| name.starts_with(&dotted));
                let filterable = |field: usize| target.definition.filterable[field];
                let legal = self.lists(entry)
                    && self.lists(target)
                    && self.oracle.follows(entry, relation)
                    && (0..target.schema.fields.len())
                        .any(|field| filterable(field) && self.oracle.tells(target, field));
                let about =
                    || format!("`{}` of {path} in the document of {}", relation.link.name, self.caller.name);
                report.compare(about, &json!(named), &json!(legal));
            }
            if let Some(tree) = entry.definition.tree {
                let below = Path::Subtree.template(&boundary.prefix, &entry.definition);
                let legal = self.lists(entry) && self.oracle.tells(entry, tree.parent);
                let about = || format!("{below} in the document of {}", self.caller.name);
                report.compare(about, &json!(!document["paths"][&below].is_null()), &json!(legal));
            }
        }
    }

    fn lists(&self, entry: &Entry) -> bool {
        let open = |operation| self.oracle.reach(entry, operation) != Reach::None;
        open(Operation::Read) && open(Operation::List)
    }
}

/// The names of the parameters of a list, each of which refers to a component.
fn names<'a>(document: &'a Json, path: &str) -> Vec<&'a str> {
    let parameters = document["paths"][path]["get"]["parameters"].as_array().into_iter().flatten();
    let referred = parameters.filter_map(|one| document.pointer(one["$ref"].as_str()?.strip_prefix('#')?));
    referred.filter_map(|parameter| parameter["name"].as_str()).collect()
}
