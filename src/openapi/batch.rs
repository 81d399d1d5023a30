//! `POST /batch` in the document.

use serde_json::json;
use utoipa::openapi::Required;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::path::{Operation, OperationBuilder};
use utoipa::openapi::request_body::RequestBodyBuilder;

use super::raw::{Raw, component};
use super::responses;
use super::schemas::{Components, reference};
use crate::error::ErrorKind;
use crate::http::Batch;

/// Adds what is asked and answered to the components.
pub(super) fn add(components: &mut Components) {
    components.add("Batch", super::explain::schema::<Batch>());
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
    components.add("BatchResult", result);
    let results = json!({
        "type": "object",
        "properties": {"results": {"type": "array", "items": reference("BatchResult")}},
        "required": ["results"],
        "additionalProperties": false,
    });
    components.add("BatchResults", results);
}

pub(super) fn operation(raw: &mut Raw) -> Operation {
    let body = RequestBodyBuilder::new()
        .required(Some(Required::True))
        .content("application/json", ContentBuilder::new().schema(Some(component("Batch"))).build());
    let operation = OperationBuilder::new()
        .operation_id(Some("batch"))
        .summary(Some("Change several resources, all or nothing"))
        .description(Some("Each change needs what it would need by itself."))
        .request_body(Some(body.build()))
        .response("200", responses::json_of("BatchResults", "What became of each, in order.", raw));
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
    responses::problems(operation, &kinds, raw).build()
}
