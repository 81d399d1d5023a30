//! Streams of all resources in the document: `GET /events`, `GET /ws`, and the schema of one event.

use serde_json::{Value as Json, json};
use utoipa::openapi::path::{Operation, OperationBuilder};
use utoipa::openapi::security::SecurityRequirement;

use super::components::Components;
use super::document::Version;
use super::{parameters, responses};
use crate::error::ErrorKind;

/// The tag of both operations.
pub(super) const TAG: (&str, &str) = ("events", "Changes of all resources, as they happen.");

/// `GET /events`.
pub(super) fn operation(
    security: Vec<SecurityRequirement>,
    version: Version,
    components: &mut Components,
) -> Operation {
    let operation = OperationBuilder::new()
        .operation_id(Some("events"))
        .summary(Some("Follow the changes of all resources"))
        .description(Some("The events that the streams of the single resources would send."))
        .tag(TAG.0)
        .securities(Some(security))
        .response("200", responses::stream(version, components));
    let kinds = [
        ErrorKind::BadRequest,
        ErrorKind::Unauthenticated,
        ErrorKind::Forbidden,
        ErrorKind::TooManyRequests,
        ErrorKind::Internal,
        ErrorKind::Unavailable,
        ErrorKind::DeadlineExceeded,
    ];
    let mut operation = responses::problems(operation, &kinds, components).build();
    operation.parameters = Some(parameters::event_parameters(components));
    operation
}

/// The description of the messages of a socket.
const PROTOCOL_DESCRIPTION: &str = "Send `{\"type\": \"subscribe\", \"id\": …, \"resource\": …, \"filter\"?, \"q\"?, \"fields\"?, \
    \"after\"?}` to follow a resource, or `types` instead of it to follow all; answers are `ready`, `next`, `reset`, `position`, \
    `complete` and `error`, each with that `id`. `complete` with the `id` ends it. `join` with a \
    `resource`, an `item` or none, and a `state` reports who else views it (`members`, `joined`, `left`), where the resource \
    offers presence. `authenticate` with `authorization` sends \
    another credential. `ping` is answered with `pong`.";

/// `GET /ws`.
pub(super) fn socket(security: Vec<SecurityRequirement>, components: &mut Components) -> Operation {
    let operation = OperationBuilder::new()
        .operation_id(Some("socket"))
        .summary(Some("Follow many changes over one WebSocket"))
        .description(Some(PROTOCOL_DESCRIPTION))
        .tag(TAG.0)
        .securities(Some(security))
        .response("101", responses::base_response("From here on messages are JSON.", components));
    let kinds = [
        ErrorKind::BadRequest,
        ErrorKind::Unauthenticated,
        ErrorKind::Forbidden,
        ErrorKind::UpgradeRequired,
        ErrorKind::TooManyRequests,
        ErrorKind::Internal,
        ErrorKind::Unavailable,
        ErrorKind::DeadlineExceeded,
    ];
    let mut operation = responses::problems(operation, &kinds, components).build();
    operation.parameters = Some(parameters::socket_parameters(components));
    operation
}

/// One server-sent event (OpenAPI 3.2, 4.14.4).
pub(super) fn event() -> Json {
    json!({
        "type": "object",
        "properties": {
            "id": {"type": "string", "description": "Sent back in `Last-Event-ID`, the stream resumes after this event."},
            "event": {"type": "string", "description": "A type of events, `added`, `removed`, `ready`, `reset`, `lagged` or `end`."},
            "data": {"type": "string", "contentMediaType": "application/json", "description": "A CloudEvents 1.0 event, or an object with details."},
            "retry": {"type": "integer", "description": "After how many milliseconds to reconnect."},
        },
        "required": ["event", "data"],
    })
}
