//! `POST /batch`: changes of several resources in one request, applied atomically.

use crate::resource::id_text;
use axum::extract::Request;
use axum::response::Response;
use http::StatusCode;
use http::header::ETAG;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::handler::{accepting, original};
use super::prefer::Prefer;
use super::{AppState, Body, Context, body, cache_groups, conditional, dry_run, response};
use crate::access::Operation;
use crate::engine::{BatchOperation, Became};
use crate::error::{Error, ErrorKind, Fault};
use crate::query::no_parameters;
use crate::resource::pointer_of;

/// The path of the route.
pub(crate) const BATCH: &str = "/batch";

/// Changes of several resources of one database.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Batch {
    /// The operations, in this order; each may refer to the items of those before it.
    operations: Vec<OneOf>,
}

/// One change.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Operation")]
struct OneOf {
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
pub(crate) async fn batch(boundary: &AppState, request: Request) -> Response {
    let context = Context::carried_by(&request);
    let (mut parts, mut body) = request.into_parts();
    let _held = boundary.count(&mut parts.headers, &mut body);
    match boundary.batched(&parts, body, &context).await {
        Ok(response) => response,
        Err(error) => {
            let response = boundary.refuse(&error, original(&parts).path(), &context);
            accepting(response, &error, Body::Create.accept())
        }
    }
}

impl AppState {
    async fn batched(
        &self,
        parts: &http::request::Parts,
        body: axum::body::Body,
        context: &Context,
    ) -> Result<Response, Error> {
        let actor = self.actor(parts).await?;
        // A caller without the right to any change learns nothing about what a batch may contain.
        self.engine.may_change_something(&actor).await?;
        let prefer = Prefer::of_change(&parts.headers)?;
        no_parameters(parts.uri.query())?;
        if parts.headers.contains_key("idempotency-key") {
            let detail =
                "A batch is not remembered by a key: send each change to its own resource, or leave it out.";
            let fault = Fault::header("Idempotency-Key", "unknown", detail);
            return Err(Error::new(ErrorKind::BadRequest, "idempotency-key", detail).with_faults(vec![fault]));
        }
        let json = body::json(Body::Create, &parts.headers, body, self.body_limit).await?;
        let batch: Batch = serde_path_to_error::deserialize(json).map_err(|error| {
            let detail = format!("Not readable: {}.", error.inner());
            Error::validation(vec![Fault::pointer(pointer_of(error.path()), "type", detail)])
        })?;
        let most = self.batch.unwrap_or_default();
        if batch.operations.is_empty() || batch.operations.len() > most {
            let detail = format!("Must hold 1 to {most} operations.");
            return Err(Error::validation(vec![Fault::pointer("/operations", "length", detail)]));
        }
        let mut wanted = Vec::with_capacity(batch.operations.len());
        let mut faults = Vec::new();
        for (index, one) in batch.operations.into_iter().enumerate() {
            match read(one) {
                Ok(one) => wanted.push(one),
                Err(fault) => faults.push(fault.inside(&format!("/operations/{index}"))),
            }
        }
        if !faults.is_empty() {
            return Err(Error::validation(faults));
        }
        let terms = context.terms(prefer.dry_run);
        let became = Box::pin(self.engine.batch(&actor, &terms, &wanted)).await?;
        let results: Vec<Json> = became.iter().map(|one| self.described(one)).collect::<Result<_, _>>()?;
        let mut response = response::written(json!({"results": results}).to_string(), StatusCode::OK);
        if !terms.dry_run {
            let entries =
                became.iter().filter_map(|one| self.engine.catalog.find(&one.resource).ok().zip(Some(one)));
            let fallen = entries.flat_map(|(entry, one)| {
                cache_groups::fallen(&self.engine.catalog, entry, Some(&id_text(&one.id)))
            });
            cache_groups::say(fallen.collect(), response.headers_mut());
            return Ok(response);
        }
        let entry = self.engine.catalog.find(&wanted[0].resource)?;
        let call = self.engine.call(entry, &actor, wanted[0].operation, false).await?.on(&terms);
        dry_run::answer(response, &call).await
    }

    fn described(&self, became: &Became) -> Result<Json, Error> {
        let status = match (became.operation, &became.item) {
            (Operation::Create, _) => 201,
            (_, None) => 204,
            _ => 200,
        };
        let mut result = json!({"status": status});
        if became.operation == Operation::Create {
            let collection = format!(
                "{}{}/{}",
                self.base.as_deref().unwrap_or_default(),
                self.engine.outbox.prefix,
                became.resource
            );
            result["location"] = response::location(&collection, &became.id).into();
        }
        if let Some(item) = &became.item {
            let tag = conditional::strong(item);
            result[ETAG.as_str()] = tag.to_str().unwrap_or_default().into();
            result["body"] = serde_json::from_slice(&item.json).map_err(Error::internal)?;
        }
        Ok(result)
    }
}

/// Reads one operation, or returns what is wrong with it.
fn read(one: OneOf) -> Result<BatchOperation, Fault> {
    let required = |member, detail| Err(Fault::pointer(member, "required", detail));
    let operation = match one.operation {
        Verb::Create => Operation::Create,
        Verb::Update => Operation::Update,
        Verb::Delete => Operation::Delete,
    };
    let id = match (one.operation, one.id) {
        (Verb::Create, None) => String::new(),
        (Verb::Create, Some(_)) => {
            return Err(Fault::pointer("/id", "unknown", "An id that you give stands in the body."));
        }
        (_, Some(Json::String(id))) => id,
        (_, Some(Json::Number(id))) => id.to_string(),
        (_, Some(_)) => {
            let detail = "Must be the id of an item that is there: one that is made in this batch cannot be changed in it.";
            return Err(Fault::pointer("/id", "type", detail));
        }
        (_, None) => return required("/id", "Which item?"),
    };
    let body = match (one.operation, one.body) {
        (Verb::Delete, Some(_)) => return Err(Fault::pointer("/body", "unknown", "A delete has no body.")),
        (Verb::Delete, None) => Json::Null,
        (_, Some(body)) => body,
        (_, None) => return required("/body", "What is to be there?"),
    };
    let expected = match one.if_match {
        None => None,
        Some(tag) => conditional::expected_by(&tag)?,
    };
    Ok(BatchOperation { resource: one.resource, operation, id, expected, body })
}
