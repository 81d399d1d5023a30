//! `GET /{resource}/stream` and `GET /events`: changes as they happen, as server-sent events.

use std::sync::Arc;

use axum::extract::Request;
use axum::response::Response;
use http::HeaderMap;
use http::request::Parts;

use super::subscription::{EventsSubscription, ResourceSubscription, SubscribingCaller, parse_types};
use crate::engine::Engine;
use crate::error::{Error, Fault};
use crate::http::app_state::AppState;
use crate::http::handler::{ResourceHandler, original_uri};
use crate::http::request_context::Context;
use crate::live::{Feed, Live, SubscriptionRequest, events_of};
use crate::query::{LAST_EVENT_ID, Pairs, invalid_cursor, read_parameters};

/// The path of the stream of all resources' changes.
pub(crate) const EVENTS_PATH: &str = "/events";
/// The header with the position at which a client continues (WHATWG HTML, 9.2.4).
const LAST_EVENT_HEADER: &str = "last-event-id";

impl ResourceHandler {
    /// Responds with a stream.
    pub(in crate::http) async fn stream(&self, parts: &Parts) -> Result<Response, Error> {
        let live = require_live(&self.state)?;
        let caller = Arc::new(SubscribingCaller::of(&self.state, parts));
        let claim = ResourceSubscription { caller, entry: self.entry.clone(), body: None };
        open_stream(live, Arc::new(claim), parts).await
    }
}

/// Handles `GET /events`.
pub(crate) async fn events(state: &Arc<AppState>, request: Request) -> Response {
    let context = Context::of_request(&request);
    let (parts, _) = request.into_parts();
    let instance = original_uri(&parts).path().to_owned();
    match Box::pin(all_events(state, parts)).await {
        Ok(response) => response,
        Err(error) => state.error_response(&error, &instance, &context),
    }
}

async fn all_events(state: &Arc<AppState>, parts: Parts) -> Result<Response, Error> {
    let live = require_live(state)?;
    let caller = Arc::new(SubscribingCaller::of(state, &parts));
    let types = match requested_types(&state.engine, parts.uri.query()) {
        Ok(types) => types,
        Err(invalid) => {
            // A caller who may see no stream learns nothing about which types exist.
            EventsSubscription { caller, types: Vec::new() }.authorize().await?;
            return Err(invalid);
        }
    };
    open_stream(live, Arc::new(EventsSubscription { caller, types }), &parts).await
}

/// The requested types of events.
fn requested_types(engine: &Engine, query: Option<&str>) -> Result<Vec<String>, Error> {
    let (mut patterns, mut faults) = (Vec::new(), Vec::new());
    for parameter in read_parameters(query, &mut faults) {
        match parameter.name() {
            "types" => patterns.extend(parameter.items().map(str::to_owned)),
            LAST_EVENT_ID => faults.extend(parameter.single().err()),
            _ => faults.push(parameter.unknown_parameter(["types", LAST_EVENT_ID])),
        }
    }
    let types = parse_types(engine, patterns.iter().map(String::as_str)).unwrap_or_else(|unknown| {
        faults.extend(unknown.into_iter().map(|(_, detail)| Fault::parameter("types", "unknown", detail)));
        Vec::new()
    });
    if faults.is_empty() { Ok(types) } else { Err(Error::invalid_query(faults)) }
}

pub(super) fn require_live(state: &AppState) -> Result<Arc<Live>, Error> {
    state.live.clone().ok_or_else(Error::not_found)
}

/// The position at which a client continues, and whether a header names it. A browser that reconnects sends it in the
/// header, and still has the URL that it began with.
fn resume_position(headers: &HeaderMap, query: Option<&str>) -> Option<(String, bool)> {
    let header = headers.get(LAST_EVENT_HEADER).map(|value| (value.to_str().unwrap_or("?").to_owned(), true));
    let parameter = || {
        let named = Pairs::of(query).flatten().find(|(name, _)| name == LAST_EVENT_ID);
        named.map(|(_, value)| (value.into_owned(), false))
    };
    header.filter(|(value, _)| !value.is_empty()).or_else(parameter)
}

async fn open_stream(
    live: Arc<Live>,
    claim: Arc<dyn SubscriptionRequest>,
    parts: &Parts,
) -> Result<Response, Error> {
    let after = resume_position(&parts.headers, parts.uri.query());
    let (after, in_header) = after.map_or((None, false), |(after, in_header)| (Some(after), in_header));
    let invalid = move || {
        let error = invalid_cursor(LAST_EVENT_ID);
        if !in_header {
            return error;
        }
        let detail = error.detail().to_owned();
        error.with_faults(vec![Fault::header("Last-Event-ID", "invalid-cursor", detail)])
    };
    Ok(events_of(Feed::open(live, claim, after, invalid).await?))
}
