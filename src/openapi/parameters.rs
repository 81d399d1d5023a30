//! Parameters: filters, pages and selections in the query string, and request headers.

use resourceful_contract::FieldType;
use serde_json::{Value as Json, json};
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn, ParameterStyle};
use utoipa::openapi::{RefOr, Required};

use super::catalog_view::CatalogView;
use super::components::Components;
use super::filters;
use super::filters::any_text;
use super::operations::OperationContext;
use crate::catalog::Entry;
use crate::http::{Endpoint, SUBPROTOCOL};
use crate::resource::{ListParameter, Right, Target};

const AFTER: &str = "A cursor: `page.next` of the previous page.";
const BEFORE: &str = "A cursor: `page.prev` of the following page.";
const LAST_EVENT: &str = "Resumes after this event: the `id` of the last one, or a `Stream-Position`.";
const LAST_EVENT_ID: &str =
    "The same as the header `Last-Event-ID`, which takes precedence, for clients that cannot send it.";
const PREFER_LIST: &str = "`count=exact` or `count=estimated`: a total beside the page; `stream-position`: where a stream of the \
    same items continues after this answer (RFC 7240).";
const PREFER_CREATE: &str =
    "`return=minimal`: a response without the item; `dry-run`: rolled back (RFC 7240).";
const PREFER_DRY_RUN: &str =
    "`dry-run`: the change is validated and rolled back; the response is what it would have been.";
const ENTITY_TAGS_PATTERN: &str = "^(\\*|(W/)?\"[!#-~]*\"([ \\t]*,[ \\t]*(W/)?\"[!#-~]*\")*)$";

/// Collects the parameters of an operation.
struct Collector<'a, 'b> {
    context: &'a OperationContext<'a>,
    components: &'b mut Components,
    parameters: Vec<RefOr<Parameter>>,
}

/// The parameters of an endpoint.
pub(super) fn of(context: &OperationContext<'_>, components: &mut Components) -> Vec<RefOr<Parameter>> {
    let mut collector = Collector { context, components, parameters: Vec::new() };
    let endpoint = context.endpoint;
    if endpoint.has_item() {
        collector.id();
    }
    match endpoint {
        Endpoint::List | Endpoint::Children => collector.list(),
        Endpoint::Stream => collector.stream(),
        Endpoint::Read => collector.item(),
        Endpoint::History => {
            collector.limit();
            collector.add_shared("After", query("after", AFTER, cursor()));
        }
        Endpoint::Subtree => collector.depth(),
        _ if endpoint.path() == crate::http::Path::Bulk => {
            let mode = json!({"type": "string", "enum": ["atomic", "partial"], "default": "atomic"});
            collector.add_shared("Mode", query("mode", "All items or none, or each by itself.", mode));
        }
        _ => {}
    }
    collector.headers();
    collector.parameters
}

/// A parameter whose schema is not added to the components yet.
struct ParameterSpec<'a> {
    name: &'a str,
    location: ParameterIn,
    description: &'a str,
    schema: Json,
    required: bool,
    style: Option<ParameterStyle>,
}

impl ParameterSpec<'_> {
    fn build(self, components: &mut Components) -> Parameter {
        let mut parameter = ParameterBuilder::new()
            .name(self.name)
            .parameter_in(self.location)
            .required(if self.required { Required::True } else { Required::False })
            .description(Some(self.description))
            .schema(Some(components.inline(self.schema)))
            .build();
        if self.style.is_some() {
            parameter.explode = Some(true);
        }
        parameter.style = self.style;
        parameter
    }

    const fn required(mut self, required: bool) -> Self {
        self.required = required;
        self
    }

    fn style(mut self, style: ParameterStyle) -> Self {
        self.style = Some(style);
        self
    }
}

const fn query<'a>(name: &'a str, description: &'a str, schema: Json) -> ParameterSpec<'a> {
    ParameterSpec { name, location: ParameterIn::Query, description, schema, required: false, style: None }
}

/// A list parameter, which is repeated for each item: an empty list has no parameter.
fn repeated<'a>(name: &'a str, description: &'a str, mut schema: Json) -> ParameterSpec<'a> {
    if let Some(list) = schema.as_object_mut() {
        list.shift_remove("minItems");
    }
    query(name, description, schema).style(ParameterStyle::Form)
}

const fn header<'a>(name: &'a str, description: &'a str, schema: Json) -> ParameterSpec<'a> {
    ParameterSpec { name, location: ParameterIn::Header, description, schema, required: false, style: None }
}

impl Collector<'_, '_> {
    /// Adds a parameter that operations of several resources have.
    fn add_shared(&mut self, name: &str, spec: ParameterSpec<'_>) {
        let parameter = self.components.parameter(name, |components| spec.build(components));
        self.parameters.push(parameter);
    }

    /// Adds a parameter that operations of one resource have.
    fn add_resource_parameter(&mut self, name: &str, spec: ParameterSpec<'_>) {
        self.add_shared(&format!("{}.{name}", self.context.title()), spec);
    }

    fn id(&mut self) {
        let entry = self.context.entry;
        let field = entry.schema.id_field();
        let mut schema = match entry.definition.bodies.replace["properties"].get(&field.name) {
            // Clients assign the id: the constraints of a body apply to the path.
            Some(schema) => schema.clone(),
            None => filters::value(field),
        };
        if field.field_type == FieldType::Text && schema.get("minLength").is_none() {
            schema["minLength"] = json!(1);
        }
        let about = format!("The item's `{}`.", field.name);
        let spec = ParameterSpec { location: ParameterIn::Path, ..query("id", &about, schema) };
        self.add_resource_parameter("id", spec.required(true));
    }

    fn list(&mut self) {
        let (view, entry) = (self.context.view, self.context.entry);
        self.filters();
        let about = "The order: fields, `-` for descending; the id is always last.";
        self.add_resource_parameter("sort", repeated("sort", about, sort(view, entry)));
        self.selection();
        self.limit();
        self.add_shared("After", query("after", AFTER, cursor()));
        self.add_shared("Before", query("before", BEFORE, cursor()));
        if entry.definition.offset_paging {
            self.add_shared(
                "PageNumber",
                query("page", "A page by its number, instead of a cursor.", page()),
            );
        }
        self.search();
        self.deleted();
        self.list_parameters();
    }

    fn stream(&mut self) {
        self.filters();
        let (view, entry) = (self.context.view, self.context.entry);
        self.add_resource_parameter("fields", repeated("fields", "The fields to show.", fields(view, entry)));
        self.search();
        self.list_parameters();
        self.add_shared("LastEventIdInQuery", last_event_in_query());
        self.add_shared("LastEventId", last_event());
    }

    fn item(&mut self) {
        let (view, entry) = (self.context.view, self.context.entry);
        if view.is_permitted(entry, Right::History) && entry.definition.audit.is_some() {
            let time = json!({"type": "string", "format": "date-time"});
            self.add_shared("AsOf", query("as_of", "The item as it was at this time.", time));
        }
        self.selection();
        self.deleted();
    }

    fn filters(&mut self) {
        for field in filters::of(self.context.view, self.context.entry) {
            let schema = field.parameter(self.components, self.context.titles);
            let path = &field.path;
            let about =
                format!("Filters by `{path}`: a value that it equals, or operators (`{path}[ne]=…`).");
            let name = format!("{}.{path}", if path.contains('.') { "related" } else { "filter" });
            self.add_resource_parameter(&name, query(path, &about, schema).style(ParameterStyle::DeepObject));
        }
    }

    fn selection(&mut self) {
        let (view, entry) = (self.context.view, self.context.entry);
        self.add_resource_parameter("fields", repeated("fields", "The fields to show.", fields(view, entry)));
        if view.includable_relations(entry).next().is_some() {
            self.add_resource_parameter(
                "include",
                repeated("include", "Related items to show.", include(view, entry)),
            );
        }
    }

    fn limit(&mut self) {
        let max = self.context.entry.definition.max_limit;
        let about = format!("How many items a page holds; more than {max} is {max}.");
        self.add_resource_parameter("limit", query("limit", &about, limit(self.context.entry)));
    }

    fn search(&mut self) {
        if self.context.view.has_search(self.context.entry) {
            let about = "Words, each of which must stand in a searchable field.";
            self.add_shared("Search", query("q", about, search_schema()));
        }
    }

    fn deleted(&mut self) {
        if can_see_deleted(self.context.view, self.context.entry) {
            self.add_shared(
                "Deleted",
                query("deleted", "Whether deleted items are included, or listed alone.", deleted()),
            );
        }
    }

    /// The list parameters that the resource declares.
    fn list_parameters(&mut self) {
        for parameter in &self.context.entry.definition.list_parameters {
            let about = parameter.description.as_deref().unwrap_or("Selects the rows that are listed.");
            self.add_resource_parameter(
                &parameter.name,
                query(&parameter.name, about, values_schema(parameter)),
            );
        }
    }

    fn depth(&mut self) {
        if let Some(tree) = self.context.entry.definition.tree {
            let levels = json!({"type": "integer", "minimum": 1, "maximum": tree.max_depth});
            self.add_resource_parameter(
                "depth",
                query("depth", "How many levels below the item; all by default.", levels),
            );
        }
    }

    fn headers(&mut self) {
        let (entry, endpoint) = (self.context.entry, self.context.endpoint);
        let text = || json!({"type": "string"});
        self.add_shared("RequestId", request_id());
        if let Some(idempotency) = entry.definition.idempotency.filter(|_| endpoint.is_write()) {
            let key =
                json!({"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!#-\\[\\]-~]+$"});
            let about = "Identifies the change, so that a repeated request does not apply it again.";
            let name = if idempotency.required { "RequiredIdempotencyKey" } else { "IdempotencyKey" };
            self.add_shared(name, header("Idempotency-Key", about, key).required(idempotency.required));
        }
        match endpoint {
            Endpoint::List | Endpoint::Query | Endpoint::QueryPost | Endpoint::Children => {
                if endpoint != Endpoint::QueryPost {
                    self.if_none_match();
                }
                self.add_shared("PreferList", header("Prefer", PREFER_LIST, text()));
            }
            Endpoint::Stream | Endpoint::History | Endpoint::Subtree => {}
            Endpoint::Read => self.if_none_match(),
            Endpoint::Create | Endpoint::BulkCreate => {
                self.add_shared("PreferCreate", header("Prefer", PREFER_CREATE, text()));
            }
            Endpoint::BulkUpdate | Endpoint::BulkDelete => self.prefers_dry_run(),
            Endpoint::Action(action_ref) if action_ref.target == Target::Collection => self.prefers_dry_run(),
            Endpoint::Update | Endpoint::Replace | Endpoint::Delete | Endpoint::Action(_) => {
                self.if_match();
                self.prefers_dry_run();
                if endpoint == Endpoint::Replace {
                    let any = json!({"type": "string", "enum": ["*"]});
                    self.add_shared("CreateOnly", header("If-None-Match", "Create only (RFC 9110).", any));
                }
            }
        }
    }

    fn if_match(&mut self) {
        let required = self.context.entry.definition.require_if_match;
        let name = if required { "RequiredIfMatch" } else { "IfMatch" };
        let about = "The ETag that the item must have (RFC 9110).";
        self.add_shared(name, header("If-Match", about, entity_tags_schema()).required(required));
    }

    fn if_none_match(&mut self) {
        let about = "ETags that the client has (RFC 9110).";
        self.add_shared("IfNoneMatch", header("If-None-Match", about, entity_tags_schema()));
    }

    fn prefers_dry_run(&mut self) {
        self.add_shared("PreferChange", header("Prefer", PREFER_DRY_RUN, json!({"type": "string"})));
    }
}

fn request_id() -> ParameterSpec<'static> {
    let about = "Identifies the request in answers and logs; one is generated where it is absent.";
    header("x-request-id", about, json!({"type": "string"}))
}

fn last_event_in_query() -> ParameterSpec<'static> {
    query(crate::query::LAST_EVENT_ID, LAST_EVENT_ID, cursor())
}

fn last_event() -> ParameterSpec<'static> {
    header("Last-Event-ID", LAST_EVENT, json!({"type": "string"}))
}

/// The parameters of `GET /events`.
pub(super) fn event_parameters(components: &mut Components) -> Vec<RefOr<Parameter>> {
    let types = json!({"type": "array", "items": any_text(), "minItems": 1});
    let about =
        "Types of events, such as `orders.created`, or `orders.*` for all of a resource; all by default.";
    [
        ("EventTypes", repeated("types", about, types)),
        ("LastEventIdInQuery", last_event_in_query()),
        ("LastEventId", last_event()),
        ("RequestId", request_id()),
    ]
    .into_iter()
    .map(|(name, spec)| components.parameter(name, |components| spec.build(components)))
    .collect()
}

/// The parameters of `GET /ws`.
pub(super) fn socket_parameters(components: &mut Components) -> Vec<RefOr<Parameter>> {
    let schema = json!({"type": "string", "enum": [SUBPROTOCOL]});
    let protocol = header("Sec-WebSocket-Protocol", "The subprotocol.", schema).required(true);
    vec![components.parameter("Subprotocol", |components| protocol.build(components))]
}

/// The parameters of a change that belongs to no resource.
pub(super) fn batch_parameters(components: &mut Components) -> Vec<RefOr<Parameter>> {
    let prefer = header("Prefer", PREFER_DRY_RUN, json!({"type": "string"}));
    [("RequestId", request_id()), ("PreferChange", prefer)]
        .into_iter()
        .map(|(name, spec)| components.parameter(name, |components| spec.build(components)))
        .collect()
}

/// Whether soft-deleted items can be requested.
pub(super) fn can_see_deleted(view: &CatalogView<'_>, entry: &Entry) -> bool {
    entry.definition.deleted_at.is_some() && view.is_permitted(entry, Right::Deleted)
}

/// The values of a list parameter.
pub(super) fn values_schema(parameter: &ListParameter) -> Json {
    let values: Vec<_> = parameter.values.iter().map(|(value, _)| value.as_str()).collect();
    json!({"type": "string", "enum": values})
}

pub(super) fn deleted() -> Json {
    json!({"type": "string", "enum": ["include", "only"]})
}

/// Entity tags in headers, weak ones and lists included (RFC 9110, 8.8.3 and 13.1).
fn entity_tags_schema() -> Json {
    json!({"type": "string", "pattern": ENTITY_TAGS_PATTERN})
}

/// An entity tag in a body.
pub(super) fn entity_tag_schema() -> Json {
    json!({"type": "string", "pattern": ENTITY_TAGS_PATTERN, "description": "The ETag that the item must have."})
}

pub(super) fn sort(view: &CatalogView<'_>, entry: &Entry) -> Json {
    let fields = entry.schema.fields.iter().enumerate();
    let keys: Vec<_> = fields
        .filter(|(position, _)| entry.definition.sortable[*position] && view.can_reveal(entry, *position))
        .flat_map(|(_, field)| [field.name.clone(), format!("-{}", field.name)])
        .collect();
    json!({"type": "array", "items": {"type": "string", "enum": keys}, "minItems": 1, "maxItems": 8})
}

pub(super) fn fields(view: &CatalogView<'_>, entry: &Entry) -> Json {
    let visible = entry.schema.visible().filter(|position| view.is_visible(entry, *position));
    let names: Vec<_> = visible.map(|position| &entry.schema.fields[position].name).collect();
    json!({"type": "array", "items": {"type": "string", "enum": names}, "minItems": 1})
}

pub(super) fn include(view: &CatalogView<'_>, entry: &Entry) -> Json {
    let names: Vec<_> = view.includable_relations(entry).map(|relation| &relation.link.name).collect();
    json!({"type": "array", "items": {"type": "string", "enum": names}, "minItems": 1})
}

pub(super) fn limit(entry: &Entry) -> Json {
    let default = entry.definition.default_limit;
    json!({"type": "integer", "minimum": 1, "default": default})
}

pub(super) fn cursor() -> Json {
    json!({"type": "string", "pattern": "^[A-Za-z0-9_-]+$"})
}

pub(super) fn page() -> Json {
    json!({"type": "integer", "minimum": 1, "maximum": u32::MAX})
}

pub(super) fn search_schema() -> Json {
    json!({"type": "string", "pattern": "^[^\\x00]*[0-9A-Za-z][^\\x00]*$", "maxLength": 200})
}
