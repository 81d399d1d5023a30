//! `POST /batch` in the document.

use serde_json::{Value as Json, json};
use utoipa::openapi::Required;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::path::{Operation, OperationBuilder};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::security::SecurityRequirement;

use super::components::{Components, reference, schema};
use super::{parameters, responses, schemas};
use crate::error::ErrorKind;
use crate::http::Batch;

/// The tag of the operation.
pub(super) const TAG: (&str, &str) = ("batch", "Changes of several resources in one transaction.");

/// Adds the request and response schemas to the components: at most `most` operations, on these resources.
pub(super) fn add(components: &mut Components, max_operations: usize, resources: &[&str]) {
    schemas::add(components, "Batch", super::explain::schema::<Batch>());
    let batch = &mut components.schemas["Batch"];
    batch["properties"]["operations"]["minItems"] = json!(1);
    batch["properties"]["operations"]["maxItems"] = json!(max_operations);
    let resource = json!({"type": "string", "enum": resources, "description": "The resource's name."});
    let alternatives = [
        ("Create", "create", &[][..], &["body"][..]),
        ("Update", "update", &["if_match"][..], &["id", "body"][..]),
        ("Delete", "delete", &["if_match"][..], &["id"][..]),
    ]
    .map(|(suffix, word, optional, needed)| {
        let mut properties = json!({"operation": {"type": "string", "enum": [word]}, "resource": resource});
        for member in optional.iter().chain(needed) {
            properties[*member] = self::member(member);
        }
        let required: Vec<_> = ["operation", "resource"].iter().chain(needed).collect();
        let name = format!("Batch{suffix}");
        let schema = json!({
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": false,
        });
        schemas::add(components, &name, schema);
        reference(&name)
    });
    schemas::add(components, "BatchOperation", json!({"description": "One change.", "oneOf": alternatives}));
    let result = json!({
        "type": "object",
        "properties": {
            "status": {"type": "integer"},
            "location": {"type": "string"},
            "etag": {"type": "string"},
            "body": {"type": "object"},
        },
        "required": ["status"],
        "additionalProperties": false,
    });
    schemas::add(components, "BatchResult", result);
    let results = json!({
        "type": "object",
        "properties": {"results": {"type": "array", "items": reference("BatchResult")}},
        "required": ["results"],
        "additionalProperties": false,
    });
    schemas::add(components, "BatchResults", results);
}

/// A member of an operation.
fn member(name: &str) -> Json {
    match name {
        "if_match" => parameters::entity_tag_schema(),
        "id" => json!({"anyOf": [{"type": "string"}, {"type": "integer"}], "description": "Which item."}),
        _ => json!({
            "type": "object",
            "description": "A new item, or a merge patch. `{\"$ref\": \"0/id\"}` stands for that field of the first operation's item.",
        }),
    }
}

pub(super) fn operation(security: Vec<SecurityRequirement>, components: &mut Components) -> Operation {
    let body = RequestBodyBuilder::new()
        .required(Some(Required::True))
        .content("application/json", ContentBuilder::new().schema(Some(schema("Batch"))).build());
    let operation = OperationBuilder::new()
        .operation_id(Some("batch"))
        .summary(Some("Change several resources, all or nothing"))
        .description(Some("Each change requires the same permission as on its own."))
        .tag(TAG.0)
        .request_body(Some(body.build()))
        .securities(Some(security))
        .response(
            "200",
            responses::json_of("BatchResults", "The result of each operation, in order.", components),
        );
    let kinds = [
        ErrorKind::BadRequest,
        ErrorKind::Unauthenticated,
        ErrorKind::Forbidden,
        ErrorKind::NotFound,
        ErrorKind::Conflict,
        ErrorKind::PreconditionFailed,
        ErrorKind::PreconditionRequired,
        ErrorKind::PayloadTooLarge,
        ErrorKind::UnsupportedMediaType,
        ErrorKind::Validation,
        ErrorKind::Internal,
        ErrorKind::Unavailable,
        ErrorKind::DeadlineExceeded,
    ];
    let mut operation = responses::problems(operation, &kinds, components).build();
    operation.parameters = Some(parameters::batch_parameters(components));
    operation
}
