//! Streams in the document: `GET /events`, and what stands in an event stream.

use serde_json::{Value as Json, json};
use utoipa::openapi::path::{Operation, OperationBuilder};

use super::raw::Raw;
use super::responses::EVENT_STREAM;
use super::{parameters, responses};
use crate::error::ErrorKind;

/// `GET /events`.
pub(super) fn operation(raw: &mut Raw) -> Operation {
    let types = json!({"type": "array", "items": {"type": "string"}});
    let about =
        "Types of events, such as `orders.created`, or `orders.*` for all of a resource; all by default.";
    let parameters = vec![
        parameters::several("types", about, types, raw),
        parameters::last_event_id(raw),
        parameters::last_event(raw),
    ];
    let operation = OperationBuilder::new()
        .operation_id(Some("events"))
        .summary(Some("Follow the changes of all resources"))
        .description(Some("Those of each resource that its own stream would tell of."))
        .parameters(Some(parameters))
        .response("200", responses::stream(raw));
    let kinds = [
        ErrorKind::BadRequest,
        ErrorKind::Unauthenticated,
        ErrorKind::Forbidden,
        ErrorKind::TooManyRequests,
        ErrorKind::Internal,
        ErrorKind::Unavailable,
        ErrorKind::DeadlineExceeded,
    ];
    responses::problems(operation, &kinds, raw).build()
}

const SAID: &str = "Say `{\"type\": \"subscribe\", \"id\": …, \"resource\": …, \"filter\"?, \"q\"?, \"fields\"?, \
    \"after\"?}` to follow a resource, or `types` instead of it to follow all; answers are `ready`, `next`, `reset`, `position`, \
    `complete` and `error`, each with that `id`. `complete` with the `id` ends it. `join` with a \
    `resource`, an `item` or none, and a `state` tells who else looks at it (`members`, `joined`, `left`), where the resource \
    tells that. `authenticate` with `authorization` shows \
    another credential. `ping` is answered with `pong`.";

/// `GET /ws`.
pub(super) fn socket(raw: &mut Raw) -> Operation {
    let operation = OperationBuilder::new()
        .operation_id(Some("socket"))
        .summary(Some("Follow many changes over one WebSocket"))
        .description(Some(SAID))
        .parameters(Some([parameters::subprotocol(raw)]))
        .response("101", responses::plain("From here on messages are JSON.", raw));
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
    responses::problems(operation, &kinds, raw).build()
}

/// Says of every event stream what each of its events is (OpenAPI 3.2, 4.8.14.3).
pub(super) fn describe_items(document: &mut Json) {
    let item = json!({
        "type": "object",
        "properties": {
            "id": {"type": "string", "description": "Sent back in `Last-Event-ID`, the stream goes on after this event."},
            "event": {"type": "string", "description": "A type of events, `added`, `removed`, `ready`, `reset`, `lagged` or `end`."},
            "data": {"type": "string", "contentMediaType": "application/json", "description": "A CloudEvents 1.0 event, or an object that says more."},
            "retry": {"type": "integer", "description": "After how many milliseconds to come back."},
        },
        "required": ["event", "data"],
    });
    let Some(paths) = document["paths"].as_object_mut() else { return };
    for path in paths.values_mut() {
        let Some(stream) =
            path.pointer_mut(&format!("/get/responses/200/content/{}", EVENT_STREAM.replace('/', "~1")))
        else {
            continue;
        };
        *stream = json!({"itemSchema": item});
    }
}
