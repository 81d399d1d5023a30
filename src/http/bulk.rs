//! Bulk requests: many items in one request.

use axum::body::Body as HttpBody;
use axum::response::Response;
use http::header::{ETAG, LOCATION};
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use serde_json::{Map, Value as Json, json};

use super::handler::{ResourceHandler, original};
use super::idempotency::REPLAYED;
use super::prefer::{APPLIED, Prefer};
use super::{Context, Endpoint, conditional, problem, response};
use crate::engine::{Call, Item, Patch, empty_filter};
use crate::error::{Error, Fault};
use crate::query::read_parameters;

/// A parsed bulk request.
enum Wanted {
    Listed(Many),
    Matching(Matching),
}

/// Items that the request lists.
enum Many {
    Create(Vec<Json>),
    Update(Vec<Patch>),
    Delete(Vec<String>),
}

/// All items that match a filter, up to a maximum number: one patch for all of them, or their deletion.
struct Matching {
    filter: Json,
    patch: Option<Json>,
    most: usize,
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
        let body = self.json(endpoint, parts, body).await?;
        match (self.wanted(endpoint, &body)?, partial) {
            (Wanted::Listed(many), false) => all(call, many, &Prefer::of(&parts.headers)).await,
            (Wanted::Listed(many), true) => self.each(call, many, parts, context).await,
            (Wanted::Matching(matching), false) => matching.all(&call.by_filter(&matching.filter)?).await,
            (Wanted::Matching(matching), true) => {
                let call = call.by_filter(&matching.filter)?;
                let many = matching.found(&call).await?;
                self.each(&call, many, parts, context).await
            }
        }
    }

    /// Parses a bulk request.
    fn wanted(&self, endpoint: Endpoint, body: &Json) -> Result<Wanted, Error> {
        let by_filter = body.get("filter").is_some() && endpoint != Endpoint::BulkCreate;
        let members = match (endpoint, by_filter) {
            (Endpoint::BulkCreate, _) | (Endpoint::BulkUpdate, false) => ["items"].as_slice(),
            (Endpoint::BulkUpdate, true) => &["filter", "patch", "max_affected"],
            (_, false) => &["ids"],
            (_, true) => &["filter", "max_affected"],
        };
        let body = members_of(body, members)?;
        let bulk = self.entry.definition.bulk.unwrap_or_default();
        if by_filter {
            let (filter, most) = condition(body, bulk.max_affected)?;
            return Ok(Wanted::Matching(Matching { filter, patch: body.get("patch").cloned(), most }));
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
            Endpoint::BulkCreate => Many::Create(list.clone()),
            Endpoint::BulkUpdate => {
                let id = &self.entry.schema.id_field().name;
                Many::Update(each_of(list, "items", |item| patch(item, id))?)
            }
            _ => Many::Delete(each_of(list, "ids", |id| spelled(id, ""))?),
        };
        Ok(Wanted::Listed(many))
    }

    /// Processes each item on its own, and responds with the outcome of each (207).
    async fn each(
        &self,
        call: &Call<'_>,
        many: Many,
        parts: &Parts,
        context: &Context,
    ) -> Result<Response, Error> {
        // One idempotency key stands for one request, and each of its items for one change.
        match &many {
            Many::Update(patches) => {
                call.each_once(patches.iter().map(|patch| patch.id.as_str()), "items")?;
            }
            Many::Delete(ids) => call.each_once(ids.iter().map(String::as_str), "ids")?,
            Many::Create(_) => {}
        }
        call.claim_whole().await?;
        let (mut results, mut replays) = (Vec::new(), 0);
        let path = self.boundary.public_path(parts);
        let collection = response::parent(&path);
        let prefer = Prefer::of(&parts.headers);
        let count = many.count();
        for index in 0..count {
            let mut terms = call.terms_of(&many.name(index));
            let outcome = match call.replay(&mut terms).await {
                Ok(Some(replayed)) => self.replayed(replayed, &prefer, collection),
                Ok(None) => {
                    let call = call.with(&terms);
                    match one(&call, &many, index, collection, &prefer).await {
                        Err(error) => match call.replayed_elsewhere().await {
                            Ok(Some(replayed)) => self.replayed(replayed, &prefer, collection),
                            _ => Err(error),
                        },
                        done => done,
                    }
                }
                Err(error) => Err(error),
            };
            call.take_tried(&terms);
            let mut result = json!({"index": index});
            match outcome {
                Ok(response) => {
                    replays += usize::from(response.headers().contains_key(REPLAYED));
                    described(response, &mut result).await?;
                }
                Err(error) => {
                    let base = &self.boundary.problem_base;
                    result["status"] = problem::status(error.kind()).as_u16().into();
                    result["problem"] = problem::json(&error, base, original(parts).path(), context);
                }
            }
            results.push(result);
        }
        let is_replay = replays == count && count > 0;
        let mut response =
            response::written(json!({"results": results}).to_string(), StatusCode::MULTI_STATUS);
        if is_replay {
            response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        }
        if prefer.minimal && matches!(many, Many::Create(_)) {
            response.headers_mut().insert(APPLIED, HeaderValue::from_static("return=minimal"));
        }
        Ok(response)
    }
}

impl Many {
    const fn count(&self) -> usize {
        match self {
            Self::Create(items) => items.len(),
            Self::Update(patches) => patches.len(),
            Self::Delete(ids) => ids.len(),
        }
    }

    /// The name of one item under an idempotency key. A filter may select other items when the request is repeated, so
    /// that a position in the list would identify nothing.
    fn name(&self, index: usize) -> String {
        match self {
            Self::Create(_) => format!("#{index}"),
            Self::Update(patches) => format!("/{}", patches[index].id),
            Self::Delete(ids) => format!("/{}", ids[index]),
        }
    }
}

impl Matching {
    /// Changes all matching items, or none.
    async fn all(&self, call: &Call<'_>) -> Result<Response, Error> {
        Ok(match &self.patch {
            Some(patch) => {
                response::written(listed(&call.update_matching(patch, self.most).await?), StatusCode::OK)
            }
            None => affected(call.delete_matching(self.most).await?),
        })
    }

    /// The items that match now, to be changed one by one.
    async fn found(&self, call: &Call<'_>) -> Result<Many, Error> {
        let ids = call.matching(self.most).await?;
        Ok(match &self.patch {
            Some(patch) => {
                let one = |id| Patch { id, expected: None, patch: patch.clone() };
                Many::Update(ids.into_iter().map(one).collect())
            }
            None => Many::Delete(ids),
        })
    }
}

/// Changes all listed items, or none.
async fn all(call: &Call<'_>, many: Many, prefer: &Prefer) -> Result<Response, Error> {
    Ok(match many {
        Many::Create(items) => created(listed(&call.create_all(items).await?), prefer),
        Many::Update(patches) => response::written(listed(&call.update_all(&patches).await?), StatusCode::OK),
        Many::Delete(ids) => affected(call.delete_all(&ids).await?),
    })
}

fn affected(count: usize) -> Response {
    response::written(json!({"affected": count}).to_string(), StatusCode::OK)
}

/// The filter of a change, and how many items it may affect.
fn condition(body: &Map<String, Json>, cap: usize) -> Result<(Json, usize), Error> {
    let filter = &body["filter"];
    if filter.as_object().is_none_or(Map::is_empty) {
        return Err(empty_filter());
    }
    let most = body.get("max_affected").and_then(Json::as_u64).filter(|most| *most > 0);
    let Some(most) = most.and_then(|most| usize::try_from(most).ok()) else {
        let detail = format!("Say how many items may be reached at most: 1 to {cap}.");
        return Err(Error::validation(vec![Fault::pointer("/max_affected", "required", detail)]));
    };
    if most > cap {
        let fault = Fault::pointer("/max_affected", "range", format!("Must be at most {cap}."));
        return Err(Error::validation(vec![fault]));
    }
    Ok((filter.clone(), most))
}

/// Processes one item as the route for single items does.
async fn one(
    call: &Call<'_>,
    many: &Many,
    index: usize,
    collection: &str,
    prefer: &Prefer,
) -> Result<Response, Error> {
    Ok(match many {
        Many::Create(items) => {
            let (item, id) = call.create(items[index].clone()).await?;
            response::created(item, &response::location(collection, &id), prefer)
        }
        Many::Update(patches) => {
            let Patch { id, expected, patch } = &patches[index];
            let item = call.update(id, patch.clone(), expected.as_ref()).await?;
            response::changed(item, StatusCode::OK)
        }
        Many::Delete(ids) => match call.delete(&ids[index], None).await? {
            Some(item) => response::changed(item, StatusCode::OK),
            None => response::empty(StatusCode::NO_CONTENT),
        },
    })
}

/// Writes a response as an entry of a list of results.
async fn described(response: Response, result: &mut Json) -> Result<(), Error> {
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
    let response = response::written(items, StatusCode::CREATED);
    if prefer.minimal { response::minimal(response) } else { response }
}

fn listed(items: &[Item]) -> Vec<u8> {
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
            _ => Err(parameter.unknown(["mode"])),
        });
        faults.extend(outcome.err());
    }
    if faults.is_empty() { Ok(partial) } else { Err(Error::invalid_query(faults)) }
}

/// The members of a body, which may have no others.
fn members_of<'b>(body: &'b Json, known: &[&str]) -> Result<&'b Map<String, Json>, Error> {
    let Json::Object(members) = body else {
        return Err(Error::validation(vec![Fault::pointer("", "type", "Must be an object.")]));
    };
    let mut faults: Vec<_> = members
        .keys()
        .filter(|name| !known.contains(&name.as_str()))
        .map(|name| {
            let detail = format!("There is {} here.", known.join(", "));
            Fault::pointer(format!("/{}", crate::error::escape_pointer(name)), "unknown", detail)
        })
        .collect();
    for name in known.iter().filter(|name| !members.contains_key(**name) && **name != "max_affected") {
        faults.push(Fault::pointer(format!("/{name}"), "required", "This member is required."));
    }
    if faults.is_empty() { Ok(members) } else { Err(Error::validation(faults)) }
}

fn each_of<T>(list: &[Json], name: &str, read: impl Fn(&Json) -> Result<T, Fault>) -> Result<Vec<T>, Error> {
    let mut all = Vec::with_capacity(list.len());
    let mut faults = Vec::new();
    for (index, json) in list.iter().enumerate() {
        match read(json) {
            Ok(one) => all.push(one),
            Err(fault) => faults.push(fault.inside(&format!("/{name}/{index}"))),
        }
    }
    if faults.is_empty() { Ok(all) } else { Err(Error::validation(faults)) }
}

/// `{"id": …, "if_match": …, …patch}`.
fn patch(item: &Json, id: &str) -> Result<Patch, Fault> {
    let Json::Object(members) = item else {
        return Err(Fault::pointer("", "type", "Must be an object."));
    };
    let mut patch = members.clone();
    let pointer = format!("/{}", crate::error::escape_pointer(id));
    let Some(id) = patch.shift_remove(id) else {
        return Err(Fault::pointer(pointer, "required", "Which item is it of?"));
    };
    let expected = match patch.shift_remove("if_match") {
        None => None,
        Some(tag) => conditional::expected_by(tag.as_str().unwrap_or_default())?,
    };
    Ok(Patch { id: spelled(&id, &pointer)?, expected, patch: Json::Object(patch) })
}

/// An id, spelled as in a path.
fn spelled(id: &Json, pointer: &str) -> Result<String, Fault> {
    match id {
        Json::String(text) => Ok(text.clone()),
        Json::Number(number) => Ok(number.to_string()),
        _ => Err(Fault::pointer(pointer, "type", "Must be an id.")),
    }
}
