//! Parameters: one for each legal field and operator, and the headers that are read.

use resourceful_contract::{Field, FieldType};
use serde_json::{Value as Json, json};
use utoipa::openapi::Required;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn, ParameterStyle};

use super::lens::Lens;
use super::raw::Raw;
use crate::engine::Entry;
use crate::http::{Endpoint, PROTOCOL};
use crate::resource::{Right, Target};

/// The parameters of an endpoint.
pub(super) fn of(lens: &Lens<'_>, entry: &Entry, endpoint: Endpoint, raw: &mut Raw) -> Vec<Parameter> {
    let mut parameters = Vec::new();
    match endpoint {
        Endpoint::List => list_parameters(lens, entry, raw, &mut parameters),
        Endpoint::Stream => stream_parameters(lens, entry, raw, &mut parameters),
        Endpoint::Children => {
            parameters.push(id(entry, raw));
            list_parameters(lens, entry, raw, &mut parameters);
        }
        _ if endpoint.is_of_item() => parameters.push(id(entry, raw)),
        _ => {}
    }
    if endpoint.path() == crate::http::Path::Bulk {
        let mode = json!({"type": "string", "enum": ["atomic", "partial"], "default": "atomic"});
        parameters.push(query("mode", "All of them or none, or each by itself.", mode, raw));
    }
    if endpoint == Endpoint::History {
        let about =
            format!("How many entries a page holds; more than {0} is {0}.", entry.definition.max_limit);
        parameters.push(query("limit", &about, limit(entry), raw));
        parameters.push(query("after", "A cursor: `page.next` of the page before.", cursor(), raw));
    }
    if let (Endpoint::Subtree, Some(tree)) = (endpoint, entry.definition.tree) {
        let levels = json!({"type": "integer", "minimum": 1, "maximum": tree.max_depth});
        parameters.push(query("depth", "How many levels below the item; all by default.", levels, raw));
    }
    if endpoint == Endpoint::Read && lens.offers(entry, Right::History) && entry.definition.audit.is_some() {
        let time = json!({"type": "string", "format": "date-time"});
        parameters.push(query("as_of", "The item as it was at this time.", time, raw));
    }
    if endpoint == Endpoint::Read {
        parameters.push(several("fields", "The fields to show.", fields(lens, entry), raw));
        if lens.includes(entry).next().is_some() {
            parameters.push(several("include", "Related items to show.", include(lens, entry), raw));
        }
        if sees_deleted(lens, entry) {
            parameters.push(query("deleted", DELETED, deleted(), raw));
        }
    }
    headers(entry, endpoint, raw, &mut parameters);
    parameters
}

fn list_parameters(lens: &Lens<'_>, entry: &Entry, raw: &mut Raw, out: &mut Vec<Parameter>) {
    for (name, field) in filterable(lens, entry) {
        comparisons(&name, field, raw, out);
    }
    out.push(several(
        "sort",
        "The order: fields, `-` for descending; the id is always last.",
        sort(lens, entry),
        raw,
    ));
    out.push(several("fields", "The fields to show.", fields(lens, entry), raw));
    if lens.includes(entry).next().is_some() {
        out.push(several("include", "Related items to show.", include(lens, entry), raw));
    }
    let max = entry.definition.max_limit;
    let about = format!("How many items a page holds; more than {max} is {max}.");
    out.push(query("limit", &about, limit(entry), raw));
    out.push(query("after", "A cursor: `page.next` of the page before.", cursor(), raw));
    out.push(query("before", "A cursor: `page.prev` of the page behind.", cursor(), raw));
    if entry.definition.offset_paging {
        out.push(query("page", "A page by its number, instead of a cursor.", page(), raw));
    }
    if lens.searches(entry) {
        out.push(query("q", "Words, each of which must stand in a searchable field.", words(), raw));
    }
    if sees_deleted(lens, entry) {
        out.push(query("deleted", DELETED, deleted(), raw));
    }
}

fn stream_parameters(lens: &Lens<'_>, entry: &Entry, raw: &mut Raw, out: &mut Vec<Parameter>) {
    for (name, field) in filterable(lens, entry) {
        comparisons(&name, field, raw, out);
    }
    out.push(several("fields", "The fields to show.", fields(lens, entry), raw));
    if lens.searches(entry) {
        out.push(query("q", "Words, each of which must stand in a searchable field.", words(), raw));
    }
    out.push(last_event_id(raw));
    out.push(last_event(raw));
}

/// Where a stream goes on, in the query string.
pub(super) fn last_event_id(raw: &mut Raw) -> Parameter {
    let about = "The same as the header `Last-Event-ID`, which comes first, for clients that cannot send it.";
    query(crate::query::LAST_EVENT_ID, about, cursor(), raw)
}

/// The same in its own header.
pub(super) fn last_event(raw: &mut Raw) -> Parameter {
    let schema = raw.place(json!({"type": "string"}));
    let header = ParameterBuilder::new().name("Last-Event-ID").parameter_in(ParameterIn::Header);
    header.required(Required::False).description(Some(LAST_EVENT)).schema(Some(schema)).build()
}

/// What a socket speaks.
pub(super) fn subprotocol(raw: &mut Raw) -> Parameter {
    let schema = raw.place(json!({"type": "string", "enum": [PROTOCOL]}));
    let header = ParameterBuilder::new().name("Sec-WebSocket-Protocol").parameter_in(ParameterIn::Header);
    header.required(Required::True).description(Some("What is spoken.")).schema(Some(schema)).build()
}

const LAST_EVENT: &str = "Goes on after this event: the `id` of the last one, or a `Stream-Position`.";

const PREFERS: &str = "`count=exact` or `count=estimated`: a total beside the page; `stream-position`: where a stream of the \
    same items goes on after this answer (RFC 7240).";

const DELETED: &str = "Deleted items too, or they alone.";

/// Whether deleted items can be asked for.
pub(super) fn sees_deleted(lens: &Lens<'_>, entry: &Entry) -> bool {
    entry.definition.deleted_at.is_some() && lens.offers(entry, Right::Deleted)
}

pub(super) fn deleted() -> Json {
    json!({"type": "string", "enum": ["include", "only"]})
}

/// The fields that a list can be filtered by, with their names: a resource's own, and those of its relations after
/// a dot.
pub(super) fn filterable<'a>(
    lens: &'a Lens<'a>,
    entry: &'a Entry,
) -> impl Iterator<Item = (String, &'a Field)> {
    let own = |entry: &'a Entry| {
        let fields = entry.schema.fields.iter().enumerate();
        let told = |position: usize| entry.definition.filterable[position] && lens.tells(entry, position);
        fields.filter(move |(position, _)| told(*position)).map(|(_, field)| field)
    };
    let relations = entry.links.iter().map(|relation| (relation, lens.catalog.entry(relation.target)));
    let related = relations.filter(move |(relation, _)| lens.leads(entry, relation)).flat_map(
        move |(relation, target)| {
            own(target).map(|field| (format!("{}.{}", relation.link.name, field.name), field))
        },
    );
    own(entry).map(|field| (field.name.clone(), field)).chain(related)
}

/// A field's filters, each under the name that the query string gives it.
fn comparisons(path: &str, field: &Field, raw: &mut Raw, out: &mut Vec<Parameter>) {
    for operator in field.field_type.operators() {
        let name = match *operator {
            "eq" => path.to_owned(),
            other => format!("{path}[{other}]"),
        };
        let about = about(operator, path);
        out.push(match *operator {
            "in" | "nin" | "overlaps" => {
                several(&name, &about, listed(field, 1, crate::query::MAX_URL_VALUES), raw)
            }
            "between" => several(&name, &about, listed(field, 2, 2), raw),
            "is_null" => query(&name, &about, json!({"type": "boolean"}), raw),
            "contains" | "starts" | "ends" => query(&name, &about, any_text(), raw),
            _ => query(&name, &about, value(field), raw),
        });
    }
}

fn about(operator: &str, field: &str) -> String {
    match operator {
        "eq" => format!("`{field}` is this."),
        "ne" => format!("`{field}` is not this."),
        "gt" => format!("`{field}` is greater."),
        "gte" => format!("`{field}` is this or greater."),
        "lt" => format!("`{field}` is less."),
        "lte" => format!("`{field}` is this or less."),
        "in" => format!("`{field}` is one of these."),
        "nin" => format!("`{field}` is none of these."),
        "between" => format!("`{field}` is at least the first and at most the second."),
        "contains" => format!("`{field}` holds this text."),
        "starts" => format!("`{field}` starts with this text."),
        "ends" => format!("`{field}` ends with this text."),
        "has" => format!("`{field}` holds this element."),
        "overlaps" => format!("`{field}` holds one of these elements."),
        _ => format!("`{field}` is null, or is not."),
    }
}

/// What `Prefer` takes with every change.
const TRIED: &str =
    "`dry-run`: everything is tried, and nothing changed; the answer says what it would have been.";

fn headers(entry: &Entry, endpoint: Endpoint, raw: &mut Raw, out: &mut Vec<Parameter>) {
    // Those that this server gives; it also understands lists and weak tags. No type is stated: a header is text
    // in any case, and a number is the tag that it spells.
    let tags = json!({"pattern": "^(\\*|\"[0-9A-Za-z._-]{1,80}\"|[0-9A-Za-z._-]{1,80})$"});
    let mut header = |name: &str, about: &str, schema: Json, required: bool| {
        let parameter = ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Header)
            .description(Some(about))
            .required(if required { Required::True } else { Required::False })
            .schema(Some(raw.place(schema)));
        out.push(parameter.build());
    };
    let own_id = json!({"type": "string"});
    header(
        "x-request-id",
        "Names the request in answers and logs; another one is given where it is absent.",
        own_id,
        false,
    );
    if let Some(idempotency) = entry.definition.idempotency.filter(|_| endpoint.changes()) {
        let key = json!({"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!#-\\[\\]-~]+$"});
        let about = "Names the change, so that it happens once however often it is asked for.";
        header("Idempotency-Key", about, key, idempotency.required);
    }
    match endpoint {
        Endpoint::List | Endpoint::Query | Endpoint::QueryTwin | Endpoint::Children => {
            if endpoint != Endpoint::QueryTwin {
                header("If-None-Match", "Tags that the client has (RFC 9110).", tags, false);
            }
            let count = json!({"type": "string"});
            header("Prefer", PREFERS, count, false);
        }
        Endpoint::Stream | Endpoint::History | Endpoint::Subtree => {}
        Endpoint::Read => header("If-None-Match", "Tags that the client has (RFC 9110).", tags, false),
        Endpoint::Create | Endpoint::BulkCreate => {
            let about = "`return=minimal`: an answer without the item; `dry-run`: only tried (RFC 7240).";
            header("Prefer", about, json!({"type": "string"}), false);
        }
        Endpoint::BulkUpdate | Endpoint::BulkDelete => {
            header("Prefer", TRIED, json!({"type": "string"}), false);
        }
        Endpoint::Action(acted) if acted.target == Target::Collection => {
            header("Prefer", TRIED, json!({"type": "string"}), false);
        }
        Endpoint::Update | Endpoint::Replace | Endpoint::Delete | Endpoint::Action(_) => {
            let required = entry.definition.require_if_match;
            header("If-Match", "The version that the item must have (RFC 9110).", tags, required);
            header("Prefer", TRIED, json!({"type": "string"}), false);
            if endpoint == Endpoint::Replace {
                let any = json!({"type": "string", "enum": ["*"]});
                header("If-None-Match", "Create only (RFC 9110).", any, false);
            }
        }
    }
}

fn id(entry: &Entry, raw: &mut Raw) -> Parameter {
    let field = entry.schema.id_field();
    let mut schema = match entry.definition.bodies.replace["properties"].get(&field.name) {
        // Given by the client: what holds in a body holds in a path.
        Some(schema) => schema.clone(),
        None => value(field),
    };
    if field.field_type == FieldType::Text && schema.get("minLength").is_none() {
        schema["minLength"] = json!(1);
    }
    ParameterBuilder::new()
        .name("id")
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(Some(format!("The item's `{}`.", field.name)))
        .schema(Some(raw.place(schema)))
        .build()
}

fn query(name: &str, about: &str, schema: Json, raw: &mut Raw) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Query)
        .required(Required::False)
        .description(Some(about))
        .schema(Some(raw.place(schema)))
        .build()
}

/// A list with commas between its items.
pub(super) fn several(name: &str, about: &str, schema: Json, raw: &mut Raw) -> Parameter {
    let mut parameter = query(name, about, schema, raw);
    parameter.style = Some(ParameterStyle::Form);
    parameter.explode = Some(false);
    parameter
}

/// One value of a field; of its elements where it is an array.
pub(super) fn value(field: &Field) -> Json {
    let element = match field.field_type {
        FieldType::Array(element) => FieldType::from(element),
        other => other,
    };
    if let Some(values) = field.enum_values() {
        let texts: Vec<_> = values.iter().filter(|value| !value.is_null()).collect();
        return json!({"enum": texts});
    }
    match element {
        FieldType::Text => any_text(),
        FieldType::Integer => {
            json!({"type": "integer", "format": "int64", "minimum": i64::MIN, "maximum": i64::MAX})
        }
        FieldType::Decimal => super::decimals::value(),
        other => other.json_schema(),
    }
}

/// Several values of a field.
pub(super) fn list(field: &Field, min: usize, max: usize) -> Json {
    json!({"type": "array", "items": value(field), "minItems": min, "maxItems": max})
}

/// Text, of which U+0000 is no part.
pub(super) fn any_text() -> Json {
    json!({"type": "string", "pattern": "^[^\\u0000]*$"})
}

pub(super) fn sort(lens: &Lens<'_>, entry: &Entry) -> Json {
    let fields = entry.schema.fields.iter().enumerate();
    let keys: Vec<_> = fields
        .filter(|(position, _)| entry.definition.sortable[*position] && lens.tells(entry, *position))
        .flat_map(|(_, field)| [field.name.clone(), format!("-{}", field.name)])
        .collect();
    json!({"type": "array", "items": {"type": "string", "enum": keys}, "minItems": 1, "maxItems": 8})
}

pub(super) fn fields(lens: &Lens<'_>, entry: &Entry) -> Json {
    let shown = entry.schema.visible().filter(|position| lens.shows(entry, *position));
    let names: Vec<_> = shown.map(|position| &entry.schema.fields[position].name).collect();
    json!({"type": "array", "items": {"type": "string", "enum": names}, "minItems": 1})
}

pub(super) fn include(lens: &Lens<'_>, entry: &Entry) -> Json {
    let names: Vec<_> = lens.includes(entry).map(|relation| &relation.link.name).collect();
    json!({"type": "array", "items": {"type": "string", "enum": names}, "minItems": 1})
}

pub(super) fn limit(entry: &Entry) -> Json {
    let default = entry.definition.default_limit;
    json!({"type": "integer", "minimum": 1, "maximum": u64::MAX, "default": default})
}

pub(super) fn cursor() -> Json {
    json!({"type": "string", "pattern": "^[A-Za-z0-9_-]+$"})
}

pub(super) fn page() -> Json {
    json!({"type": "integer", "minimum": 1, "maximum": u32::MAX})
}

pub(super) fn words() -> Json {
    json!({"type": "string", "pattern": "^[^\\u0000]*[0-9A-Za-z][^\\u0000]*$", "maxLength": 200})
}

/// Several values of a field in a query string, where a comma stands between them.
fn listed(field: &Field, min: usize, max: usize) -> Json {
    let mut list = list(field, min, max);
    if list["items"]["type"] == "string" && list["items"].get("format").is_none() {
        list["items"] = json!({"type": "string", "pattern": "^[^\\u0000,%]+$"});
    }
    list
}
