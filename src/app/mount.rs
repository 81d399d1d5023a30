//! Assembles a running application from what was built: the state that handlers share, the routes, the service.

use std::future::{Ready, ready};
use std::sync::{Arc, Weak};

use axum::Router;
use axum::extract::{DefaultBodyLimit, OriginalUri, Request};
use axum::response::Response;
use axum::routing::{MethodFilter, get, on, post};
use http::header::LOCATION;
use http::{HeaderName, HeaderValue, StatusCode};

use super::build::BusState;
use super::lifecycle::Lifecycle;
use super::middleware::AppService;
use super::{App, AppBuilder, AppPreset, Development, health};
use crate::access::{GrantsWatcher, PublicOrigins, Rule, SecurityScheme};
use crate::catalog::Catalog;
use crate::engine::Engine;
use crate::error::Error;
use crate::events::{Relay, Workers};
use crate::http::{
    AppState, BATCH_PATH, BodyLimit, BodyMemory, Challenge, Context, EVENTS_PATH, EXPLAIN_PATH, Origins,
    Routes, SOCKET_PATH,
};
use crate::http::{batch as batched, events, explain as explained, respond, socket};
use crate::live::{Live, Presence};
use crate::openapi;
use crate::outbox::{CHECK_INTERVAL, PublishNotifier, Tail};

/// Assembles the application and its service.
pub(super) fn mount(
    builder: AppBuilder,
    engine: Arc<Engine>,
    merged: Option<Router>,
    explain: Option<Rule>,
    shared: BusState,
    secret: &[u8],
) -> App {
    let info = info(&builder, &engine.catalog);
    let has_sockets = info.has_sockets;
    let (state, builder) = build_state(builder, engine, explain, shared);
    let document = openapi::Document::of(state.clone(), info);
    let lifecycle = Arc::new(Lifecycle::new(
        builder.deadline,
        builder.concurrency,
        builder.preset == AppPreset::Production,
        builder.drain_delay,
        builder.shutdown_grace,
    ));
    let development = Development {
        has_banner: builder.preset == AppPreset::Development,
        has_docs: builder.docs && cfg!(feature = "docs"),
    };
    let router = openapi::routes(document, builder.docs);
    let router = match development {
        Development { has_banner: true, has_docs: true } => router.route("/", get(redirect_to_docs)),
        _ => router,
    };
    let router = add_app_routes(&state, &builder.prefix, has_sockets, router);
    let routes = Routes::new(&state, &builder.prefix, router);
    let merged = merged.map(|merged| {
        merged
            .layer(DefaultBodyLimit::max(state.body_limit.bytes))
            .fallback_service(routes.clone())
            .method_not_allowed_fallback(problem_handler(&state, Error::method_not_allowed))
    });
    let health = health::routes(&state, &lifecycle);
    let limits = Arc::new(builder.connections);
    let (cors, compression) = (builder.cors, builder.compression);
    let service =
        AppService::new(health, lifecycle.clone(), cors, compression, merged, routes, state.clone());
    let (engine, subscriptions) = (&state.engine, Arc::<[_]>::from(builder.subscriptions));
    let name = name(secret);
    let notifier = builder.bus.clone().map(|bus| Arc::new(PublishNotifier::new(bus, &name)));
    let workers =
        builder.bus.map(|bus| Arc::new(Workers::new(engine.clone(), subscriptions.clone(), bus, &name)));
    let relay = Arc::new(Relay::new(engine.clone(), subscriptions, workers));
    let tails = tails(&state);
    App {
        service,
        state,
        lifecycle,
        limits,
        relay,
        tails,
        notifier,
        development,
        #[cfg(feature = "webhooks")]
        dispatcher: None,
    }
}

/// The state that all handlers share, and what is left of the builder.
fn build_state(
    mut builder: AppBuilder,
    engine: Arc<Engine>,
    explain: Option<Rule>,
    shared: BusState,
) -> (Arc<AppState>, AppBuilder) {
    let BusState { following, cache, presence } = shared;
    let live = build_live(&engine, &builder, presence);
    let state = AppState {
        engine,
        live,
        vary: vary_header(&builder),
        challenge: Challenge::of(builder.authenticators.iter().map(|authenticator| authenticator.scheme())),
        origins: Origins::new(builder.cors.clone()),
        authenticators: std::mem::take(&mut builder.authenticators),
        roles: std::mem::take(&mut builder.roles),
        tenancy: builder.tenancy.take(),
        elevation: builder.elevation.take(),
        cache,
        body_limit: BodyLimit { bytes: builder.body_limit, idle_timeout: builder.connections.body_timeout },
        body_memory: BodyMemory::new(builder.connections.max_body_bytes),
        prefix: builder.prefix.clone(),
        public_origins: PublicOrigins::of(&builder.servers),
        base_path: builder.servers.first().and_then(|server| base_path(server)),
        problem_base: std::mem::take(&mut builder.problem_base),
        explain_rule: explain,
        max_batch_operations: builder.batch,
        following,
        #[cfg(feature = "testing")]
        explain_permission: builder.explain.take(),
        #[cfg(feature = "testing")]
        document_by_caller: builder.document_by_caller,
    };
    (Arc::new(state), builder)
}

/// The path of a server's URL; `None` for a URL at the root.
fn base_path(server: &str) -> Option<String> {
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
fn tails(state: &AppState) -> Vec<Arc<Tail>> {
    let live = state.live.iter().map(|live| live.tail.clone());
    let watch = state.engine.catalog.write_observer.clone();
    live.chain(watch.map(|watch| Arc::new(Tail::new(state.engine.outbox.clone(), watch, CHECK_INTERVAL))))
        .collect()
}

/// Streams and presence, where a resource has either.
fn build_live(engine: &Arc<Engine>, builder: &AppBuilder, presence: Arc<Presence>) -> Option<Arc<Live>> {
    if !engine.catalog.entries().iter().any(|entry| entry.definition.is_live()) {
        return None;
    }
    let live = Arc::new(Live::new(engine, builder.streams.clone(), presence));
    for grants in &builder.grants {
        let watcher: Weak<dyn GrantsWatcher> = Arc::<Live>::downgrade(&live);
        grants.add_watcher(watcher);
    }
    Some(live)
}

/// Whether there is a stream of all changes: where a resource has streams, and none has the stream's path.
pub(super) fn has_event_stream(catalog: &Catalog) -> bool {
    catalog.entries().iter().any(|entry| entry.definition.has_streams())
        && catalog.entries().iter().all(|entry| *entry.name != EVENTS_PATH[1..])
}

/// Whether there is a socket endpoint: where something can be subscribed to, and no resource has its path.
pub(super) fn has_sockets(builder: &AppBuilder, catalog: &Catalog) -> bool {
    builder.streams.sockets
        && catalog.entries().iter().any(|entry| entry.definition.is_live())
        && catalog.entries().iter().all(|entry| *entry.name != SOCKET_PATH[1..])
}

/// What the OpenAPI document says about the application as a whole.
fn info(builder: &AppBuilder, catalog: &Catalog) -> openapi::Info {
    openapi::Info {
        has_events: has_event_stream(catalog),
        has_sockets: has_sockets(builder, catalog),
        title: builder.title.clone(),
        version: builder.version.clone(),
        description: builder.description.clone(),
        contact: builder.contact.clone(),
        license: builder.license.clone(),
        servers: builder.servers.clone(),
        prefix: builder.prefix.clone(),
        schemes: schemes(builder),
        has_authenticators: !builder.authenticators.is_empty(),
        explain: builder.explain.clone(),
        max_batch: builder.batch,
        is_per_caller: builder.document_by_caller,
    }
}

/// Leads a browser at the root to the documentation page. The location is relative, for an application that is nested under
/// a path.
async fn redirect_to_docs() -> (StatusCode, [(HeaderName, &'static str); 1]) {
    (StatusCode::TEMPORARY_REDIRECT, [(LOCATION, "docs")])
}

/// The routes that belong to no resource, and the fallback for every other path.
fn add_app_routes(state: &Arc<AppState>, prefix: &str, has_sockets: bool, mut router: Router) -> Router {
    if state.explain_rule.is_some() {
        let state = state.clone();
        router =
            router.route(EXPLAIN_PATH, post(move |request| async move { explained(&state, request).await }));
    }
    if state.max_batch_operations.is_some() {
        let state = state.clone();
        let path = format!("{prefix}{BATCH_PATH}");
        router = router.route(&path, post(move |request| async move { batched(&state, request).await }));
    }
    if has_event_stream(&state.engine.catalog) {
        let state = state.clone();
        let path = format!("{prefix}{EVENTS_PATH}");
        router = router.route(&path, get(move |request| async move { events(&state, request).await }));
    }
    if has_sockets {
        let state = state.clone();
        // HTTP/2 opens a WebSocket by CONNECT (RFC 8441).
        let methods = MethodFilter::GET.or(MethodFilter::CONNECT);
        let handler = move |request| async move { socket(&state, request).await };
        router = router.route(&format!("{prefix}{SOCKET_PATH}"), on(methods, handler));
    }
    router
        .fallback(problem_handler(state, Error::not_found))
        .method_not_allowed_fallback(problem_handler(state, Error::method_not_allowed))
}

/// A handler that responds to every request with the same problem.
fn problem_handler(
    state: &Arc<AppState>,
    error: fn() -> Error,
) -> impl Fn(Request) -> Ready<Response> + Clone + Send + Sync + 'static {
    let state = state.clone();
    move |request| {
        let context = Context::of_request(&request);
        ready(respond(&error(), &state.problem_base, request_path(&request), &context))
    }
}

/// The path as the client sent it, whatever this router is nested under.
fn request_path(request: &Request) -> &str {
    request.extensions().get::<OriginalUri>().map_or(request.uri(), |original| &original.0).path()
}

/// The headers that a response depends on, for `Vary` (RFC 9110, 12.5.5).
fn vary_header(builder: &AppBuilder) -> HeaderValue {
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
