//! From declarations to a running router: link, create, check, mount.

use std::collections::HashSet;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::response::Response;
use axum::routing::{MethodFilter, any, get, on, post};
use http::HeaderValue;
use resourceful_contract::StorageError;
use std::future::{Ready, ready};
use std::panic::AssertUnwindSafe;
use tokio::sync::watch;

use super::front::Front;
use super::lifecycle::{Lifecycle, panic_message};
use super::{App, AppBuilder, AppPreset, health, migrate};
use crate::access::{Following, Rule, SecurityScheme};
use crate::cache::{Answers, Generations};
use crate::engine::{Catalog, DigestKey, Engine, InFlight};
use crate::error::Error;
#[cfg(feature = "webhooks")]
use crate::events::{Dispatcher, Queue, Subscription};
use crate::events::{News, Relay, Tail, Workers};
use crate::http::{BATCH, batch as batched};
use crate::http::{Boundary, Context, EVENTS, EXPLAIN, Origins, Path, Routes, SOCKET};
use crate::http::{events, explain as explained, respond, socket};
use crate::live::Live;
use crate::openapi;
use crate::query::CursorKey;
use crate::resource::{DefinitionErrors, Faults};
use crate::tables::Tables;

/// The shortest secret that is one.
const MIN_SECRET: usize = 32;

pub(super) async fn build(builder: AppBuilder) -> Result<App, DefinitionErrors> {
    let mut faults = Faults::of("app");
    let secret = secret(&builder, &mut faults);
    prefix(&builder.prefix, &mut faults);
    for (message, mend) in builder.authenticators.iter().flat_map(|authenticator| authenticator.faults()) {
        faults.push(None, message, mend);
    }
    let generations = remembers(&builder).then(Arc::<Generations>::default);
    let catalog = match Catalog::link(&builder.resources, generations.as_ref()) {
        Ok(catalog) => catalog,
        Err(errors) => return Err(errors.with(faults)),
    };
    let merged = merged(&builder, &catalog, &mut faults);
    let explain = builder.explain.as_ref().map(|permission| {
        Rule::of_callers(permission).unwrap_or_else(|fault| {
            faults.push(None, fault, ".explain(…) with a rule about the caller: role(…), scope(…), check(…)");
            Rule::nobody()
        })
    });
    faults.into_result()?;
    migrate::migrate(&builder, migrate::applies(builder.preset)).await?;
    prepare(&catalog).await?;
    let answers = generations.map(|generations| Arc::new(Answers::new(&builder.query_cache, generations)));
    let following = follow(&builder, answers.as_ref()).await?;
    let is_hooked =
        !builder.hooks.is_empty() || catalog.entries().iter().any(|entry| entry.definition.runs_code());
    let engine = Arc::new_cyclic(|me| Engine {
        catalog,
        is_hooked,
        me: me.clone(),
        cursors: CursorKey::derive(&secret),
        names: DigestKey::derive(&secret),
        hooks: builder.hooks.clone(),
        tables: Arc::new(Tables::new()),
        told: watch::Sender::new(0),
        published: watch::Sender::new(0),
        hook_failures: Arc::default(),
        in_flight: InFlight::default(),
        prefix: builder.prefix.clone(),
    });
    #[cfg(feature = "webhooks")]
    let (builder, dispatcher) = dispatcher(builder, &engine)?;
    #[cfg_attr(not(feature = "webhooks"), expect(unused_mut, reason = "nothing is added without webhooks"))]
    let mut app = mount(builder, engine, merged, explain, (following, answers), &secret);
    #[cfg(feature = "webhooks")]
    {
        app.dispatcher = dispatcher;
    }
    Ok(app)
}

/// What sends webhooks, where there are some, and has itself told of every event.
#[cfg(feature = "webhooks")]
fn dispatcher(
    mut builder: AppBuilder,
    engine: &Arc<Engine>,
) -> Result<(AppBuilder, Option<Arc<Dispatcher>>), DefinitionErrors> {
    let Some(webhooks) = builder.webhooks.take() else { return Ok((builder, None)) };
    let dispatcher = match Dispatcher::new(engine.clone(), webhooks, builder.roles.clone()) {
        Ok(dispatcher) => Arc::new(dispatcher),
        Err(error) => {
            let mut faults = Faults::of("app");
            faults.push(None, format!("TLS cannot be set up: {error}"), "see what the message says");
            return Err(faults.into_errors());
        }
    };
    let queue = Queue { engine: engine.clone(), dispatcher: dispatcher.clone() };
    builder.subscriptions.push(Subscription {
        pattern: "*".to_owned(),
        name: "resourceful.webhooks".into(),
        subscriber: Arc::new(queue),
        stays: true,
    });
    Ok((builder, Some(dispatcher)))
}

/// What everything is derived from that clients hold and must not make themselves.
fn secret(builder: &AppBuilder, faults: &mut Faults) -> Vec<u8> {
    match (&builder.secret, builder.preset) {
        (Some(secret), _) if secret.len() < MIN_SECRET => {
            faults.push(
                None,
                format!("its secret has {} bytes; {MIN_SECRET} are the least", secret.len()),
                ".secret(…) with the output of `openssl rand -base64 32`",
            );
        }
        (Some(secret), _) => return secret.clone(),
        (None, AppPreset::Production) => faults.push(
            None,
            "it has no secret, and in production there is no default",
            ".secret(std::env::var(\"SECRET\")?) with the output of `openssl rand -base64 32`",
        ),
        (None, AppPreset::Testing) => return b"answers of tests repeat".to_vec(),
        (None, AppPreset::Development) => {}
    }
    let random = [uuid::Uuid::new_v4(), uuid::Uuid::new_v4(), uuid::Uuid::new_v4()];
    random.map(uuid::Uuid::into_bytes).concat()
}

fn prefix(prefix: &str, faults: &mut Faults) {
    let legal = |character: char| character.is_ascii_alphanumeric() || "/-_.~".contains(character);
    let well_formed = prefix.is_empty()
        || (prefix.starts_with('/')
            && !prefix.ends_with('/')
            && !prefix.contains("//")
            && prefix.chars().all(legal));
    if !well_formed {
        faults.push(None, format!("`{prefix}` cannot be a prefix"), ".prefix(\"/v1\")");
    }
}

/// The user's own routes as one router. A path that they share with a resource would belong to nobody for sure.
fn merged(builder: &AppBuilder, catalog: &Catalog, faults: &mut Faults) -> Option<Router> {
    let taken = || any(|| std::future::ready(())).on(every_method(), || std::future::ready(()));
    let mut paths = Router::new();
    let page = if builder.docs { openapi::PAGE.as_slice() } else { &[] };
    for path in page.iter().chain(&health::PATHS).chain([&openapi::DOCUMENT, &EXPLAIN]) {
        paths = paths.route(path, taken());
    }
    if tells_of_all(catalog) {
        paths = paths.route(&format!("{}{EVENTS}", builder.prefix), taken());
    }
    if has_sockets(builder, catalog) {
        paths = paths.route(&format!("{}{SOCKET}", builder.prefix), taken());
    }
    let batch = format!("{}{BATCH}", builder.prefix);
    if builder.batch.is_some() {
        paths = paths.route(&batch, taken());
        if catalog.entries().iter().any(|entry| *entry.name == BATCH[1..]) {
            faults.push(None, "a resource has the path of batches", "another name, or no .batch(…)");
        }
    }
    let resources =
        catalog.entries().iter().filter(|entry| *entry.name != BATCH[1..] || builder.batch.is_none());
    for entry in resources {
        for path in Path::of(&entry.definition) {
            paths = paths.route(&path.template(&builder.prefix, &entry.definition), taken());
        }
    }
    let mut merged: Option<Router> = None;
    for router in &builder.merged {
        // An axum router says what it has by refusing to be merged, and refuses by a panic.
        let joined = std::panic::catch_unwind(AssertUnwindSafe(|| {
            paths = paths.clone().merge(router.clone());
            merged.take().unwrap_or_default().merge(router.clone())
        }));
        match joined {
            Ok(joined) => merged = Some(joined),
            Err(panic) => faults.push(
                None,
                format!("a merged router cannot stand beside the rest: {}", panic_message(panic.as_ref())),
                "give its route another path, or the resource another name or .prefix(…)",
            ),
        }
    }
    merged
}

fn every_method() -> MethodFilter {
    [
        MethodFilter::DELETE,
        MethodFilter::HEAD,
        MethodFilter::OPTIONS,
        MethodFilter::PATCH,
        MethodFilter::POST,
        MethodFilter::PUT,
        MethodFilter::TRACE,
        MethodFilter::CONNECT,
    ]
    .into_iter()
    .fold(MethodFilter::GET, MethodFilter::or)
}

/// Listens to what other nodes change.
async fn follow(
    builder: &AppBuilder,
    answers: Option<&Arc<Answers>>,
) -> Result<Vec<Following>, DefinitionErrors> {
    let Some(bus) = &builder.bus else { return Ok(Vec::new()) };
    let followed = async {
        let mut following = Vec::new();
        for grants in &builder.grants {
            following.push(grants.follow(bus).await?);
        }
        if let Some(answers) = answers {
            following.extend(answers.follow(bus).await?);
        }
        Ok::<_, StorageError>(following)
    };
    followed.await.map_err(|error| {
        let mut faults = Faults::of("app");
        let mend = "see that the bus is there and can be reached";
        faults.push(None, format!("its bus ({}) failed: {error}", bus.name()), mend);
        faults.into_errors()
    })
}

/// Whether any answers are remembered.
fn remembers(builder: &AppBuilder) -> bool {
    builder.query_cache.is_on && builder.resources.iter().any(|resource| resource.0.cache.is_some())
}

/// Creates tables where that was asked for, and compares every declaration with its table.
async fn prepare(catalog: &Catalog) -> Result<(), DefinitionErrors> {
    let mut found = Vec::new();
    for position in catalog.creation_order() {
        let entry = catalog.entry(position);
        let mut faults = Faults::of(entry.definition.name());
        let created = if entry.definition.table.creates() {
            entry.storage.create_table_if_missing(&entry.schema).await
        } else {
            Ok(())
        };
        let checked = match created {
            Ok(()) => entry.storage.check(&entry.schema).await,
            Err(error) => Err(error),
        };
        match checked {
            Ok(mismatches) => {
                for mismatch in mismatches {
                    let table = &entry.schema.table;
                    faults.push(
                        mismatch.field.as_deref(),
                        mismatch.message,
                        format!(
                            "change the table `{table}`, or the declaration (.column(…) binds another name)"
                        ),
                    );
                }
            }
            Err(error) => faults.push(
                None,
                format!("its storage failed: {error}"),
                "see that the database is there and can be reached",
            ),
        }
        found.extend(faults.into_found());
    }
    if found.is_empty() { Ok(()) } else { Err(DefinitionErrors::new(found)) }
}

fn mount(
    builder: AppBuilder,
    engine: Arc<Engine>,
    merged: Option<Router>,
    explain: Option<Rule>,
    (following, answers): (Vec<Following>, Option<Arc<Answers>>),
    secret: &[u8],
) -> App {
    let info = info(&builder, &engine.catalog);
    let sockets = info.sockets;
    let live = live(&engine, &builder);
    let boundary = Arc::new(Boundary {
        engine,
        live,
        depends_on: depends_on(&builder),
        challenge: challenge(&builder),
        origins: Origins::new(builder.cors.clone()),
        authenticators: builder.authenticators,
        roles: builder.roles,
        tenancy: builder.tenancy,
        elevation: builder.elevation,
        answers,
        body_limit: builder.body_limit,
        #[cfg(feature = "testing")]
        prefix: builder.prefix.clone(),
        problem_base: builder.problem_base,
        explain,
        batch: builder.batch,
        following,
        #[cfg(feature = "testing")]
        explained_to: builder.explain,
        #[cfg(feature = "testing")]
        document_by_caller: builder.document_by_caller,
    });
    let document = openapi::Document::of(boundary.clone(), info);
    let lifecycle = Arc::new(Lifecycle::new(
        &boundary,
        builder.deadline,
        builder.concurrency,
        builder.preset == AppPreset::Production,
        builder.drain_delay,
        builder.shutdown_grace,
    ));
    let mut others = openapi::routes(document, builder.docs);
    if sockets {
        let asked = boundary.clone();
        // HTTP/2 opens one by CONNECT (RFC 8441).
        let methods = MethodFilter::GET.or(MethodFilter::CONNECT);
        let answer = move |request| async move { socket(&asked, request).await };
        others = others.route(&format!("{}{SOCKET}", builder.prefix), on(methods, answer));
    }
    let others = beside(&boundary, &builder.prefix, others);
    let routes = Routes::new(&boundary, &builder.prefix, others);
    let merged = merged.map(|merged| {
        merged
            .layer(DefaultBodyLimit::max(boundary.body_limit))
            .fallback_service(routes.clone())
            .method_not_allowed_fallback(refusal(&boundary, Error::method_not_allowed))
    });
    let health = health::routes(&boundary, &lifecycle);
    let front = Front::new(health, lifecycle.clone(), builder.cors, builder.compression, merged, routes);
    let (engine, subscriptions) = (&boundary.engine, Arc::<[_]>::from(builder.subscriptions));
    let name = name(secret);
    let news = builder.bus.clone().map(|bus| Arc::new(News::new(bus, &name)));
    let workers =
        builder.bus.map(|bus| Arc::new(Workers::new(engine.clone(), subscriptions.clone(), bus, &name)));
    let relay = Arc::new(Relay::new(engine.clone(), subscriptions, workers));
    let tails = tails(&boundary);
    App {
        front,
        boundary,
        lifecycle,
        relay,
        tails,
        news,
        #[cfg(feature = "webhooks")]
        dispatcher: None,
    }
}

/// What the nodes of an application call it among others: only they have its secret.
fn name(secret: &[u8]) -> String {
    let name = blake3::derive_key("resourceful 2026-11 names of applications", secret);
    blake3::Hash::from_bytes(name).to_hex()[..32].to_owned()
}

/// Who follows what is published.
fn tails(boundary: &Boundary) -> Vec<Arc<Tail>> {
    let live = boundary.live.iter().map(|live| live.tail.clone());
    let watch = boundary.engine.catalog.watch.clone();
    live.chain(watch.map(|watch| Arc::new(Tail::new(boundary.engine.clone(), watch)))).collect()
}

/// Who waits for changes, where a resource tells of them.
fn live(engine: &Arc<Engine>, builder: &AppBuilder) -> Option<Arc<Live>> {
    if !engine.catalog.entries().iter().any(|entry| entry.definition.streams()) {
        return None;
    }
    let live = Arc::new(Live::new(engine, builder.streams.clone()));
    for grants in &builder.grants {
        grants.tell(&live.rights);
    }
    Some(live)
}

/// Whether there is a stream of all changes: where no resource has its path.
fn tells_of_all(catalog: &Catalog) -> bool {
    catalog.entries().iter().any(|entry| entry.definition.streams())
        && catalog.entries().iter().all(|entry| *entry.name != EVENTS[1..])
}

/// Whether there is a socket: where something can be followed, and no resource has its path.
fn has_sockets(builder: &AppBuilder, catalog: &Catalog) -> bool {
    builder.streams.sockets
        && catalog.entries().iter().any(|entry| entry.definition.streams())
        && catalog.entries().iter().all(|entry| *entry.name != SOCKET[1..])
}

/// What the document says of the application as a whole.
fn info(builder: &AppBuilder, catalog: &Catalog) -> openapi::Info {
    openapi::Info {
        events: tells_of_all(catalog),
        sockets: has_sockets(builder, catalog),
        title: builder.title.clone(),
        version: builder.version.clone(),
        description: builder.description.clone(),
        servers: builder.servers.clone(),
        prefix: builder.prefix.clone(),
        schemes: schemes(builder),
        authenticates: !builder.authenticators.is_empty(),
        explain: builder.explain.clone(),
        batches: builder.batch.is_some(),
        by_caller: builder.document_by_caller,
    }
}

/// The paths that are no resource's, and what every other path is answered with.
fn beside(boundary: &Arc<Boundary>, prefix: &str, mut others: Router) -> Router {
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
    others
        .fallback(refusal(boundary, Error::not_found))
        .method_not_allowed_fallback(refusal(boundary, Error::method_not_allowed))
}

/// A handler that answers every request with the same problem.
fn refusal(
    boundary: &Arc<Boundary>,
    error: fn() -> Error,
) -> impl Fn(Request) -> Ready<Response> + Clone + Send + Sync + 'static {
    let boundary = boundary.clone();
    move |request| {
        let context = Context::carried_by(&request);
        ready(respond(&error(), &boundary.problem_base, request.uri().path(), &context))
    }
}

/// The headers that an answer depends on, for `Vary` (RFC 9110, 12.5.5).
fn depends_on(builder: &AppBuilder) -> HeaderValue {
    let mut names = vec![http::header::AUTHORIZATION, http::HeaderName::from_static("prefer")];
    names.extend(builder.authenticators.iter().flat_map(|authenticator| authenticator.headers()));
    names.extend(builder.tenancy.iter().filter_map(|tenancy| tenancy.header_name().cloned()));
    names.extend(builder.elevation.iter().map(|elevation| elevation.header_name().clone()));
    names.extend(builder.cors.iter().map(|_| http::header::ORIGIN));
    let mut names: Vec<_> = names.iter().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    names.dedup();
    HeaderValue::from_str(&names.join(", ")).unwrap_or(HeaderValue::from_static("*"))
}

/// What a 401 asks for.
fn challenge(builder: &AppBuilder) -> HeaderValue {
    let mut schemes: Vec<_> =
        builder.authenticators.iter().map(|authenticator| authenticator.scheme()).collect();
    let mut known = HashSet::new();
    schemes.retain(|scheme| known.insert(*scheme));
    HeaderValue::from_str(&schemes.join(", "))
        .ok()
        .filter(|challenge| !challenge.is_empty())
        .unwrap_or(HeaderValue::from_static("Bearer"))
}

/// How credentials are shown, each way once.
fn schemes(builder: &AppBuilder) -> Vec<SecurityScheme> {
    let mut schemes: Vec<SecurityScheme> = Vec::new();
    for scheme in builder.authenticators.iter().flat_map(|authenticator| authenticator.security_schemes()) {
        match schemes.iter_mut().find(|known| known.name == scheme.name) {
            // Tokens of more than one form have none in common.
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
