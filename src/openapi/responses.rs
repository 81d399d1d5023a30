//! The responses of an endpoint: every status that it can have.

use serde_json::json;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::path::OperationBuilder;
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::{Ref, RefOr};

use super::components::{Components, schema};
use super::document::Version;
use super::names::{action_schema_name, pascal};
use super::operations::{OperationContext, Requirements};
use super::streams;
use crate::access::Operation;
use crate::access::Requirement;
use crate::catalog::Entry;
use crate::error::ErrorKind;
use crate::http::{Body, Endpoint, status, title};
use crate::resource::Target;

/// The responses of an endpoint by status.
pub(super) fn of(
    context: &OperationContext<'_>,
    components: &mut Components,
) -> Vec<(String, RefOr<Response>)> {
    let mut responses = successes(context, components);
    for kind in failures(context.entry, context.endpoint, context.info.has_authenticators) {
        let status = status(kind).as_u16().to_string();
        if !responses.iter().any(|(known, _)| *known == status) {
            responses.push((status, problem(kind, context.endpoint.body(), components)));
        }
    }
    responses.sort_by(|a, b| a.0.cmp(&b.0));
    responses
}

fn successes(context: &OperationContext<'_>, components: &mut Components) -> Vec<(String, RefOr<Response>)> {
    let (entry, endpoint, title) = (context.entry, context.endpoint, context.title());
    let ok = endpoint.success().as_u16().to_string();
    match endpoint {
        Endpoint::List | Endpoint::Query | Endpoint::QueryPost | Endpoint::Children => {
            let page = page(context, components);
            let mut responses = vec![(ok, page.into())];
            // A precondition on a POST is about a change (RFC 9110, 13.1.2), and `QueryPost` makes none.
            if endpoint != Endpoint::QueryPost {
                responses.push(not_modified(components));
            }
            responses
        }
        Endpoint::Stream => vec![(ok, stream(context.version, components).into())],
        Endpoint::Read => {
            let mut item = read(&format!("{title}Partial"), "The item.", components);
            if is_cached(entry, Operation::Read) {
                item = with_cache_headers(item, components);
            }
            vec![(ok, item.into()), not_modified(components)]
        }
        Endpoint::Create => vec![(ok, created(title, components))],
        Endpoint::Replace if entry.definition.has_client_ids() => {
            vec![(ok, changed(title, components)), ("201".to_owned(), created(title, components))]
        }
        Endpoint::Update | Endpoint::Replace => vec![(ok, changed(title, components))],
        Endpoint::Delete if entry.definition.deleted_at.is_some() => {
            vec![("200".to_owned(), changed(title, components))]
        }
        Endpoint::Delete => vec![(ok, base_response("The item is deleted.", components).into())],
        Endpoint::BulkCreate | Endpoint::BulkUpdate => {
            let items = format!("{title}_BulkItems");
            let items = json_of(&items, "The items as they are now, in order.", components);
            vec![(ok, items.into()), multi_status(components)]
        }
        Endpoint::Subtree => {
            let about = "The items below, those of a level by ascending id.";
            vec![(ok, json_of(&format!("{title}_Subtree"), about, components).into())]
        }
        Endpoint::History => {
            let entries = json_of("History", "Entries, the newest first.", components);
            vec![(ok, entries.header_ref("Link", links(components)).into())]
        }
        Endpoint::BulkDelete => {
            let affected = json_of("BulkAffected", "How many items were deleted.", components);
            vec![(ok, affected.into()), multi_status(components)]
        }
        Endpoint::Action(action_ref) => {
            let declared = &entry.definition.actions[action_ref.position];
            let response = match (&declared.action.output, action_ref.target) {
                (None, Target::Item) => changed(title, components),
                (None, Target::Collection) => base_response("The action was done.", components).into(),
                (Some(_), _) => {
                    let output = action_schema_name(title, &declared.name, "Output");
                    json_of(&output, "The action's result.", components).into()
                }
            };
            vec![(ok, response)]
        }
    }
}

fn multi_status(components: &mut Components) -> (String, RefOr<Response>) {
    let results = json_of("BulkResults", "The result of each item (`mode=partial`).", components);
    ("207".to_owned(), results.into())
}

fn links(components: &mut Components) -> Ref {
    components.header("Link", "The neighbouring pages (RFC 8288).")
}

/// The response with a page of a list.
fn page(context: &OperationContext<'_>, components: &mut Components) -> ResponseBuilder {
    let (entry, endpoint) = (context.entry, context.endpoint);
    let mut page = read(&format!("{}List", context.title()), "A page of items.", components);
    if endpoint != Endpoint::Children && is_cached(entry, Operation::List) {
        page = with_cache_headers(page, components);
    }
    if matches!(endpoint, Endpoint::List | Endpoint::Children) {
        page = page.header_ref("Link", links(components));
    }
    let applied = components.header("Preference-Applied", "The preferences that were applied (RFC 7240).");
    page = page.header_ref("Preference-Applied", applied);
    if endpoint == Endpoint::List && entry.definition.has_streams() {
        let about = "Where a stream of these items continues.";
        page = page.header_ref("Stream-Position", components.header("Stream-Position", about));
    }
    page
}

/// The error kinds of an endpoint, by the checks that it performs.
fn failures(entry: &Entry, endpoint: Endpoint, authenticates: bool) -> Vec<ErrorKind> {
    let requirements = Requirements::of(entry, endpoint);
    let mut kinds = vec![ErrorKind::BadRequest];
    if authenticates || requirements.iter().any(|requirement| !requirement.is_open()) {
        kinds.push(ErrorKind::Unauthenticated);
    }
    let has_field_rules = endpoint.body() != Body::None && !entry.definition.field_rules.is_empty();
    if has_field_rules || requirements.iter().any(Requirement::can_forbid) {
        kinds.push(ErrorKind::Forbidden);
    }
    if endpoint.has_item() {
        kinds.push(ErrorKind::NotFound);
    }
    if endpoint.body() != Body::None {
        kinds.extend([ErrorKind::PayloadTooLarge, ErrorKind::UnsupportedMediaType]);
    }
    match endpoint {
        Endpoint::Create | Endpoint::BulkCreate => {
            kinds.extend([ErrorKind::Conflict, ErrorKind::Validation]);
        }
        Endpoint::BulkUpdate | Endpoint::BulkDelete => kinds.extend([
            ErrorKind::Conflict,
            ErrorKind::Validation,
            ErrorKind::NotFound,
            ErrorKind::PreconditionFailed,
        ]),
        Endpoint::Action(action_ref) if action_ref.target == Target::Collection => {
            kinds.extend([ErrorKind::Conflict, ErrorKind::Validation]);
        }
        Endpoint::Update | Endpoint::Replace | Endpoint::Action(_) => {
            kinds.extend([ErrorKind::Conflict, ErrorKind::Validation, ErrorKind::PreconditionFailed]);
        }
        Endpoint::Delete => kinds.extend([ErrorKind::Conflict, ErrorKind::PreconditionFailed]),
        _ => {}
    }
    if entry.definition.idempotency.is_some() && endpoint.is_write() {
        // An idempotency key that is in use or was used for another request.
        kinds.extend([ErrorKind::Conflict, ErrorKind::Validation]);
    }
    if entry.definition.require_if_match && endpoint.has_item() && endpoint.is_write() {
        kinds.push(ErrorKind::PreconditionRequired);
    }
    if endpoint == Endpoint::Stream {
        kinds.push(ErrorKind::TooManyRequests);
    }
    kinds.extend([ErrorKind::Internal, ErrorKind::Unavailable, ErrorKind::DeadlineExceeded]);
    kinds
}

/// Adds the problem responses of a path that belongs to no resource.
pub(super) fn problems(
    operation: OperationBuilder,
    kinds: &[ErrorKind],
    components: &mut Components,
) -> OperationBuilder {
    kinds.iter().fold(operation, |operation, kind| {
        operation.response(status(*kind).as_str(), problem(*kind, Body::Create, components))
    })
}

/// A problem response: one component for each status, and for each header that names the media types.
fn problem(kind: ErrorKind, body: Body, components: &mut Components) -> RefOr<Response> {
    let accepted = body.accept().filter(|_| kind == ErrorKind::UnsupportedMediaType).map(|(name, _)| name);
    let code = status(kind);
    let name = match &accepted {
        None => pascal(code.canonical_reason().unwrap_or(code.as_str())),
        Some(header) => format!("UnsupportedMediaType{}", pascal(header.as_str())),
    };
    components.response(&name, |components| {
        let content = ContentBuilder::new().schema(Some(schema("Problem"))).build();
        let mut response =
            base_response(title(kind), components).content("application/problem+json", content);
        if kind == ErrorKind::Unauthenticated {
            let about = "The supported authentication schemes (RFC 9110).";
            response = response.header_ref("WWW-Authenticate", components.header("WWW-Authenticate", about));
        }
        if let Some(header) = accepted {
            let about = "The media types that are understood.";
            response = response.header_ref(header.as_str(), components.header(header.as_str(), about));
        }
        if matches!(kind, ErrorKind::Unavailable | ErrorKind::TooManyRequests) {
            let about = "Seconds until another attempt may succeed.";
            response = response.header_ref("Retry-After", components.header("Retry-After", about));
        }
        response.build()
    })
}

/// Adds response headers, each with its description.
fn with_headers(
    response: ResponseBuilder,
    headers: &[(&str, &str)],
    components: &mut Components,
) -> ResponseBuilder {
    headers.iter().fold(response, |response, (name, about)| {
        let header = components.header(name, about);
        response.header_ref(*name, header)
    })
}

const ETAG: (&str, &str) = ("ETag", "Identifies this state of the item or the list (RFC 9110).");

fn read(name: &str, about: &str, components: &mut Components) -> ResponseBuilder {
    let headers = [
        ETAG,
        ("Cache-Control", "How long the response may be cached (RFC 9111)."),
        ("Vary", "The request headers that the response depends on (RFC 9110)."),
    ];
    with_headers(json_of(name, about, components), &headers, components)
}

fn is_cached(entry: &Entry, operation: Operation) -> bool {
    entry.definition.cache.as_ref().is_some_and(|cache| cache.freshness(operation).is_some())
}

/// Adds the headers of a response that may come from the query cache.
fn with_cache_headers(response: ResponseBuilder, components: &mut Components) -> ResponseBuilder {
    let headers = [
        ("x-cache", "HIT, STALE, MISS or BYPASS; absent where nothing is cached."),
        ("Cache-Status", "How the cache handled the request (RFC 9211)."),
        ("Cache-Groups", "The answers that are invalidated together (RFC 9875)."),
        ("Age", "For how many seconds the answer has been cached (RFC 9111)."),
    ];
    with_headers(response, &headers, components)
}

fn not_modified(components: &mut Components) -> (String, RefOr<Response>) {
    let response = components.response("NotModified", |components| {
        let response = base_response("The client's cached response is current.", components);
        with_headers(response, &[ETAG], components).build()
    });
    ("304".to_owned(), response)
}

fn changed(name: &str, components: &mut Components) -> RefOr<Response> {
    let response = json_of(name, "The item as it is now.", components);
    with_headers(response, &[ETAG], components).into()
}

fn created(name: &str, components: &mut Components) -> RefOr<Response> {
    let response = json_of(name, "The new item.", components);
    with_headers(response, &[ETAG, ("Location", "The item's path (RFC 9110).")], components).into()
}

pub(super) fn json_of(name: &str, about: &str, components: &mut Components) -> ResponseBuilder {
    let content = ContentBuilder::new().schema(Some(schema(name))).build();
    base_response(about, components).content("application/json", content)
}

/// The response with server-sent events: as text, and from OpenAPI 3.2 on with the schema of one event.
pub(super) fn stream(version: Version, components: &mut Components) -> ResponseBuilder {
    let content = ContentBuilder::new();
    let content = if version == Version::V32 {
        components.schemas.entry("ServerSentEvent").or_insert_with(streams::event);
        content.item_schema(Some(schema("ServerSentEvent")))
    } else {
        content.schema(Some(components.inline(json!({"type": "string"}))))
    };
    base_response("Events, until the client disconnects.", components)
        .content("text/event-stream", content.build())
}

pub(super) fn base_response(about: &str, components: &mut Components) -> ResponseBuilder {
    let response = ResponseBuilder::new().description(about);
    let header = ("x-request-id", "Identifies the request: the client's own id, or a new one.");
    with_headers(response, &[header], components)
}
