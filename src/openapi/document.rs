//! The document as a whole.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::{Value as Json, json};
use utoipa::openapi::path::{HttpMethod, PathItem, PathsBuilder};
use utoipa::openapi::security::{self, ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder};
use utoipa::openapi::server::ServerBuilder;
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, OpenApiBuilder};

use super::lens::Lens;
use super::operations::Site;
use super::raw::Raw;
use super::schemas::Components;
use super::{Info, batch, explain, streams};
use crate::access::{SecurityScheme, Shown};
use crate::engine::Entry;
use crate::http::{BATCH, EVENTS, EXPLAIN, Endpoint, SOCKET};
use crate::resource::Operation;

/// The version of OpenAPI that a document is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// What most tools read.
    V31,
    /// With QUERY as an operation of its own.
    V32,
}

/// Makes the document of every resource that there is to tell of.
pub(super) fn of(lens: &Lens<'_>, info: &Info, version: Version) -> Json {
    let mut components = Components::of(lens);
    let mut raw = Raw::default();
    let mut paths = PathsBuilder::new();
    let mut queries = Vec::new();
    for entry in lens.catalog.entries() {
        for endpoint in lens.endpoints(entry) {
            let title = components.title(entry.position);
            let site = Site { lens, entry, endpoint, title, info };
            let path = endpoint.path().template(&info.prefix, &entry.definition);
            match method(endpoint) {
                Some(method) => paths = paths.path(path, PathItem::new(method, site.operation(&mut raw))),
                None if version == Version::V32 => queries.push((path, site.operation(&mut raw))),
                None => {}
            }
        }
    }
    paths = beside(paths, lens, info, &mut components, &mut raw);
    let mut about = InfoBuilder::new().title(&info.title).version(&info.version);
    if let Some(description) = &info.description {
        about = about.description(Some(description));
    }
    let shown = lens.catalog.entries().iter().filter(|entry| lens.shows_resource(entry));
    let tags = shown.map(|entry| {
        TagBuilder::new()
            .name(entry.definition.name())
            .description(entry.definition.description.clone())
            .build()
    });
    let servers = info.servers.iter().map(|url| ServerBuilder::new().url(url).build());
    let servers = (!info.servers.is_empty()).then(|| servers.collect::<Vec<_>>());
    let document = OpenApiBuilder::new()
        .servers(servers)
        .info(about.build())
        .paths(paths.build())
        .tags(Some(tags.collect::<Vec<_>>()))
        .components(Some(schemes(&info.schemes).build()))
        .build();
    let mut document = serde_json::to_value(document).expect("utoipa's types serialize");
    for (path, operation) in queries {
        // OpenAPI 3.2 has a fixed field for QUERY, which utoipa's path items do not have yet.
        document["paths"][path]["query"] = serde_json::to_value(operation).expect("utoipa's types serialize");
    }
    document["components"]["schemas"] = components.into_schemas();
    document["openapi"] = json!(match version {
        Version::V31 => "3.1.1",
        Version::V32 => "3.2.0",
    });
    raw.lay(&mut document);
    if version == Version::V32 {
        streams::describe_items(&mut document);
    }
    without_unnamed(&mut document);
    document
}

/// The paths that are no resource's.
fn beside(
    mut paths: PathsBuilder,
    lens: &Lens<'_>,
    info: &Info,
    components: &mut Components,
    raw: &mut Raw,
) -> PathsBuilder {
    if let Some(permission) = info.explain.as_ref().filter(|_| lens.explains) {
        explain::add(components);
        let operation = explain::operation(permission, info, raw);
        paths = paths.path(EXPLAIN, PathItem::new(HttpMethod::Post, operation));
    }
    let changes = [Operation::Create, Operation::Update, Operation::Delete];
    let may = |entry: &Arc<Entry>| changes.iter().any(|operation| lens.offers(entry, *operation));
    if info.batches && lens.catalog.entries().iter().any(may) {
        batch::add(components);
        let path = format!("{}{BATCH}", info.prefix);
        paths = paths.path(path, PathItem::new(HttpMethod::Post, batch::operation(raw)));
    }
    let follows = |entry: &Arc<Entry>| entry.definition.streams() && lens.offers(entry, Operation::List);
    if info.events && lens.catalog.entries().iter().any(follows) {
        let path = format!("{}{EVENTS}", info.prefix);
        paths = paths.path(path, PathItem::new(HttpMethod::Get, streams::operation(raw)));
    }
    let lives = |entry: &Arc<Entry>| entry.definition.lives() && lens.offers(entry, Operation::List);
    if info.sockets && lens.catalog.entries().iter().any(lives) {
        let path = format!("{}{SOCKET}", info.prefix);
        paths = paths.path(path, PathItem::new(HttpMethod::Get, streams::socket(raw)));
    }
    paths
}

/// Takes out the shapes that no path leads to, such as those of fields that are not shown: their names and members are
/// nobody's business either.
fn without_unnamed(document: &mut Json) {
    const HERE: &str = "#/components/schemas/";
    let mut named = HashSet::new();
    let mut ahead = vec![&document["paths"]];
    while let Some(json) = ahead.pop() {
        match json {
            Json::Array(items) => ahead.extend(items),
            Json::Object(members) => {
                let leads = members.get("$ref").and_then(Json::as_str).and_then(|to| to.strip_prefix(HERE));
                if let Some(name) = leads.filter(|name| named.insert((*name).to_owned())) {
                    ahead.push(&document["components"]["schemas"][name]);
                }
                ahead.extend(members.values());
            }
            _ => {}
        }
    }
    if let Some(schemas) = document["components"]["schemas"].as_object_mut() {
        schemas.retain(|name, _| named.contains(name));
    }
}

/// The method of an endpoint, where OpenAPI 3.1 has it.
fn method(endpoint: Endpoint) -> Option<HttpMethod> {
    Some(match endpoint {
        Endpoint::List
        | Endpoint::Stream
        | Endpoint::Read
        | Endpoint::History
        | Endpoint::Children
        | Endpoint::Subtree => HttpMethod::Get,
        Endpoint::QueryTwin | Endpoint::Create | Endpoint::BulkCreate | Endpoint::Action(_) => {
            HttpMethod::Post
        }
        Endpoint::Update | Endpoint::BulkUpdate => HttpMethod::Patch,
        Endpoint::Replace => HttpMethod::Put,
        Endpoint::Delete | Endpoint::BulkDelete => HttpMethod::Delete,
        Endpoint::Query => return None,
    })
}

fn schemes(schemes: &[SecurityScheme]) -> ComponentsBuilder {
    let header = |name: &http::HeaderName| ApiKey::Header(ApiKeyValue::new(name.as_str()));
    schemes.iter().fold(ComponentsBuilder::new(), |components, scheme| {
        let described = match &scheme.shown {
            Shown::Bearer(format) => {
                let mut bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer);
                if !format.is_empty() {
                    bearer = bearer.bearer_format(format.clone());
                }
                security::SecurityScheme::Http(bearer.build())
            }
            Shown::Basic => {
                security::SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Basic).build())
            }
            Shown::Header(name) => security::SecurityScheme::ApiKey(header(name)),
            Shown::Cookie(name) => {
                security::SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::new(name.clone())))
            }
        };
        components.security_scheme(scheme.name.clone(), described)
    })
}
