//! Builds an application from its declarations: link, create, check.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::Router;
use axum::routing::{MethodFilter, any};
use resourceful_contract::{Mismatch, StorageError};

use super::lifecycle::panic_message;
use super::mount::{has_event_stream, has_sockets, mount, name};
use super::{App, AppBuilder, AppPreset, health, migrate};
use crate::access::{AbortOnDrop, Rule};
use crate::audit::AuditTrails;
use crate::authz::compile_all;
use crate::cache::{ResponseCache, TagVersions};
use crate::catalog::{Catalog, Entry};
use crate::engine::{Contention, DigestKey, Engine, InFlightKeys};
#[cfg(feature = "webhooks")]
use crate::events::{Dispatcher, RegisteredSubscriber, WebhookSubscriber};
use crate::http::{BATCH_PATH, EVENTS_PATH, EXPLAIN_PATH, Path, SOCKET_PATH};
use crate::live::{Presence, follow_presence};
use crate::openapi;
use crate::outbox::Outbox;
use crate::query::{CursorKey, compile_list_parameters};
use crate::resource::{DefinitionErrors, Faults};
use crate::tables::Tables;

/// The minimum length of a secret, in bytes.
const MIN_SECRET_BYTES: usize = 32;

pub(super) async fn build(builder: AppBuilder) -> Result<App, DefinitionErrors> {
    let mut faults = Faults::of("app");
    let secret = secret(&builder, &mut faults);
    check_prefix(&builder.prefix, &mut faults);
    for (message, help) in builder.authenticators.iter().flat_map(|authenticator| authenticator.faults()) {
        faults.push(None, message, help);
    }
    let is_shared = builder.query_cache.is_shared();
    let new = || if is_shared { TagVersions::with_horizon() } else { TagVersions::default() };
    let tag_versions = is_cache_enabled(&builder).then(|| Arc::new(new()));
    let (catalog, mut found) = Catalog::link(&builder.resources, tag_versions.as_ref());
    found.extend(compile_all(&catalog));
    found.extend(compile_list_parameters(&catalog));
    if !found.is_empty() {
        return Err(DefinitionErrors::new(found).with(faults));
    }
    let merged = merge_routers(&builder, &catalog, &mut faults);
    let explain = builder.explain.as_ref().map(|permission| {
        Rule::compile_for_callers(permission).unwrap_or_else(|fault| {
            faults.push(None, fault, ".explain(…) with a rule about the caller: role(…), scope(…), check(…)");
            Rule::deny_all()
        })
    });
    faults.into_result()?;
    migrate::migrate(&builder, migrate::should_apply(builder.preset)).await?;
    prepare_tables(&catalog).await?;
    let cache = tag_versions
        .map(|tag_versions| Arc::new(ResponseCache::new(&builder.query_cache, tag_versions, name(&secret))));
    let presence = Arc::<Presence>::default();
    let following = subscribe_bus(&builder, cache.as_ref(), &presence, &secret).await?;
    let shared = BusState { following, cache, presence };
    let is_hooked =
        !builder.hooks.is_empty() || catalog.entries().iter().any(|entry| entry.definition.has_app_code());
    let (catalog, tables) = (Arc::new(catalog), Arc::new(Tables::new()));
    let outbox = Outbox::new(catalog.clone(), tables.clone(), &builder.prefix, schema_base(&builder.servers));
    let audit = AuditTrails::new(catalog.clone(), tables.clone());
    let engine = Arc::new_cyclic(|me| Engine {
        contention: Contention::default(),
        catalog,
        has_hooks: is_hooked,
        weak_self: me.clone(),
        cursor_key: CursorKey::derive(&secret),
        digest_key: DigestKey::derive(&secret),
        hooks: builder.hooks.clone(),
        tables,
        outbox: Arc::new(outbox),
        audit,
        hook_failures: Arc::default(),
        in_flight: InFlightKeys::default(),
    });
    #[cfg(feature = "webhooks")]
    let (builder, dispatcher) = dispatcher(builder, &engine)?;
    #[cfg_attr(not(feature = "webhooks"), expect(unused_mut, reason = "nothing is added without webhooks"))]
    let mut app = mount(builder, engine, merged, explain, shared, &secret);
    #[cfg(feature = "webhooks")]
    {
        app.dispatcher = dispatcher;
    }
    Ok(app)
}

/// The webhook dispatcher, where webhooks are configured. It subscribes to every event.
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
    let queue = WebhookSubscriber { engine: engine.clone(), dispatcher: dispatcher.clone() };
    builder.subscriptions.push(RegisteredSubscriber {
        pattern: "*".to_owned(),
        name: "resourceful.webhooks".into(),
        subscriber: Arc::new(queue),
        is_relay_local: true,
    });
    Ok((builder, Some(dispatcher)))
}

/// The application secret, from which the keys are derived for values that clients hold and must not forge.
fn secret(builder: &AppBuilder, faults: &mut Faults) -> Vec<u8> {
    match (&builder.secret, builder.preset) {
        (Some(secret), _) if secret.len() < MIN_SECRET_BYTES => {
            faults.push(
                None,
                format!("its secret has {} bytes; {MIN_SECRET_BYTES} are the least", secret.len()),
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

/// The base of schema URLs, where a server's URL is absolute.
fn schema_base(servers: &[String]) -> Option<String> {
    let server = servers.first().filter(|server| server.contains("://"))?;
    Some(format!("{}/openapi.json#/components/schemas/", server.trim_end_matches('/')))
}

fn check_prefix(prefix: &str, faults: &mut Faults) {
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

/// The application's own routes as one router. A path that they share with a resource would be ambiguous, so it is a
/// fault.
fn merge_routers(builder: &AppBuilder, catalog: &Catalog, faults: &mut Faults) -> Option<Router> {
    let taken = || any(|| std::future::ready(())).on(all_methods(), || std::future::ready(()));
    let mut paths = Router::new();
    let page = if builder.docs { openapi::DOCS_PATHS.as_slice() } else { &[] };
    for path in page.iter().chain(&health::PATHS).chain([&openapi::DOCUMENT_PATH, &EXPLAIN_PATH]) {
        paths = paths.route(path, taken());
    }
    if has_event_stream(catalog) {
        paths = paths.route(&format!("{}{EVENTS_PATH}", builder.prefix), taken());
    }
    if has_sockets(builder, catalog) {
        paths = paths.route(&format!("{}{SOCKET_PATH}", builder.prefix), taken());
    }
    let batch = format!("{}{BATCH_PATH}", builder.prefix);
    if builder.batch.is_some() {
        paths = paths.route(&batch, taken());
        if catalog.entries().iter().any(|entry| *entry.name == BATCH_PATH[1..]) {
            faults.push(None, "a resource has the path of batches", "another name, or no .batch(…)");
        }
    }
    let resources =
        catalog.entries().iter().filter(|entry| *entry.name != BATCH_PATH[1..] || builder.batch.is_none());
    for entry in resources {
        for path in Path::of(&entry.definition) {
            paths = paths.route(&path.template(&builder.prefix, &entry.definition), taken());
        }
    }
    let mut merged: Option<Router> = None;
    for router in &builder.merged {
        // An axum router reveals its routes only by a conflict when it is merged, and reports the conflict by a panic.
        let joined = std::panic::catch_unwind(AssertUnwindSafe(|| {
            paths = paths.clone().merge(router.clone());
            merged.take().unwrap_or_default().merge(router.clone())
        }));
        match joined {
            Ok(joined) => merged = Some(joined),
            Err(panic) => faults.push(
                None,
                format!("a merged router conflicts with the other routes: {}", panic_message(panic.as_ref())),
                "give its route another path, or the resource another name or .prefix(…)",
            ),
        }
    }
    merged
}

fn all_methods() -> MethodFilter {
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

/// State that follows messages of other nodes on the bus.
pub(super) struct BusState {
    pub(super) following: Vec<AbortOnDrop>,
    pub(super) cache: Option<Arc<ResponseCache>>,
    pub(super) presence: Arc<Presence>,
}

/// Listens for messages of other nodes.
async fn subscribe_bus(
    builder: &AppBuilder,
    cache: Option<&Arc<ResponseCache>>,
    presence: &Arc<Presence>,
    secret: &[u8],
) -> Result<Vec<AbortOnDrop>, DefinitionErrors> {
    let Some(bus) = &builder.bus else { return Ok(Vec::new()) };
    let subscribed = async {
        let mut following = Vec::new();
        for grants in &builder.grants {
            following.push(grants.subscribe(bus).await?);
        }
        if let Some(cache) = cache {
            following.extend(cache.start_invalidation(bus).await?);
        }
        if builder.resources.iter().any(|resource| resource.0.presence) {
            let interval = builder.streams.heartbeat / 3;
            following.push(follow_presence(presence, bus, &name(secret), interval).await?);
        }
        Ok::<_, StorageError>(following)
    };
    subscribed.await.map_err(|error| {
        let mut faults = Faults::of("app");
        let help = "see that the bus is there and can be reached";
        faults.push_failure(&error, format!("its bus ({}) failed: {error}", bus.name()), help);
        faults.into_errors()
    })
}

/// Whether any responses are cached.
fn is_cache_enabled(builder: &AppBuilder) -> bool {
    builder.query_cache.is_on && builder.resources.iter().any(|resource| resource.0.cache.is_some())
}

/// Creates tables where requested, and compares every declaration with its table.
async fn prepare_tables(catalog: &Catalog) -> Result<(), DefinitionErrors> {
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
                    report_mismatch(entry, mismatch, &mut faults);
                }
            }
            Err(error) => faults.push_failure(
                &error,
                format!("its storage failed: {error}"),
                "see that the database is there and can be reached",
            ),
        }
        found.extend(faults.into_faults());
    }
    if found.is_empty() { Ok(()) } else { Err(DefinitionErrors::new(found)) }
}

/// Reports a difference between a declaration and its table: a fault, or a log line where everything works nevertheless.
fn report_mismatch(entry: &Entry, mismatch: Mismatch, faults: &mut Faults) {
    let Mismatch { field, message, help, is_warning, .. } = mismatch;
    let table = &entry.schema.table;
    if is_warning {
        let (resource, field) = (entry.definition.name(), field.as_deref().unwrap_or_default());
        let help = help.as_deref().unwrap_or_default();
        tracing::warn!(resource, table, field, help, "{message}");
        return;
    }
    let help = help.unwrap_or_else(|| {
        format!("change the table `{table}`, or the declaration (.column(…) binds another name)")
    });
    faults.push(field.as_deref(), message, help);
}
