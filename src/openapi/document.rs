//! Builds an OpenAPI document.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::Value as Json;
use utoipa::openapi::path::{HttpMethod, Operation as Described, PathItem, PathItemBuilder, PathsBuilder};
use utoipa::openapi::security::{
    self, ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement,
};
use utoipa::openapi::server::{Server, ServerBuilder};
use utoipa::openapi::tag::{Tag, TagBuilder};
use utoipa::openapi::{
    ComponentsBuilder, ContactBuilder, InfoBuilder, LicenseBuilder, OpenApiBuilder, OpenApiVersion,
};

use super::catalog_view::CatalogView;
use super::components;
use super::components::Components;
use super::operations;
use super::operations::OperationContext;
use super::schemas;
use super::schemas::SchemaBuilder;
use super::{Info, batch, explain, names, streams, version30, walk};
use crate::access::Operation;
use crate::access::{CredentialLocation, SecurityScheme};
use crate::catalog::Entry;
use crate::http::{BATCH_PATH, EVENTS_PATH, EXPLAIN_PATH, Endpoint, SOCKET_PATH};

/// The OpenAPI version of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// OpenAPI 3.0, for older tools.
    V30,
    /// OpenAPI 3.1, which most tools read.
    V31,
    /// OpenAPI 3.2, with QUERY as an operation of its own and the schema of each event of a stream.
    V32,
}

/// Builds the document of the part of the catalog that a lens shows.
pub(super) fn of(view: &CatalogView<'_>, info: &Info, version: Version) -> Json {
    let titles = schemas::titles(view.catalog);
    let mut builder = DocumentBuilder {
        view,
        info,
        version,
        titles: &titles,
        components: Components::default(),
        paths: Vec::new(),
        tags: Vec::new(),
        ids: HashSet::new(),
    };
    schemas::add_common(&mut builder.components);
    for entry in view.catalog.entries() {
        builder.add_resource(entry);
    }
    builder.add_app_paths();
    let mut document = builder.build();
    components::remove_unused(&mut document);
    walk::visit_document(&mut document, &mut walk::normalize);
    if version == Version::V30 {
        version30::convert(&mut document);
    }
    document
}

/// Builder of a document.
struct DocumentBuilder<'a> {
    view: &'a CatalogView<'a>,
    info: &'a Info,
    version: Version,
    titles: &'a [String],
    components: Components,
    paths: Vec<(String, PathItem)>,
    tags: Vec<Tag>,
    /// The operation ids in use.
    ids: HashSet<String>,
}

impl DocumentBuilder<'_> {
    fn add_resource(&mut self, entry: &Entry) {
        if !self.view.is_resource_visible(entry) {
            return;
        }
        SchemaBuilder { view: self.view, titles: self.titles, components: &mut self.components }.add(entry);
        let definition = &entry.definition;
        let mut is_described = false;
        for endpoint in self.view.endpoints(entry) {
            let method = method(endpoint);
            if method.is_none() && self.version != Version::V32 {
                continue;
            }
            let (view, info, version, titles) = (self.view, self.info, self.version, self.titles);
            let context = OperationContext { view, entry, endpoint, titles, info, version };
            let id = self.unique_id(names::operation_id(entry, endpoint));
            let operation = context.operation(id, &mut self.components);
            let path = endpoint.path().template(&info.prefix, definition);
            let item = match method {
                Some(method) => PathItem::new(method, operation),
                None => PathItemBuilder::new().query(Some(operation)).build(),
            };
            self.paths.push((path, item));
            is_described = true;
        }
        if is_described {
            let about = definition.description.clone();
            let about = about.unwrap_or_else(|| format!("The resource `{}`.", definition.name()));
            self.tags.push(TagBuilder::new().name(definition.name()).description(Some(about)).build());
        }
    }

    /// An operation id that no other operation has.
    fn unique_id(&mut self, wanted: String) -> String {
        let numbered = (2..).map(|number| format!("{wanted}_{number}"));
        let mut names = std::iter::once(wanted.clone()).chain(numbered);
        let id = names.find(|name| !self.ids.contains(name)).unwrap_or(wanted);
        self.ids.insert(id.clone());
        id
    }

    /// Adds the paths that belong to no resource.
    fn add_app_paths(&mut self) {
        let (view, info) = (self.view, self.info);
        if let Some(permission) = info.explain.as_ref().filter(|_| view.can_explain) {
            explain::add(&mut self.components);
            let operation = explain::operation(permission, info, &mut self.components);
            self.add_path(EXPLAIN_PATH.to_owned(), HttpMethod::Post, operation, explain::TAG);
        }
        let changes = [Operation::Create, Operation::Update, Operation::Delete];
        if let (Some(max_operations), Some(security)) = (info.max_batch, self.security(&changes, |_| true)) {
            let entries = view.catalog.entries().iter();
            let changed =
                entries.filter(|entry| changes.iter().any(|change| is_available(view, entry, *change)));
            let names: Vec<&str> = changed.map(|entry| entry.definition.name()).collect();
            batch::add(&mut self.components, max_operations, &names);
            let operation = batch::operation(security, &mut self.components);
            self.add_path(format!("{}{BATCH_PATH}", info.prefix), HttpMethod::Post, operation, batch::TAG);
        }
        let lists = [Operation::List];
        if let (true, Some(security)) =
            (info.has_events, self.security(&lists, |entry| entry.definition.has_streams()))
        {
            let operation = streams::operation(security, self.version, &mut self.components);
            self.add_path(format!("{}{EVENTS_PATH}", info.prefix), HttpMethod::Get, operation, streams::TAG);
        }
        if let (true, Some(security)) =
            (info.has_sockets, self.security(&lists, |entry| entry.definition.is_live()))
        {
            let operation = streams::socket(security, &mut self.components);
            self.add_path(format!("{}{SOCKET_PATH}", info.prefix), HttpMethod::Get, operation, streams::TAG);
        }
    }

    /// The security requirements of any of these operations on any of these resources; `None` if all of them are
    /// closed.
    fn security(
        &self,
        operations: &[Operation],
        of: impl Fn(&Entry) -> bool,
    ) -> Option<Vec<SecurityRequirement>> {
        let entries = self.view.catalog.entries().iter().filter(|entry| of(entry));
        let rights = entries.flat_map(|entry| operations.iter().map(move |operation| (entry, *operation)));
        let rights = rights.filter(|(entry, operation)| is_available(self.view, entry, *operation));
        let permissions: Vec<_> =
            rights.map(|(entry, operation)| entry.definition.required_permission(operation)).collect();
        (!permissions.is_empty()).then(|| operations::security(&permissions, self.info))
    }

    fn add_path(&mut self, path: String, method: HttpMethod, operation: Described, tag: (&str, &str)) {
        let mut operation = operation;
        operation.operation_id = operation.operation_id.map(|id| self.unique_id(id));
        self.paths.push((path, PathItem::new(method, operation)));
        if self.tags.iter().all(|known| known.name != tag.0) {
            self.tags.push(TagBuilder::new().name(tag.0).description(Some(tag.1)).build());
        }
    }

    fn build(mut self) -> Json {
        let info = self.info;
        let mut about = InfoBuilder::new().title(&info.title).version(&info.version);
        if let Some(description) = &info.description {
            about = about.description(Some(description));
        }
        let mut paths = PathsBuilder::new().build();
        for (path, item) in self.paths {
            let known = paths.paths.entry(path).or_default();
            if item.query.is_some() {
                known.query = item.query;
            } else {
                known.merge_operations(item);
            }
        }
        if let Some((name, url)) = &info.contact {
            about = about.contact(Some(ContactBuilder::new().name(Some(name)).url(Some(url)).build()));
        }
        if let Some((name, url)) = &info.license {
            about = about.license(Some(LicenseBuilder::new().name(name).url(Some(url)).build()));
        }
        let document = OpenApiBuilder::new()
            .openapi(if self.version == Version::V32 {
                OpenApiVersion::Version32
            } else {
                OpenApiVersion::Version31
            })
            .servers(Some(servers(&info.servers)))
            .info(about.build())
            .paths(paths)
            .tags(Some(self.tags))
            .components(Some(self.components.add_to_builder(schemes(&info.schemes)).build()))
            .build();
        let mut document = serde_json::to_value(document).expect("utoipa's types serialize");
        self.components.place(&mut document);
        document
    }
}

/// Whether the operation is permitted to any caller that the lens covers.
fn is_available(view: &CatalogView<'_>, entry: &Arc<Entry>, operation: Operation) -> bool {
    view.is_permitted(entry, operation)
        && !entry.definition.required_permission(operation).requirement().is_closed
}

/// The declared servers; by default the host that the document was requested from.
fn servers(declared: &[String]) -> Vec<Server> {
    let root = ["/".to_owned()];
    let urls = if declared.is_empty() { &root[..] } else { declared };
    urls.iter().map(|url| ServerBuilder::new().url(url).build()).collect()
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
        Endpoint::QueryPost | Endpoint::Create | Endpoint::BulkCreate | Endpoint::Action(_) => {
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
        let described = match &scheme.location {
            CredentialLocation::Bearer(format) => {
                let mut bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer);
                if !format.is_empty() {
                    bearer = bearer.bearer_format(format.clone());
                }
                security::SecurityScheme::Http(bearer.build())
            }
            CredentialLocation::Basic => {
                security::SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Basic).build())
            }
            CredentialLocation::Header(name) => security::SecurityScheme::ApiKey(header(name)),
            CredentialLocation::Cookie(name) => {
                security::SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::new(name.clone())))
            }
        };
        components.security_scheme(scheme.name.clone(), described)
    })
}
