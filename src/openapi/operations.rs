//! One operation of the document for each endpoint of a resource.

use utoipa::openapi::Required;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::path::{self, OperationBuilder};
use utoipa::openapi::request_body::{RequestBody, RequestBodyBuilder};
use utoipa::openapi::security::SecurityRequirement;

use super::lens::Lens;
use super::raw::{Raw, component};
use super::schemas::of_action;
use super::{Info, parameters, responses};
use crate::access::{Alternative, Permission, Requirement};
use crate::engine::Entry;
use crate::http::{Body, Endpoint};
use crate::resource::{Operation, Right, Target};

/// What a stream is.
const STREAM: &str = "Server-sent events: `ready` first, then each change of an item that matches as a CloudEvents 1.0 event \
    under its type, `added` or `removed` where a change brings an item into view or takes it out, `reset` where what was \
    told before is not to be relied on, `lagged` and `end` before the stream ends. The `id` of the last event, sent back in \
    `Last-Event-ID`, goes on from there.";

/// Where an operation stands, and what it is made of.
pub(super) struct Site<'a> {
    pub(super) lens: &'a Lens<'a>,
    pub(super) entry: &'a Entry,
    pub(super) endpoint: Endpoint,
    /// The name that the resource's components begin with.
    pub(super) title: &'a str,
    pub(super) info: &'a Info,
}

impl Site<'_> {
    pub(super) fn operation(&self, raw: &mut Raw) -> path::Operation {
        let name = self.entry.definition.name();
        let mut builder = OperationBuilder::new()
            .operation_id(Some(self.id()))
            .summary(Some(self.summary()))
            .tag(name)
            .parameters(Some(parameters::of(self.lens, self.entry, self.endpoint, raw)))
            .request_body(self.body())
            .securities(Some(self.security()));
        if let Some(description) = self.description() {
            builder = builder.description(Some(description));
        }
        let authenticates = self.info.authenticates;
        for (status, response) in responses::of(self.entry, self.endpoint, self.title, authenticates, raw) {
            builder = builder.response(status, response);
        }
        builder.build()
    }

    fn id(&self) -> String {
        let definition = &self.entry.definition;
        let name = definition.name();
        let verb = match self.endpoint {
            Endpoint::List => "list",
            Endpoint::Query => "query",
            Endpoint::QueryTwin => "post_query",
            Endpoint::Create => "create",
            Endpoint::Read => "read",
            Endpoint::Update => "update",
            Endpoint::Replace => "replace",
            Endpoint::Delete => "delete",
            Endpoint::Stream => "stream",
            Endpoint::History => "history_of",
            Endpoint::Children => "children_of",
            Endpoint::Subtree => "subtree_of",
            Endpoint::BulkCreate => "bulk_create",
            Endpoint::BulkUpdate => "bulk_update",
            Endpoint::BulkDelete => "bulk_delete",
            Endpoint::Action(acted) => &definition.actions[acted.position].name,
        };
        format!("{verb}_{name}")
    }

    fn summary(&self) -> String {
        let name = self.entry.definition.name();
        match self.endpoint {
            Endpoint::List => format!("List {name}"),
            Endpoint::Query => format!("List {name} by a body (QUERY)"),
            Endpoint::QueryTwin => format!("List {name} by a body"),
            Endpoint::Create => format!("Create one of {name}"),
            Endpoint::Read => format!("Read one of {name}"),
            Endpoint::Update => format!("Change fields of one of {name}"),
            Endpoint::Replace => format!("Replace one of {name}"),
            Endpoint::Delete => format!("Delete one of {name}"),
            Endpoint::Stream => format!("Follow the changes of {name}"),
            Endpoint::History => format!("What became of one of {name}"),
            Endpoint::Children => format!("List the {name} right below one"),
            Endpoint::Subtree => format!("Everything below one of {name}"),
            Endpoint::BulkCreate => format!("Create many of {name}"),
            Endpoint::BulkUpdate => format!("Change many of {name}"),
            Endpoint::BulkDelete => format!("Delete many of {name}"),
            Endpoint::Action(acted) => {
                let action = &self.entry.definition.actions[acted.position].name;
                match acted.target {
                    Target::Item => format!("`{action}` one of {name}"),
                    Target::Collection => format!("`{action}` of {name}"),
                }
            }
        }
    }

    fn description(&self) -> Option<String> {
        let needed = |operation| self.entry.definition.needed(operation);
        let always = self.entry.definition.needed(self.endpoint.right());
        let creator =
            Requirements::of(self.entry, self.endpoint).to_create.map(|_| needed(Operation::Create));
        let creator = creator.filter(|create| *create != always);
        let creator = creator.and_then(|create| who(&create, "To create one by it: "));
        let who = who(&always, "");
        let what = match self.endpoint {
            Endpoint::BulkCreate | Endpoint::BulkUpdate | Endpoint::BulkDelete => {
                Some("All of them or none, in one transaction; or each by itself (`mode=partial`).")
            }
            Endpoint::Action(acted) => {
                self.entry.definition.actions[acted.position].action.description.as_deref()
            }
            Endpoint::Update => Some("A JSON merge patch (RFC 7396): absent keeps, `null` clears."),
            Endpoint::Stream => Some(STREAM),
            Endpoint::Query => Some("RFC 10008."),
            Endpoint::QueryTwin => {
                Some("The same as QUERY on the collection, for clients that cannot say it.")
            }
            _ => None,
        };
        let sentences: Vec<_> = what.map(str::to_owned).into_iter().chain(who).chain(creator).collect();
        (!sentences.is_empty()).then(|| sentences.join(" "))
    }

    fn body(&self) -> Option<RequestBody> {
        let mut required = Required::True;
        let name = match self.endpoint.body() {
            Body::None => return None,
            Body::Query => format!("{}Query", self.title),
            Body::Create => format!("{}Create", self.title),
            Body::Replace => format!("{}Replace", self.title),
            Body::Update => format!("{}Patch", self.title),
            Body::BulkCreate => format!("{}_BulkCreate", self.title),
            Body::BulkUpdate => format!("{}_BulkPatch", self.title),
            Body::BulkDelete => format!("{}_BulkDelete", self.title),
            Body::Action(acted) => {
                let declared = &self.entry.definition.actions[acted.position];
                if declared.action.input.optional {
                    required = Required::False;
                }
                of_action(self.title, &declared.name, "Input")
            }
        };
        let mut builder = RequestBodyBuilder::new().required(Some(required));
        for media_type in self.endpoint.body().media_types() {
            let schema = component(&name);
            builder = builder.content(*media_type, ContentBuilder::new().schema(Some(schema)).build());
        }
        Some(builder.build())
    }

    /// What is really asked for: nothing, or one of the alternatives by any one of the schemes.
    fn security(&self) -> Vec<SecurityRequirement> {
        let definition = &self.entry.definition;
        let mut permissions = vec![definition.passed(self.endpoint.right())];
        if Requirements::of(self.entry, self.endpoint).to_create.is_some() {
            permissions.push(definition.passed(Operation::Create));
        }
        security(&permissions, self.info)
    }
}

/// What permissions ask for, of which one has to be passed: nothing, or an alternative by any one of the schemes. The
/// roles and scopes that an alternative needs stand beside the scheme (OpenAPI 3.1, 4.8.30).
pub(super) fn security(permissions: &[Permission], info: &Info) -> Vec<SecurityRequirement> {
    if permissions.iter().all(|permission| permission.requirement().is_open()) {
        return Vec::new();
    }
    let mut alternatives: Vec<_> = permissions.iter().flat_map(Permission::alternatives).collect();
    if alternatives.iter().all(|way| !way.credential) {
        // Who shows a credential may be let in further than who does not.
        alternatives.push(Alternative { credential: true, ..Alternative::default() });
    }
    // Without a credential first: it is what most clients try.
    alternatives.sort_by_key(|way| way.credential);
    let by_schemes = |way: &Alternative| -> Vec<SecurityRequirement> {
        if !way.credential {
            return vec![SecurityRequirement::default()];
        }
        let rights: Vec<_> = way.rights.iter().map(ToString::to_string).collect();
        let schemes = info.schemes.iter();
        schemes.map(|scheme| SecurityRequirement::new(scheme.name.clone(), rights.clone())).collect()
    };
    alternatives.iter().flat_map(by_schemes).collect()
}

/// What callers of an endpoint must be.
pub(super) struct Requirements {
    pub(super) always: Requirement,
    /// A PUT that finds nothing creates, where clients give the ids.
    pub(super) to_create: Option<Requirement>,
}

impl Requirements {
    pub(super) fn of(entry: &Entry, endpoint: Endpoint) -> Self {
        let of = |right: Right| entry.definition.passed(right).requirement();
        let creates = endpoint == Endpoint::Replace && entry.definition.client_ids();
        Self { always: of(endpoint.right()), to_create: creates.then(|| of(Operation::Create.into())) }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Requirement> {
        std::iter::once(&self.always).chain(&self.to_create)
    }
}

fn who(permission: &Permission, when: &str) -> Option<String> {
    let requirement = permission.requirement();
    if requirement.closed {
        Some(format!("{when}Closed: nobody may do this."))
    } else if requirement.is_open() {
        None
    } else {
        Some(format!("{when}Needs {}.", permission.words()))
    }
}
