//! `POST /batch`: changes of several resources in one request, applied atomically.

use crate::resource::id_text;
use axum::extract::Request;
use axum::response::Response;
use http::StatusCode;
use http::header::ETAG;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::handler::{original_uri, with_accept};
use super::prefer::Prefer;
use super::{AppState, Body, Context, body, cache_groups, conditional, dry_run, response};
use crate::access::Operation;
use crate::engine::{BatchOperation, BatchResult};
use crate::error::{Error, ErrorKind, Fault};
use crate::query::reject_parameters;
use crate::resource::pointer_of;

/// The path of the route.
pub(crate) const BATCH_PATH: &str = "/batch";

/// Changes of several resources of one database.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Batch {
    /// The operations, in this order; each may refer to the items of those before it.
    operations: Vec<BatchEntry>,
}

/// One change.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Operation")]
struct BatchEntry {
    /// The kind of change.
    operation: Verb,
    /// The resource's name.
    resource: String,
    /// The id of the item, unless it is a new one.
    #[serde(default)]
    id: Option<Json>,
    /// The ETag that the item must have.
    #[serde(default)]
    if_match: Option<String>,
    /// A new item, or a merge patch. `{"$ref": "0/id"}` stands for the member `id` of the first operation's item.
    #[serde(default)]
    body: Option<Json>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Verb {
    Create,
    Update,
    Delete,
}

/// Handles a batch request.
pub(crate) async fn batch(state: &AppState, request: Request) -> Response {
    let context = Context::of_request(&request);
    let (mut parts, mut body) = request.into_parts();
    let _permits = state.count_body(&mut parts.headers, &mut body);
    match state.run_batch(&parts, body, &context).await {
        Ok(response) => response,
        Err(error) => {
            let response = state.error_response(&error, original_uri(&parts).path(), &context);
            with_accept(response, &error, Body::Create.accept())
        }
    }
}

impl AppState {
    async fn run_batch(
        &self,
        parts: &http::request::Parts,
        body: axum::body::Body,
        context: &Context,
    ) -> Result<Response, Error> {
        let actor = self.actor(parts).await?;
        // A caller without the right to any change learns nothing about what a batch may contain.
        self.engine.require_write_permission(&actor).await?;
        let prefer = Prefer::of_write(&parts.headers)?;
        reject_parameters(parts.uri.query())?;
        if parts.headers.contains_key("idempotency-key") {
            let detail =
                "A batch takes no idempotency key: send each change to its own resource, or omit the header.";
            let fault = Fault::header("Idempotency-Key", "unknown", detail);
            return Err(Error::new(ErrorKind::BadRequest, "idempotency-key", detail).with_faults(vec![fault]));
        }
        let json = body::read_json(Body::Create, &parts.headers, body, self.body_limit).await?;
        let batch: Batch = serde_path_to_error::deserialize(json).map_err(|error| {
            let detail = format!("Not readable: {}.", error.inner());
            Error::validation(vec![Fault::pointer(pointer_of(error.path()), "type", detail)])
        })?;
        let max_operations = self.max_batch_operations.unwrap_or_default();
        if batch.operations.is_empty() || batch.operations.len() > max_operations {
            let detail = format!("Must hold 1 to {max_operations} operations.");
            return Err(Error::validation(vec![Fault::pointer("/operations", "length", detail)]));
        }
        let mut operations = Vec::with_capacity(batch.operations.len());
        let mut faults = Vec::new();
        for (index, one) in batch.operations.into_iter().enumerate() {
            match parse_operation(one) {
                Ok(one) => operations.push(one),
                Err(fault) => faults.push(fault.nested_at(&format!("/operations/{index}"))),
            }
        }
        if !faults.is_empty() {
            return Err(Error::validation(faults));
        }
        let write_context = context.write_context(prefer.dry_run);
        let written = Box::pin(self.engine.batch(&actor, &write_context, &operations)).await?;
        let results: Vec<Json> =
            written.iter().map(|one| self.result_entry(one)).collect::<Result<_, _>>()?;
        let mut response = response::json_response(json!({"results": results}).to_string(), StatusCode::OK);
        if !write_context.dry_run {
            let entries =
                written.iter().filter_map(|one| self.engine.catalog.find(&one.resource).ok().zip(Some(one)));
            let groups = entries.flat_map(|(entry, one)| {
                cache_groups::invalidated_groups(&self.engine.catalog, entry, Some(&id_text(&one.id)))
            });
            cache_groups::set_invalidation(groups.collect(), response.headers_mut());
            return Ok(response);
        }
        let entry = self.engine.catalog.find(&operations[0].resource)?;
        let call = self
            .engine
            .call(entry, &actor, operations[0].operation, false)
            .await?
            .with_context(&write_context);
        dry_run::dry_run_response(response, &call).await
    }

    fn result_entry(&self, written: &BatchResult) -> Result<Json, Error> {
        let status = match (written.operation, &written.item) {
            (Operation::Create, _) => 201,
            (_, None) => 204,
            _ => 200,
        };
        let mut result = json!({"status": status});
        if written.operation == Operation::Create {
            let collection = format!(
                "{}{}/{}",
                self.base_path.as_deref().unwrap_or_default(),
                self.engine.outbox.prefix,
                written.resource
            );
            result["location"] = response::location(&collection, &written.id).into();
        }
        if let Some(item) = &written.item {
            let tag = conditional::strong_tag(item);
            result[ETAG.as_str()] = tag.to_str().unwrap_or_default().into();
            result["body"] = serde_json::from_slice(&item.json).map_err(Error::internal)?;
        }
        Ok(result)
    }
}

/// Reads one operation, or returns what is wrong with it.
fn parse_operation(one: BatchEntry) -> Result<BatchOperation, Fault> {
    let required = |member, detail| Err(Fault::pointer(member, "required", detail));
    let operation = match one.operation {
        Verb::Create => Operation::Create,
        Verb::Update => Operation::Update,
        Verb::Delete => Operation::Delete,
    };
    let id = match (one.operation, one.id) {
        (Verb::Create, None) => String::new(),
        (Verb::Create, Some(_)) => {
            return Err(Fault::pointer("/id", "unknown", "The id of a new item belongs in the body."));
        }
        (_, Some(Json::String(id))) => id,
        (_, Some(Json::Number(id))) => id.to_string(),
        (_, Some(_)) => {
            let detail = "Must be the id of an existing item: one that is created in this batch cannot be changed in it.";
            return Err(Fault::pointer("/id", "type", detail));
        }
        (_, None) => return required("/id", "This operation requires an id."),
    };
    let body = match (one.operation, one.body) {
        (Verb::Delete, Some(_)) => return Err(Fault::pointer("/body", "unknown", "A delete has no body.")),
        (Verb::Delete, None) => Json::Null,
        (_, Some(body)) => body,
        (_, None) => return required("/body", "This operation requires a body."),
    };
    let expected = match one.if_match {
        None => None,
        Some(tag) => conditional::parse_if_match_member(&tag)?,
    };
    Ok(BatchOperation { resource: one.resource, operation, id, expected, body })
}
