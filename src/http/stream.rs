//! `GET /{resource}/stream` and `GET /events`: changes as they happen.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{OriginalUri, Request};
use axum::response::Response;
use futures::future::BoxFuture;
use http::request::Parts;
use http::{HeaderMap, HeaderValue};

use super::dispatch::{Door, original};
use super::{Boundary, Context};
use crate::access::{Actor, LookedAt};
use crate::engine::{Engine, Entry, Window};
use crate::error::{Error, ErrorKind, Fault};
use crate::live::{Claim, Feed, Live, Scope, Wanted, Who, events_of};
use crate::nearest::suggest;
use crate::query::{Binding, LAST_EVENT_ID, Parameters, digest, invalid_cursor, may_relate};
use crate::resource::Operation;

/// Where the changes of every resource are told.
pub(crate) const EVENTS: &str = "/events";
/// Where a client goes on (WHATWG HTML, 9.2.4).
const LAST_EVENT: &str = "last-event-id";

/// A stream of one resource, as its request asks for it.
struct OfResource {
    door: Door,
    parts: Parts,
}

/// A stream of all resources.
struct OfAll {
    boundary: Arc<Boundary>,
    types: Vec<String>,
    parts: Parts,
}

impl Door {
    /// Answers with a stream.
    pub(super) async fn stream(&self, parts: &Parts) -> Result<Response, Error> {
        let live = live(&self.boundary)?;
        let after = after(&parts.headers, parts.uri.query());
        let claim = OfResource { door: self.clone(), parts: lasting(parts) };
        opened(live, Box::new(claim), after).await
    }
}

impl OfResource {
    async fn wanted(&self) -> Result<Wanted, Error> {
        let Door { boundary, entry } = &self.door;
        let (engine, query) = (&boundary.engine, self.parts.uri.query());
        let actor = boundary.actor(&self.parts).await?;
        LookedAt::note(&self.parts);
        let call = engine.call(entry, &actor, Operation::List, may_relate(query)).await?;
        let (window, binding, _) = call.asked_stream(query)?;
        let databases = engine.database_of(entry).into_iter().collect();
        let scope = Arc::new(Scope { binding, policy: window.policy, databases });
        Ok(Wanted { scope, windows: vec![window], types: Vec::new(), who: who(&actor) })
    }
}

impl Claim for OfResource {
    fn wanted(&self) -> BoxFuture<'_, Result<Wanted, Error>> {
        Box::pin(self.wanted())
    }
}

/// A request whose caller is asked for more than once. What it is made of is copied: it would hold the whole of what was
/// read from the connection, for as long as the stream is open.
fn lasting(parts: &Parts) -> Parts {
    let mut lasting = Request::new(Body::empty()).into_parts().0;
    lasting.method = parts.method.clone();
    lasting.uri = parts.uri.to_string().parse().unwrap_or_default();
    let mut headers = HeaderMap::with_capacity(parts.headers.len());
    for (name, value) in &parts.headers {
        if let Ok(mut copied) = HeaderValue::from_bytes(value.as_bytes()) {
            copied.set_sensitive(value.is_sensitive());
            headers.append(name, copied);
        }
    }
    // A clone has no room to spare.
    lasting.headers = headers.clone();
    lasting.extensions = parts.extensions.clone();
    lasting.extensions.remove::<Context>();
    lasting.extensions.remove::<OriginalUri>();
    lasting.extensions.insert(LookedAt::default());
    lasting
}

/// Answers `GET /events`.
pub(crate) async fn events(boundary: &Arc<Boundary>, request: Request) -> Response {
    let context = Context::carried_by(&request);
    let (parts, _) = request.into_parts();
    let instance = original(&parts).path().to_owned();
    match Box::pin(stream_of_all(boundary, parts)).await {
        Ok(response) => response,
        Err(error) => boundary.refuse(&error, &instance, &context),
    }
}

async fn stream_of_all(boundary: &Arc<Boundary>, parts: Parts) -> Result<Response, Error> {
    let live = live(boundary)?;
    let types = types(&boundary.engine, parts.uri.query())?;
    let after = after(&parts.headers, parts.uri.query());
    let claim = OfAll { boundary: boundary.clone(), types, parts: lasting(&parts) };
    opened(live, Box::new(claim), after).await
}

/// Which types of events are asked for.
fn types(engine: &Engine, query: Option<&str>) -> Result<Vec<String>, Error> {
    let streamed = || engine.catalog.entries().iter().filter(|entry| entry.definition.streams());
    let mut types = Vec::new();
    let mut faults = Vec::new();
    for parameter in Parameters::of(query) {
        match parameter {
            Ok((name, patterns)) if name == "types" => {
                for pattern in patterns.split(',') {
                    let resource = pattern.split('.').next().unwrap_or_default();
                    let is_known = streamed().any(|entry| *entry.name == *resource) && pattern.contains('.');
                    if pattern == "*" || is_known {
                        types.push(pattern.to_owned());
                    } else {
                        let detail = format!("`{pattern}` is not a type of events here.");
                        let known = streamed().map(|entry| &*entry.name);
                        let detail = suggest(detail, resource, known);
                        faults.push(Fault::parameter("types", "unknown", detail));
                    }
                }
            }
            Ok((name, _)) if name == LAST_EVENT_ID => {}
            Ok((name, _)) => {
                let detail = "There are `types` and `last_event_id` here.";
                faults.push(Fault::parameter(name, "unknown", detail));
            }
            Err(fault) => faults.push(fault),
        }
    }
    types.sort();
    types.dedup();
    if faults.is_empty() { Ok(types) } else { Err(Error::invalid_query(faults)) }
}

impl OfAll {
    async fn wanted(&self) -> Result<Wanted, Error> {
        let engine = &self.boundary.engine;
        let actor = self.boundary.actor(&self.parts).await?;
        LookedAt::note(&self.parts);
        let (mut windows, mut databases, mut refused) = (Vec::new(), Vec::new(), None);
        for entry in engine.catalog.entries().iter().filter(|entry| entry.definition.streams()) {
            let Some(by_name) = self.asks_for(entry) else { continue };
            match Window::of(engine, entry, &actor).await {
                Ok(window) => {
                    windows.push(window);
                    databases.extend(engine.database_of(entry));
                }
                Err(error) if by_name => return Err(error),
                Err(error) if matches!(error.kind(), ErrorKind::Forbidden | ErrorKind::Unauthenticated) => {
                    refused = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        if let (true, Some(refused)) = (windows.is_empty(), refused) {
            return Err(refused);
        }
        databases.sort_unstable();
        databases.dedup();
        let scope = Arc::new(scope(&actor, &self.types, &windows, databases));
        Ok(Wanted { scope, windows, types: self.types.clone(), who: who(&actor) })
    }

    /// Whether events of a resource are asked for; and if so, whether by its name.
    fn asks_for(&self, entry: &Entry) -> Option<bool> {
        let is_of = |pattern: &String| pattern.split('.').next() == Some(&*entry.name);
        if self.types.iter().any(is_of) {
            return Some(true);
        }
        (self.types.is_empty() || self.types.iter().any(|pattern| pattern == "*")).then_some(false)
    }
}

impl Claim for OfAll {
    fn wanted(&self) -> BoxFuture<'_, Result<Wanted, Error>> {
        Box::pin(self.wanted())
    }
}

fn scope(actor: &Actor, types: &[String], windows: &[Window], databases: Vec<usize>) -> Scope {
    let mut asked = digest::Fed::default();
    digest::text(&mut asked, EVENTS);
    for pattern in types {
        digest::text(&mut asked, pattern);
    }
    let mut decided = digest::Fed::default();
    for window in windows {
        window.digest(&mut decided);
    }
    let mut policy = [0; 16];
    policy.copy_from_slice(&decided.digest().as_bytes()[..16]);
    Scope { binding: Binding::of_stream(actor, &asked), policy, databases }
}

fn who(actor: &Actor) -> Who {
    Who { tenant: actor.tenant().map(Arc::from), actor: actor.id().map(Arc::from) }
}

fn live(boundary: &Boundary) -> Result<Arc<Live>, Error> {
    boundary.live.clone().ok_or_else(Error::not_found)
}

/// The place where a client goes on, and where it names that. A browser that comes back says it in the header, and still
/// has the URL that it began with.
fn after(headers: &HeaderMap, query: Option<&str>) -> Option<(String, bool)> {
    let header = headers.get(LAST_EVENT).map(|value| (value.to_str().unwrap_or("?").to_owned(), true));
    let parameter = || {
        let named = Parameters::of(query).flatten().find(|(name, _)| name == LAST_EVENT_ID);
        named.map(|(_, value)| (value.into_owned(), false))
    };
    header.filter(|(value, _)| !value.is_empty()).or_else(parameter)
}

async fn opened(
    live: Arc<Live>,
    claim: Box<dyn Claim>,
    after: Option<(String, bool)>,
) -> Result<Response, Error> {
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
