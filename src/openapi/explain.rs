//! `POST /_explain` in the document.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::Value as Json;
use utoipa::openapi::Required;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::path::{Operation, OperationBuilder};
use utoipa::openapi::request_body::RequestBodyBuilder;

use super::components::{Components, schema as component};
use super::{Info, operations, responses, schemas};
use crate::access::Permission;
use crate::engine::Explanation;
use crate::error::ErrorKind;
use crate::http::Question;

/// The tag of the operation.
pub(super) const TAG: (&str, &str) = ("access", "Why access is granted or denied.");

/// Adds the request and response schemas to the components.
pub(super) fn add(components: &mut Components) {
    schemas::add(components, "Question", schema::<Question>());
    schemas::add(components, "Explanation", schema::<Explanation>());
}

pub(super) fn schema<T: JsonSchema>() -> Json {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.meta_schema = None);
    SchemaGenerator::new(settings).into_root_schema_for::<T>().into()
}

pub(super) fn operation(permission: &Permission, info: &Info, components: &mut Components) -> Operation {
    let body = RequestBodyBuilder::new()
        .required(Some(Required::True))
        .content("application/json", ContentBuilder::new().schema(Some(component("Question"))).build());
    let operation = OperationBuilder::new()
        .operation_id(Some("explain"))
        .summary(Some("Explain which rule grants or denies"))
        .tag(TAG.0)
        .description(Some(
            "Why an actor may or may not perform an operation; with an id, which filter hides the item.",
        ))
        .request_body(Some(body.build()))
        .securities(Some(operations::security(std::slice::from_ref(permission), info)))
        .response(
            "200",
            responses::json_of(
                "Explanation",
                "The rules that were evaluated, and their outcomes.",
                components,
            ),
        );
    let kinds = [
        ErrorKind::BadRequest,
        ErrorKind::Unauthenticated,
        ErrorKind::Forbidden,
        ErrorKind::PayloadTooLarge,
        ErrorKind::UnsupportedMediaType,
        ErrorKind::Validation,
        ErrorKind::Internal,
        ErrorKind::Unavailable,
        ErrorKind::DeadlineExceeded,
    ];
    responses::problems(operation, &kinds, components).build()
}
