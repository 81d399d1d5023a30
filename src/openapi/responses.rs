//! What an endpoint answers: every status that the boundary really sends.

use serde_json::json;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::path::OperationBuilder;
use utoipa::openapi::response::{Response, ResponseBuilder};

use super::operations::Requirements;
use super::raw::{Raw, component};
use super::schemas::of_action;
use crate::access::Requirement;
use crate::engine::Entry;
use crate::error::ErrorKind;
use crate::http::{Body, Endpoint, status, title};
use crate::resource::{Operation, Target};

/// The answers of an endpoint by status.
pub(super) fn of(
    entry: &Entry,
    endpoint: Endpoint,
    name: &str,
    authenticates: bool,
    raw: &mut Raw,
) -> Vec<(String, Response)> {
    let mut answers = successes(entry, endpoint, name, raw);
    for kind in failures(entry, endpoint, authenticates) {
        let status = status(kind).as_u16().to_string();
        if !answers.iter().any(|(known, _)| *known == status) {
            answers.push((status, problem(kind, endpoint.body(), raw)));
        }
    }
    answers.sort_by(|a, b| a.0.cmp(&b.0));
    answers
}

fn successes(entry: &Entry, endpoint: Endpoint, name: &str, raw: &mut Raw) -> Vec<(String, Response)> {
    let ok = endpoint.success().as_u16().to_string();
    match endpoint {
        Endpoint::List | Endpoint::Query | Endpoint::QueryTwin | Endpoint::Children => {
            let page = page(entry, endpoint, name, raw);
            let mut answers = vec![(ok, page.build())];
            // A condition on a POST is about a change (RFC 9110, 13.1.2), and the twin makes none.
            if endpoint != Endpoint::QueryTwin {
                answers.push(not_modified(raw));
            }
            answers
        }
        Endpoint::Stream => vec![(ok, stream(raw))],
        Endpoint::Read => {
            let mut item = read(name, "The item.", raw);
            if remembers(entry, Operation::Read) {
                item = remembered(item, raw);
            }
            vec![(ok, item.build()), not_modified(raw)]
        }
        Endpoint::Create => vec![(ok, created(name, raw))],
        Endpoint::Update => vec![(ok, changed(name, raw))],
        Endpoint::Replace if entry.definition.client_ids() => {
            vec![(ok, changed(name, raw)), ("201".to_owned(), created(name, raw))]
        }
        Endpoint::Replace => vec![(ok, changed(name, raw))],
        Endpoint::Delete if entry.definition.deleted_at.is_some() => {
            vec![("200".to_owned(), changed(name, raw))]
        }
        Endpoint::Delete => vec![(ok, plain("The item is gone.", raw).build())],
        Endpoint::BulkCreate | Endpoint::BulkUpdate => {
            let about = "The items as they are now, in order.";
            let partial = json_of("BulkResults", "What became of each (`mode=partial`).", raw).build();
            let items = json_of(&format!("{name}_BulkItems"), about, raw).build();
            vec![(ok, items), ("207".to_owned(), partial)]
        }
        Endpoint::Subtree => {
            let about = "The items below, those of a level by ascending id.";
            vec![(ok, json_of(&format!("{name}_Subtree"), about, raw).build())]
        }
        Endpoint::History => vec![(ok, json_of("History", "Entries, the newest first.", raw).build())],
        Endpoint::BulkDelete => {
            let partial = json_of("BulkResults", "What became of each (`mode=partial`).", raw).build();
            let affected = json_of("BulkAffected", "How many there were.", raw).build();
            vec![(ok, affected), ("207".to_owned(), partial)]
        }
        Endpoint::Action(acted) => {
            let declared = &entry.definition.actions[acted.position];
            vec![match (&declared.action.output, acted.target) {
                (None, Target::Item) => (ok, changed(name, raw)),
                (None, Target::Collection) => (ok, plain("It is done.", raw).build()),
                (Some(_), _) => {
                    let output = of_action(name, &declared.name, "Output");
                    (ok, json_of(&output, "What it came to.", raw).build())
                }
            }]
        }
    }
}

/// A page of a list.
fn page(entry: &Entry, endpoint: Endpoint, name: &str, raw: &mut Raw) -> ResponseBuilder {
    let mut page = read(&format!("{name}List"), "A page of items.", raw);
    if endpoint != Endpoint::Children && remembers(entry, Operation::List) {
        page = remembered(page, raw);
    }
    if matches!(endpoint, Endpoint::List | Endpoint::Children) {
        page = page.header("Link", header("The neighbouring pages (RFC 8288).", raw));
    }
    let applied = "Which preferences the answer follows (RFC 7240).";
    let mut page = page.header("Preference-Applied", header(applied, raw));
    if endpoint == Endpoint::List && entry.definition.streams() {
        page = page.header("Stream-Position", header("Where a stream of these items goes on.", raw));
    }
    page
}

/// The failures that an endpoint can have, by the checks that it passes.
fn failures(entry: &Entry, endpoint: Endpoint, authenticates: bool) -> Vec<ErrorKind> {
    let requirements = Requirements::of(entry, endpoint);
    let mut kinds = vec![ErrorKind::BadRequest];
    if authenticates || requirements.iter().any(|requirement| !requirement.is_open()) {
        kinds.push(ErrorKind::Unauthenticated);
    }
    let has_field_rules = endpoint.body() != Body::None && !entry.definition.field_rules.is_empty();
    if has_field_rules || requirements.iter().any(Requirement::may_forbid) {
        kinds.push(ErrorKind::Forbidden);
    }
    if endpoint.is_of_item() {
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
        Endpoint::Action(acted) if acted.target == Target::Collection => {
            kinds.extend([ErrorKind::Conflict, ErrorKind::Validation]);
        }
        Endpoint::Update | Endpoint::Replace | Endpoint::Action(_) => {
            kinds.extend([ErrorKind::Conflict, ErrorKind::Validation, ErrorKind::PreconditionFailed]);
        }
        Endpoint::Delete => kinds.extend([ErrorKind::Conflict, ErrorKind::PreconditionFailed]),
        _ => {}
    }
    if entry.definition.require_if_match && endpoint.is_of_item() && endpoint.changes() {
        kinds.push(ErrorKind::PreconditionRequired);
    }
    if endpoint == Endpoint::Stream {
        kinds.push(ErrorKind::TooManyRequests);
    }
    kinds.extend([ErrorKind::Internal, ErrorKind::Unavailable, ErrorKind::DeadlineExceeded]);
    kinds
}

/// Adds the problems that a path which belongs to no resource may answer.
pub(super) fn problems(operation: OperationBuilder, kinds: &[ErrorKind], raw: &mut Raw) -> OperationBuilder {
    kinds.iter().fold(operation, |operation, kind| {
        operation.response(status(*kind).as_str(), problem(*kind, Body::Create, raw))
    })
}

fn problem(kind: ErrorKind, body: Body, raw: &mut Raw) -> Response {
    let content = ContentBuilder::new().schema(Some(component("Problem"))).build();
    let mut response = plain(title(kind), raw).content("application/problem+json", content);
    if kind == ErrorKind::Unauthenticated {
        response =
            response.header("WWW-Authenticate", header("The schemes that are understood (RFC 9110).", raw));
    }
    if kind == ErrorKind::UnsupportedMediaType
        && let Some((name, _)) = body.accept()
    {
        response = response.header(name.as_str(), header("The media types that are taken.", raw));
    }
    if matches!(kind, ErrorKind::Unavailable | ErrorKind::TooManyRequests) {
        response = response.header("Retry-After", header("Seconds until another try may succeed.", raw));
    }
    response.build()
}

fn read(name: &str, about: &str, raw: &mut Raw) -> ResponseBuilder {
    json_of(name, about, raw)
        .header("ETag", header("Names this state of the answer (RFC 9110).", raw))
        .header("Cache-Control", header("How long the answer may be kept (RFC 9111).", raw))
        .header("Vary", header("What the answer depended on (RFC 9110).", raw))
}

fn remembers(entry: &Entry, operation: Operation) -> bool {
    entry.definition.cache.as_ref().is_some_and(|cache| cache.life(operation).is_some())
}

/// What an answer says that may be a remembered one.
fn remembered(answer: ResponseBuilder, raw: &mut Raw) -> ResponseBuilder {
    answer
        .header("x-cache", header("HIT, STALE, MISS or BYPASS; absent where nothing is remembered.", raw))
        .header("Cache-Status", header("How the answer was come by (RFC 9211).", raw))
        .header("Cache-Groups", header("Which answers fall together (RFC 9875).", raw))
        .header("Age", header("For how many seconds the answer has been remembered (RFC 9111).", raw))
}

fn not_modified(raw: &mut Raw) -> (String, Response) {
    let response = plain("The client has this answer.", raw)
        .header("ETag", header("Names this state of the answer (RFC 9110).", raw));
    ("304".to_owned(), response.build())
}

fn changed(name: &str, raw: &mut Raw) -> Response {
    json_of(name, "The item as it is now.", raw)
        .header("ETag", header("Names the item's version (RFC 9110).", raw))
        .build()
}

fn created(name: &str, raw: &mut Raw) -> Response {
    json_of(name, "The new item.", raw)
        .header("ETag", header("Names the item's version (RFC 9110).", raw))
        .header("Location", header("Where the item is (RFC 9110).", raw))
        .build()
}

pub(super) fn json_of(name: &str, about: &str, raw: &mut Raw) -> ResponseBuilder {
    let content = ContentBuilder::new().schema(Some(component(name))).build();
    plain(about, raw).content("application/json", content)
}

/// Server-sent events, as text: what stands in each of them OpenAPI can say from 3.2 on.
pub(super) fn stream(raw: &mut Raw) -> Response {
    let content = ContentBuilder::new().schema(Some(raw.place(json!({"type": "string"})))).build();
    plain("Events, for as long as the client reads.", raw).content(EVENT_STREAM, content).build()
}

pub(super) const EVENT_STREAM: &str = "text/event-stream";

pub(super) fn plain(about: &str, raw: &mut Raw) -> ResponseBuilder {
    ResponseBuilder::new()
        .description(about)
        .header("x-request-id", header("Names the request: the client's own id, or a new one.", raw))
}

fn header(about: &str, raw: &mut Raw) -> Header {
    HeaderBuilder::new().schema(Some(raw.place(json!({"type": "string"})))).description(Some(about)).build()
}
