//! One operation of the document for each endpoint of a resource.

use utoipa::openapi::Required;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::path::{self, OperationBuilder};
use utoipa::openapi::request_body::{RequestBody, RequestBodyBuilder};
use utoipa::openapi::security::SecurityRequirement;

use super::catalog_view::CatalogView;
use super::components::{Components, schema};
use super::document::Version;
use super::schemas::input_schema_name;
use super::{Info, names, parameters, responses};
use crate::access::Operation;
use crate::access::{Alternative, Permission, Requirement};
use crate::catalog::Entry;
use crate::http::{Body, Endpoint};
use crate::resource::Right;

/// The description of streams.
const STREAM_DESCRIPTION: &str = "Server-sent events: `ready` first, then each change of an item that matches as a CloudEvents 1.0 event \
    under its type, `added` or `removed` where a change brings an item into view or takes it out, `reset` where what was \
    sent before can no longer be relied on, `lagged` and `end` before the stream ends. The `id` of the last event, sent back in \
    `Last-Event-ID`, resumes the stream.";

/// The context in which an operation is described.
pub(super) struct OperationContext<'a> {
    pub(super) view: &'a CatalogView<'a>,
    pub(super) entry: &'a Entry,
    pub(super) endpoint: Endpoint,
    /// For each resource, the prefix of its components' names.
    pub(super) titles: &'a [String],
    pub(super) info: &'a Info,
    pub(super) version: Version,
}

impl OperationContext<'_> {
    /// The prefix of the names of the resource's components.
    pub(super) fn title(&self) -> &str {
        &self.titles[self.entry.position]
    }

    pub(super) fn operation(&self, id: String, components: &mut Components) -> path::Operation {
        let mut builder = OperationBuilder::new()
            .operation_id(Some(id))
            .summary(Some(names::summary(self.entry, self.endpoint)))
            .tag(self.entry.definition.name())
            .request_body(self.body())
            .securities(Some(self.security()));
        if let Some(description) = self.description() {
            builder = builder.description(Some(description));
        }
        for (status, response) in responses::of(self, components) {
            builder = builder.response(status, response);
        }
        let mut operation = builder.build();
        operation.parameters = Some(parameters::of(self, components));
        operation
    }

    fn description(&self) -> Option<String> {
        let needed = |operation| self.entry.definition.effective_permission(operation);
        let always = self.entry.definition.effective_permission(self.endpoint.right());
        let create_permission =
            Requirements::of(self.entry, self.endpoint).to_create.map(|_| needed(Operation::Create));
        let create_permission = create_permission.filter(|create| *create != always);
        let create_permission =
            create_permission.and_then(|create| requirement_sentence(&create, "To create an item with it: "));
        let who = requirement_sentence(&always, "");
        let what = match self.endpoint {
            Endpoint::BulkCreate | Endpoint::BulkUpdate | Endpoint::BulkDelete => {
                Some("All of them or none, in one transaction; or each by itself (`mode=partial`).")
            }
            Endpoint::Action(action_ref) => {
                let declared = &self.entry.definition.actions[action_ref.position].action;
                declared.description.as_deref().or(Some("An action of the resource."))
            }
            Endpoint::Update => {
                Some("A JSON merge patch (RFC 7396): an absent member is kept, `null` clears.")
            }
            Endpoint::Stream => Some(STREAM_DESCRIPTION),
            Endpoint::Query => Some("RFC 10008."),
            Endpoint::QueryPost => {
                Some("The same as QUERY on the collection, for clients without that method.")
            }
            Endpoint::List => Some("The items that match every filter, page by page."),
            Endpoint::Read => Some("The whole item, or the members that `fields` names."),
            Endpoint::Create => Some("The answer has the item, its path and its ETag."),
            Endpoint::Replace => Some("Members that the body leaves out get their default."),
            Endpoint::Delete => Some("With `If-Match`, only if the item has that ETag."),
            Endpoint::History => Some("Who changed what and when, the newest change first."),
            Endpoint::Children => Some("The items whose parent is this item, as a list."),
            Endpoint::Subtree => Some("The items of every level below this one."),
        };
        let sentences: Vec<_> =
            what.map(str::to_owned).into_iter().chain(who).chain(create_permission).collect();
        (!sentences.is_empty()).then(|| sentences.join(" "))
    }

    fn body(&self) -> Option<RequestBody> {
        let (title, mut required) = (self.title(), Required::True);
        let name = match self.endpoint.body() {
            Body::None => return None,
            Body::Query => format!("{title}Query"),
            Body::Create => format!("{title}Create"),
            Body::Replace => format!("{title}Replace"),
            Body::Update => format!("{title}Patch"),
            Body::BulkCreate => format!("{title}_BulkCreate"),
            Body::BulkUpdate => format!("{title}_BulkPatch"),
            Body::BulkDelete => format!("{title}_BulkDelete"),
            Body::Action(action_ref) => {
                let declared = &self.entry.definition.actions[action_ref.position];
                if declared.action.input.is_optional {
                    required = Required::False;
                }
                input_schema_name(title, declared)
            }
        };
        let mut builder = RequestBodyBuilder::new().required(Some(required));
        for media_type in self.endpoint.body().media_types() {
            let content = ContentBuilder::new().schema(Some(schema(&name))).build();
            builder = builder.content(*media_type, content);
        }
        Some(builder.build())
    }

    /// The effective security requirements: none, or one of the alternatives by any one of the schemes.
    fn security(&self) -> Vec<SecurityRequirement> {
        let definition = &self.entry.definition;
        let mut permissions = vec![definition.required_permission(self.endpoint.right())];
        if Requirements::of(self.entry, self.endpoint).to_create.is_some() {
            permissions.push(definition.required_permission(Operation::Create));
        }
        security(&permissions, self.info)
    }
}

/// The security requirements of permissions, any one of which suffices: none, or an alternative by any one of the
/// schemes. The roles and scopes that an alternative needs are listed with the scheme (OpenAPI 3.1, 4.8.30).
pub(super) fn security(permissions: &[Permission], info: &Info) -> Vec<SecurityRequirement> {
    if permissions.iter().all(|permission| permission.requirement().is_open()) {
        return Vec::new();
    }
    let mut alternatives: Vec<_> = permissions.iter().flat_map(Permission::alternatives).collect();
    if alternatives.iter().all(|alternative| !alternative.is_authenticated) {
        // Callers with a credential may have access to more than callers without one.
        alternatives.push(Alternative { is_authenticated: true, ..Alternative::default() });
    }
    // The alternative without a credential is first: most clients try it first.
    alternatives.sort_by_key(|alternative| alternative.is_authenticated);
    let mut distinct: Vec<Alternative> = Vec::new();
    for alternative in alternatives {
        if !distinct.contains(&alternative) {
            distinct.push(alternative);
        }
    }
    let by_schemes = |alternative: &Alternative| -> Vec<SecurityRequirement> {
        if !alternative.is_authenticated {
            return vec![SecurityRequirement::default()];
        }
        let rights: Vec<_> = alternative.rights.iter().map(ToString::to_string).collect();
        let schemes = info.schemes.iter();
        schemes.map(|scheme| SecurityRequirement::new(scheme.name.clone(), rights.clone())).collect()
    };
    distinct.iter().flat_map(by_schemes).collect()
}

/// The requirements on callers of an endpoint.
pub(super) struct Requirements {
    pub(super) always: Requirement,
    /// A PUT to an id that does not exist creates the item, if clients assign ids.
    pub(super) to_create: Option<Requirement>,
}

impl Requirements {
    pub(super) fn of(entry: &Entry, endpoint: Endpoint) -> Self {
        let of = |right: Right| entry.definition.required_permission(right).requirement();
        let creates = endpoint == Endpoint::Replace && entry.definition.has_client_ids();
        Self { always: of(endpoint.right()), to_create: creates.then(|| of(Operation::Create.into())) }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Requirement> {
        std::iter::once(&self.always).chain(&self.to_create)
    }
}

fn requirement_sentence(permission: &Permission, when: &str) -> Option<String> {
    let requirement = permission.requirement();
    if requirement.is_closed {
        Some(format!("{when}Closed: no caller may do this."))
    } else if requirement.is_open() {
        None
    } else {
        Some(format!("{when}Needs {}.", permission.describe()))
    }
}
