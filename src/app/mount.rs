//! Assembles a running application from what was built: the state that handlers share, the routes, the service.

use std::future::{Ready, ready};
use std::sync::{Arc, Weak};

use axum::Router;
use axum::extract::{DefaultBodyLimit, OriginalUri, Request};
use axum::response::Response;
use axum::routing::{MethodFilter, get, on, post};
use http::header::LOCATION;
use http::{HeaderName, HeaderValue, StatusCode};

use super::build::Shared;
use super::lifecycle::Lifecycle;
use super::service::AppService;
use super::{App, AppBuilder, AppPreset, Development, health};
use crate::access::{PublicOrigins, Rule, SecurityScheme, Watching};
use crate::catalog::Catalog;
use crate::engine::Engine;
use crate::error::Error;
use crate::events::{Relay, Workers};
use crate::http::{
    AppState, BATCH, BodyLimit, BodyMemory, Challenge, Context, EVENTS, EXPLAIN, Origins, Routes, SOCKET,
};
use crate::http::{batch as batched, events, explain as explained, respond, socket};
use crate::live::{Live, Presence};
use crate::openapi;
use crate::outbox::{LOOK, PublishNotifier, Tail};

/// Assembles the application and its service.
pub(super) fn mount(
    builder: AppBuilder,
    engine: Arc<Engine>,
    merged: Option<Router>,
    explain: Option<Rule>,
    shared: Shared,
    secret: &[u8],
) -> App {
    let info = info(&builder, &engine.catalog);
    let has_sockets = info.sockets;
    let (boundary, builder) = boundary(builder, engine, explain, shared);
    let document = openapi::Document::of(boundary.clone(), info);
    let lifecycle = Arc::new(Lifecycle::new(
        builder.deadline,
        builder.concurrency,
        builder.preset == AppPreset::Production,
        builder.drain_delay,
        builder.shutdown_grace,
    ));
    let development = Development {
        greets: builder.preset == AppPreset::Development,
        has_docs: builder.docs && cfg!(feature = "docs"),
    };
    let others = openapi::routes(document, builder.docs);
    let others = match development {
        Development { greets: true, has_docs: true } => others.route("/", get(to_docs)),
        _ => others,
    };
    let others = beside(&boundary, &builder.prefix, has_sockets, others);
    let routes = Routes::new(&boundary, &builder.prefix, others);
    let merged = merged.map(|merged| {
        merged
            .layer(DefaultBodyLimit::max(boundary.body_limit.bytes))
            .fallback_service(routes.clone())
            .method_not_allowed_fallback(refusal(&boundary, Error::method_not_allowed))
    });
    let health = health::routes(&boundary, &lifecycle);
    let limits = Arc::new(builder.connections);
    let (cors, compression) = (builder.cors, builder.compression);
    let front =
        AppService::new(health, lifecycle.clone(), cors, compression, merged, routes, boundary.clone());
    let (engine, subscriptions) = (&boundary.engine, Arc::<[_]>::from(builder.subscriptions));
    let name = name(secret);
    let news = builder.bus.clone().map(|bus| Arc::new(PublishNotifier::new(bus, &name)));
    let workers =
        builder.bus.map(|bus| Arc::new(Workers::new(engine.clone(), subscriptions.clone(), bus, &name)));
    let relay = Arc::new(Relay::new(engine.clone(), subscriptions, workers));
    let tails = tails(&boundary);
    App {
        front,
        boundary,
        lifecycle,
        limits,
        relay,
        tails,
        news,
        development,
        #[cfg(feature = "webhooks")]
        dispatcher: None,
    }
}

/// The state that all handlers share, and what is left of the builder.
fn boundary(
    mut builder: AppBuilder,
    engine: Arc<Engine>,
    explain: Option<Rule>,
    shared: Shared,
) -> (Arc<AppState>, AppBuilder) {
    let Shared { following, answers, presence } = shared;
    let live = live(&engine, &builder, presence);
    let boundary = AppState {
        engine,
        live,
        depends_on: depends_on(&builder),
        challenge: Challenge::of(builder.authenticators.iter().map(|authenticator| authenticator.scheme())),
        origins: Origins::new(builder.cors.clone()),
        authenticators: std::mem::take(&mut builder.authenticators),
        roles: std::mem::take(&mut builder.roles),
        tenancy: builder.tenancy.take(),
        elevation: builder.elevation.take(),
        answers,
        body_limit: BodyLimit { bytes: builder.body_limit, pause: builder.connections.body_timeout },
        bodies: BodyMemory::new(builder.connections.max_body_bytes),
        prefix: builder.prefix.clone(),
        public_origins: PublicOrigins::of(&builder.servers),
        base: builder.servers.first().and_then(|server| base(server)),
        problem_base: std::mem::take(&mut builder.problem_base),
        explain,
        batch: builder.batch,
        following,
        #[cfg(feature = "testing")]
        explained_to: builder.explain.take(),
        #[cfg(feature = "testing")]
        document_by_caller: builder.document_by_caller,
    };
    (Arc::new(boundary), builder)
}

/// The path of a server's URL; `None` for a URL at the root.
fn base(server: &str) -> Option<String> {
    let path = match server.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("", |start| &rest[start..]),
        None => server,
    };
    let path = path.trim_end_matches('/');
    path.starts_with('/').then(|| path.to_owned())
}

/// The name that the nodes of an application have in common, derived from the secret that only they have.
pub(super) fn name(secret: &[u8]) -> String {
    let name = blake3::derive_key("resourceful 2026-11 names of applications", secret);
    blake3::Hash::from_bytes(name).to_hex()[..32].to_owned()
}

/// The followers of published events.
fn tails(boundary: &AppState) -> Vec<Arc<Tail>> {
    let live = boundary.live.iter().map(|live| live.tail.clone());
    let watch = boundary.engine.catalog.watch.clone();
    live.chain(watch.map(|watch| Arc::new(Tail::new(boundary.engine.outbox.clone(), watch, LOOK)))).collect()
}

/// Streams and presence, where a resource has either.
fn live(engine: &Arc<Engine>, builder: &AppBuilder, presence: Arc<Presence>) -> Option<Arc<Live>> {
    if !engine.catalog.entries().iter().any(|entry| entry.definition.lives()) {
        return None;
    }
    let live = Arc::new(Live::new(engine, builder.streams.clone(), presence));
    for grants in &builder.grants {
        let watching: Weak<dyn Watching> = Arc::<Live>::downgrade(&live);
        grants.tell(watching);
    }
    Some(live)
}

/// Whether there is a stream of all changes: where a resource has streams, and none has the stream's path.
pub(super) fn tells_of_all(catalog: &Catalog) -> bool {
    catalog.entries().iter().any(|entry| entry.definition.streams())
        && catalog.entries().iter().all(|entry| *entry.name != EVENTS[1..])
}

/// Whether there is a socket endpoint: where something can be subscribed to, and no resource has its path.
pub(super) fn has_sockets(builder: &AppBuilder, catalog: &Catalog) -> bool {
    builder.streams.sockets
        && catalog.entries().iter().any(|entry| entry.definition.lives())
        && catalog.entries().iter().all(|entry| *entry.name != SOCKET[1..])
}

/// What the OpenAPI document says about the application as a whole.
fn info(builder: &AppBuilder, catalog: &Catalog) -> openapi::Info {
    openapi::Info {
        events: tells_of_all(catalog),
        sockets: has_sockets(builder, catalog),
        title: builder.title.clone(),
        version: builder.version.clone(),
        description: builder.description.clone(),
        contact: builder.contact.clone(),
        license: builder.license.clone(),
        servers: builder.servers.clone(),
        prefix: builder.prefix.clone(),
        schemes: schemes(builder),
        authenticates: !builder.authenticators.is_empty(),
        explain: builder.explain.clone(),
        batches: builder.batch,
        by_caller: builder.document_by_caller,
    }
}

/// Leads a browser at the root to the documentation page. The location is relative, for an application that is nested under
/// a path.
async fn to_docs() -> (StatusCode, [(HeaderName, &'static str); 1]) {
    (StatusCode::TEMPORARY_REDIRECT, [(LOCATION, "docs")])
}

/// The routes that belong to no resource, and the fallback for every other path.
fn beside(boundary: &Arc<AppState>, prefix: &str, has_sockets: bool, mut others: Router) -> Router {
    if boundary.explain.is_some() {
        let asked = boundary.clone();
        others = others.route(EXPLAIN, post(move |request| async move { explained(&asked, request).await }));
    }
    if boundary.batch.is_some() {
        let asked = boundary.clone();
        let path = format!("{prefix}{BATCH}");
        others = others.route(&path, post(move |request| async move { batched(&asked, request).await }));
    }
    if tells_of_all(&boundary.engine.catalog) {
        let asked = boundary.clone();
        let path = format!("{prefix}{EVENTS}");
        others = others.route(&path, get(move |request| async move { events(&asked, request).await }));
    }
    if has_sockets {
        let asked = boundary.clone();
        // HTTP/2 opens a WebSocket by CONNECT (RFC 8441).
        let methods = MethodFilter::GET.or(MethodFilter::CONNECT);
        let answer = move |request| async move { socket(&asked, request).await };
        others = others.route(&format!("{prefix}{SOCKET}"), on(methods, answer));
    }
    others
        .fallback(refusal(boundary, Error::not_found))
        .method_not_allowed_fallback(refusal(boundary, Error::method_not_allowed))
}

/// A handler that responds to every request with the same problem.
fn refusal(
    boundary: &Arc<AppState>,
    error: fn() -> Error,
) -> impl Fn(Request) -> Ready<Response> + Clone + Send + Sync + 'static {
    let boundary = boundary.clone();
    move |request| {
        let context = Context::carried_by(&request);
        ready(respond(&error(), &boundary.problem_base, instance(&request), &context))
    }
}

/// The path as the client sent it, whatever this router is nested under.
fn instance(request: &Request) -> &str {
    request.extensions().get::<OriginalUri>().map_or(request.uri(), |original| &original.0).path()
}

/// The headers that a response depends on, for `Vary` (RFC 9110, 12.5.5).
fn depends_on(builder: &AppBuilder) -> HeaderValue {
    let mut names = vec![http::header::AUTHORIZATION, http::HeaderName::from_static("prefer")];
    names.extend(builder.authenticators.iter().flat_map(|authenticator| authenticator.headers()));
    names.extend(builder.tenancy.iter().filter_map(|tenancy| tenancy.header_name().cloned()));
    names.extend(builder.elevation.iter().map(|elevation| elevation.header_name().clone()));
    names.extend(builder.cors.iter().map(|_| http::header::ORIGIN));
    names.extend(builder.compression.then_some(http::header::ACCEPT_ENCODING));
    let mut names: Vec<_> = names.iter().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    names.dedup();
    HeaderValue::from_str(&names.join(", ")).unwrap_or(HeaderValue::from_static("*"))
}

/// The security schemes of the authenticators, each once.
fn schemes(builder: &AppBuilder) -> Vec<SecurityScheme> {
    let mut schemes: Vec<SecurityScheme> = Vec::new();
    for scheme in builder.authenticators.iter().flat_map(|authenticator| authenticator.security_schemes()) {
        match schemes.iter_mut().find(|known| known.name == scheme.name) {
            // Bearer tokens of different formats have no format in common.
            Some(known) if *known != scheme && known.name == "Bearer" => *known = SecurityScheme::bearer(""),
            Some(_) => {}
            None => schemes.push(scheme),
        }
    }
    if schemes.is_empty() {
        schemes.push(SecurityScheme::bearer(""));
    }
    schemes
}
