//! Bulk requests: many items in one request.

use axum::body::Body as HttpBody;
use axum::response::Response;
use http::header::{ETAG, LOCATION};
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use serde_json::{Map, Value as Json, json};

use super::handler::{ResourceHandler, original_uri};
use super::idempotency::REPLAYED;
use super::prefer::{PREFERENCE_APPLIED, Prefer};
use super::{Context, Endpoint, conditional, problem, response};
use crate::engine::{Call, Item, Patch, empty_filter};
use crate::error::{Error, Fault};
use crate::query::read_parameters;

/// A parsed bulk request.
enum BulkRequest {
    Listed(ListedItems),
    Matching(FilteredItems),
}

/// Items that the request lists.
enum ListedItems {
    Create(Vec<Json>),
    Update(Vec<Patch>),
    Delete(Vec<String>),
}

/// All items that match a filter, up to a maximum number: one patch for all of them, or their deletion.
struct FilteredItems {
    filter: Json,
    patch: Option<Json>,
    max_affected: usize,
}

impl ResourceHandler {
    pub(super) async fn bulk(
        &self,
        call: &Call<'_>,
        endpoint: Endpoint,
        parts: &Parts,
        body: HttpBody,
        context: &Context,
    ) -> Result<Response, Error> {
        let partial = is_partial(parts.uri.query())?;
        let body = self.read_json(endpoint, parts, body).await?;
        match (self.parse_bulk(endpoint, &body)?, partial) {
            (BulkRequest::Listed(many), false) => write_all(call, many, &Prefer::of(&parts.headers)).await,
            (BulkRequest::Listed(many), true) => self.write_each(call, many, parts, context).await,
            (BulkRequest::Matching(matching), false) => {
                matching.write_all(&call.by_filter(&matching.filter)?).await
            }
            (BulkRequest::Matching(matching), true) => {
                let call = call.by_filter(&matching.filter)?;
                let many = matching.matching_items(&call).await?;
                self.write_each(&call, many, parts, context).await
            }
        }
    }

    /// Parses a bulk request.
    fn parse_bulk(&self, endpoint: Endpoint, body: &Json) -> Result<BulkRequest, Error> {
        let by_filter = body.get("filter").is_some() && endpoint != Endpoint::BulkCreate;
        let members = match (endpoint, by_filter) {
            (Endpoint::BulkCreate, _) | (Endpoint::BulkUpdate, false) => ["items"].as_slice(),
            (Endpoint::BulkUpdate, true) => &["filter", "patch", "max_affected"],
            (_, false) => &["ids"],
            (_, true) => &["filter", "max_affected"],
        };
        let body = check_members(body, members)?;
        let bulk = self.entry.definition.bulk.unwrap_or_default();
        if by_filter {
            let (filter, max_affected) = parse_filter(body, bulk.max_affected)?;
            return Ok(BulkRequest::Matching(FilteredItems {
                filter,
                patch: body.get("patch").cloned(),
                max_affected,
            }));
        }
        let list = body[members[0]].as_array().ok_or_else(|| {
            let fault = Fault::pointer(format!("/{}", members[0]), "type", "Must be an array.");
            Error::validation(vec![fault])
        })?;
        if list.is_empty() || list.len() > bulk.max_items {
            let detail = format!("Must hold 1 to {} items.", bulk.max_items);
            let fault = Fault::pointer(format!("/{}", members[0]), "length", detail);
            return Err(Error::validation(vec![fault]));
        }
        let many = match endpoint {
            Endpoint::BulkCreate => ListedItems::Create(list.clone()),
            Endpoint::BulkUpdate => {
                let id = &self.entry.schema.id_field().name;
                ListedItems::Update(parse_each(list, "items", |item| parse_patch(item, id))?)
            }
            _ => ListedItems::Delete(parse_each(list, "ids", |id| parse_id(id, ""))?),
        };
        Ok(BulkRequest::Listed(many))
    }

    /// Processes each item on its own, and responds with the outcome of each (207).
    async fn write_each(
        &self,
        call: &Call<'_>,
        many: ListedItems,
        parts: &Parts,
        context: &Context,
    ) -> Result<Response, Error> {
        // One idempotency key stands for one request, and each of its items for one change.
        match &many {
            ListedItems::Update(patches) => {
                call.reject_duplicates(patches.iter().map(|patch| patch.id.as_str()), "items")?;
            }
            ListedItems::Delete(ids) => call.reject_duplicates(ids.iter().map(String::as_str), "ids")?,
            ListedItems::Create(_) => {}
        }
        call.claim_request().await?;
        let (mut results, mut replays) = (Vec::new(), 0);
        let path = self.state.public_path(parts);
        let collection = response::parent(&path);
        let prefer = Prefer::of(&parts.headers);
        let count = many.count();
        for index in 0..count {
            let mut write_context = call.item_context(&many.item_name(index));
            let outcome = match call.replay(&mut write_context).await {
                Ok(Some(replayed)) => self.replay_response(replayed, &prefer, collection),
                Ok(None) => {
                    let call = call.clone_with(&write_context);
                    match write_one(&call, &many, index, collection, &prefer).await {
                        Err(error) => match call.replay_concurrent().await {
                            Ok(Some(replayed)) => self.replay_response(replayed, &prefer, collection),
                            _ => Err(error),
                        },
                        done => done,
                    }
                }
                Err(error) => Err(error),
            };
            call.merge_events(&write_context);
            let mut result = json!({"index": index});
            match outcome {
                Ok(response) => {
                    replays += usize::from(response.headers().contains_key(REPLAYED));
                    write_result(response, &mut result).await?;
                }
                Err(error) => {
                    let base = &self.state.problem_base;
                    result["status"] = problem::status(error.kind()).as_u16().into();
                    result["problem"] = problem::json(&error, base, original_uri(parts).path(), context);
                }
            }
            results.push(result);
        }
        let is_replay = replays == count && count > 0;
        let mut response =
            response::json_response(json!({"results": results}).to_string(), StatusCode::MULTI_STATUS);
        if is_replay {
            response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        }
        if prefer.minimal && matches!(many, ListedItems::Create(_)) {
            response.headers_mut().insert(PREFERENCE_APPLIED, HeaderValue::from_static("return=minimal"));
        }
        Ok(response)
    }
}

impl ListedItems {
    const fn count(&self) -> usize {
        match self {
            Self::Create(items) => items.len(),
            Self::Update(patches) => patches.len(),
            Self::Delete(ids) => ids.len(),
        }
    }

    /// The name of one item under an idempotency key. A filter may select other items when the request is repeated, so
    /// that a position in the list would identify nothing.
    fn item_name(&self, index: usize) -> String {
        match self {
            Self::Create(_) => format!("#{index}"),
            Self::Update(patches) => format!("/{}", patches[index].id),
            Self::Delete(ids) => format!("/{}", ids[index]),
        }
    }
}

impl FilteredItems {
    /// Changes all matching items, or none.
    async fn write_all(&self, call: &Call<'_>) -> Result<Response, Error> {
        Ok(match &self.patch {
            Some(patch) => response::json_response(
                items_json(&call.update_matching(patch, self.max_affected).await?),
                StatusCode::OK,
            ),
            None => affected_response(call.delete_matching(self.max_affected).await?),
        })
    }

    /// The items that match now, to be changed one by one.
    async fn matching_items(&self, call: &Call<'_>) -> Result<ListedItems, Error> {
        let ids = call.matching(self.max_affected).await?;
        Ok(match &self.patch {
            Some(patch) => {
                let one = |id| Patch { id, expected: None, patch: patch.clone() };
                ListedItems::Update(ids.into_iter().map(one).collect())
            }
            None => ListedItems::Delete(ids),
        })
    }
}

/// Changes all listed items, or none.
async fn write_all(call: &Call<'_>, many: ListedItems, prefer: &Prefer) -> Result<Response, Error> {
    Ok(match many {
        ListedItems::Create(items) => created(items_json(&call.create_all(items).await?), prefer),
        ListedItems::Update(patches) => {
            response::json_response(items_json(&call.update_all(&patches).await?), StatusCode::OK)
        }
        ListedItems::Delete(ids) => affected_response(call.delete_all(&ids).await?),
    })
}

fn affected_response(count: usize) -> Response {
    response::json_response(json!({"affected": count}).to_string(), StatusCode::OK)
}

/// The filter of a change, and how many items it may affect.
fn parse_filter(body: &Map<String, Json>, limit: usize) -> Result<(Json, usize), Error> {
    let filter = &body["filter"];
    if filter.as_object().is_none_or(Map::is_empty) {
        return Err(empty_filter());
    }
    let max_affected =
        body.get("max_affected").and_then(Json::as_u64).filter(|max_affected| *max_affected > 0);
    let Some(max_affected) = max_affected.and_then(|max_affected| usize::try_from(max_affected).ok()) else {
        let detail = format!("Give the maximum number of items to affect: 1 to {limit}.");
        return Err(Error::validation(vec![Fault::pointer("/max_affected", "required", detail)]));
    };
    if max_affected > limit {
        let fault = Fault::pointer("/max_affected", "range", format!("Must be at most {limit}."));
        return Err(Error::validation(vec![fault]));
    }
    Ok((filter.clone(), max_affected))
}

/// Processes one item as the route for single items does.
async fn write_one(
    call: &Call<'_>,
    many: &ListedItems,
    index: usize,
    collection: &str,
    prefer: &Prefer,
) -> Result<Response, Error> {
    Ok(match many {
        ListedItems::Create(items) => {
            let (item, id) = call.create(items[index].clone()).await?;
            response::created(item, &response::location(collection, &id), prefer)
        }
        ListedItems::Update(patches) => {
            let Patch { id, expected, patch } = &patches[index];
            let item = call.update(id, patch.clone(), expected.as_ref()).await?;
            response::changed(item, StatusCode::OK)
        }
        ListedItems::Delete(ids) => match call.delete(&ids[index], None).await? {
            Some(item) => response::changed(item, StatusCode::OK),
            None => response::empty(StatusCode::NO_CONTENT),
        },
    })
}

/// Writes a response as an entry of a list of results.
async fn write_result(response: Response, result: &mut Json) -> Result<(), Error> {
    use http_body_util::BodyExt as _;
    let (parts, body) = response.into_parts();
    result["status"] = parts.status.as_u16().into();
    for name in [ETAG, LOCATION] {
        if let Some(value) = parts.headers.get(&name).and_then(|value| value.to_str().ok()) {
            result[name.as_str()] = value.into();
        }
    }
    let body = body.collect().await.map_err(Error::internal)?.to_bytes();
    if !body.is_empty() {
        result["body"] = serde_json::from_slice(&body).map_err(Error::internal)?;
    }
    Ok(())
}

/// The response with new items, in the form that the client prefers.
pub(super) fn created(items: impl Into<HttpBody>, prefer: &Prefer) -> Response {
    let response = response::json_response(items, StatusCode::CREATED);
    if prefer.minimal { response::minimal(response) } else { response }
}

fn items_json(items: &[Item]) -> Vec<u8> {
    let mut json = b"{\"items\":[".to_vec();
    for (position, item) in items.iter().enumerate() {
        if position > 0 {
            json.push(b',');
        }
        json.extend_from_slice(&item.json);
    }
    json.extend_from_slice(b"]}");
    json
}

fn is_partial(query: Option<&str>) -> Result<bool, Error> {
    let mut partial = false;
    let mut faults = Vec::new();
    for parameter in read_parameters(query, &mut faults) {
        let outcome = parameter.single().and_then(|value| match (parameter.name(), value) {
            ("mode", "atomic" | "partial") => {
                partial = value == "partial";
                Ok(())
            }
            ("mode", _) => Err(Fault::parameter("mode", "value", "Must be `atomic` or `partial`.")),
            _ => Err(parameter.unknown_parameter(["mode"])),
        });
        faults.extend(outcome.err());
    }
    if faults.is_empty() { Ok(partial) } else { Err(Error::invalid_query(faults)) }
}

/// The members of a body, which may have no others.
fn check_members<'b>(body: &'b Json, known: &[&str]) -> Result<&'b Map<String, Json>, Error> {
    let Json::Object(members) = body else {
        return Err(Error::validation(vec![Fault::pointer("", "type", "Must be an object.")]));
    };
    let mut faults: Vec<_> = members
        .keys()
        .filter(|name| !known.contains(&name.as_str()))
        .map(|name| {
            let detail = format!("The known members are {}.", known.join(", "));
            Fault::pointer(format!("/{}", crate::error::escape_pointer(name)), "unknown", detail)
        })
        .collect();
    for name in known.iter().filter(|name| !members.contains_key(**name) && **name != "max_affected") {
        faults.push(Fault::pointer(format!("/{name}"), "required", "This member is required."));
    }
    if faults.is_empty() { Ok(members) } else { Err(Error::validation(faults)) }
}

fn parse_each<T>(
    list: &[Json],
    name: &str,
    read: impl Fn(&Json) -> Result<T, Fault>,
) -> Result<Vec<T>, Error> {
    let mut all = Vec::with_capacity(list.len());
    let mut faults = Vec::new();
    for (index, json) in list.iter().enumerate() {
        match read(json) {
            Ok(one) => all.push(one),
            Err(fault) => faults.push(fault.nested_at(&format!("/{name}/{index}"))),
        }
    }
    if faults.is_empty() { Ok(all) } else { Err(Error::validation(faults)) }
}

/// `{"id": …, "if_match": …, …patch}`.
fn parse_patch(item: &Json, id: &str) -> Result<Patch, Fault> {
    let Json::Object(members) = item else {
        return Err(Fault::pointer("", "type", "Must be an object."));
    };
    let mut patch = members.clone();
    let pointer = format!("/{}", crate::error::escape_pointer(id));
    let Some(id) = patch.shift_remove(id) else {
        return Err(Fault::pointer(pointer, "required", "The id of the item is required."));
    };
    let expected = match patch.shift_remove("if_match") {
        None => None,
        Some(tag) => conditional::parse_if_match_member(tag.as_str().unwrap_or_default())?,
    };
    Ok(Patch { id: parse_id(&id, &pointer)?, expected, patch: Json::Object(patch) })
}

/// An id, spelled as in a path.
fn parse_id(id: &Json, pointer: &str) -> Result<String, Fault> {
    match id {
        Json::String(text) => Ok(text.clone()),
        Json::Number(number) => Ok(number.to_string()),
        _ => Err(Fault::pointer(pointer, "type", "Must be an id.")),
    }
}
