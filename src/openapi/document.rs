//! The document as a whole.

use serde_json::{Value as Json, json};
use utoipa::openapi::path::{HttpMethod, PathItem, PathsBuilder};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::server::ServerBuilder;
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, OpenApiBuilder};

use super::Info;
use super::operations::Site;
use super::raw::Raw;
use super::schemas::Components;
use crate::engine::Catalog;
use crate::http::Endpoint;

/// The version of OpenAPI that a document is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// What most tools read.
    V31,
    /// With QUERY as an operation of its own.
    V32,
}

/// Makes the document of every resource.
pub(super) fn of(catalog: &Catalog, info: &Info, version: Version) -> Json {
    let components = Components::of(catalog);
    let mut raw = Raw::default();
    let mut paths = PathsBuilder::new();
    let mut queries = Vec::new();
    for (position, entry) in catalog.entries().iter().enumerate() {
        for endpoint in Endpoint::ALL {
            let title = components.title(position);
            let site = Site {
                catalog,
                entry,
                endpoint,
                title,
                schemes: &info.schemes,
                authenticates: info.authenticates,
            };
            let path = endpoint.path().template(&info.prefix, &entry.definition);
            match method(endpoint) {
                Some(method) => paths = paths.path(path, PathItem::new(method, site.operation(&mut raw))),
                None if version == Version::V32 => queries.push((path, site.operation(&mut raw))),
                None => {}
            }
        }
    }
    let mut about = InfoBuilder::new().title(&info.title).version(&info.version);
    if let Some(description) = &info.description {
        about = about.description(Some(description));
    }
    let tags = catalog.entries().iter().map(|entry| {
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
        .components(Some(security(&info.schemes).build()))
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
    document
}

/// The method of an endpoint, where OpenAPI 3.1 has it.
fn method(endpoint: Endpoint) -> Option<HttpMethod> {
    Some(match endpoint {
        Endpoint::List | Endpoint::Read => HttpMethod::Get,
        Endpoint::QueryTwin | Endpoint::Create => HttpMethod::Post,
        Endpoint::Update => HttpMethod::Patch,
        Endpoint::Replace => HttpMethod::Put,
        Endpoint::Delete => HttpMethod::Delete,
        Endpoint::Query => return None,
    })
}

fn security(schemes: &[&'static str]) -> ComponentsBuilder {
    schemes.iter().fold(ComponentsBuilder::new(), |components, scheme| {
        let described = match *scheme {
            "Bearer" => SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build()),
            "Basic" => SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Basic).build()),
            "Session" => SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::new("__Host-session"))),
            // Any other scheme is at least a credential in this header.
            _ => SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("Authorization"))),
        };
        components.security_scheme(*scheme, described)
    })
}
