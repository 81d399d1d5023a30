//! The builder of an application.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use futures::future::BoxFuture;
use resourceful_contract::{Bus, Migration, Storage};
use tower_http::cors::{AllowHeaders, AllowOrigin, Any, CorsLayer};

use super::{App, AppPreset, BuildError, ConnectionLimits, build, migrate};
use crate::access::{Authenticator, CheckError, Elevation, Grants, Permission, RoleHierarchy, Tenancy};
use crate::cache::QueryCache;
use crate::error::Error;
#[cfg(feature = "webhooks")]
use crate::events::Webhooks;
use crate::events::{Delivery, FnSubscriber, RegisteredSubscriber, Subscriber};
use crate::live::Streams;
use crate::outbox::Event;
use crate::resource::{DefinitionErrors, Hook, PlacedHook, Resource};

/// Starts an application with the settings of a preset.
///
/// ```
/// use resourceful::prelude::*;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # #[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
/// # struct Note { id: Uuid, text: String }
/// let notes = define_resource::<Note>("notes")
///     .adapter(Memory::new().table("notes"))
///     .permissions(Permissions::all(anyone()))
///     .build()?;
/// let app = create_app(AppPreset::Development).resource(notes).build().await?;
/// let router: axum::Router = app.router();
/// # let _ = router; Ok(()) }
/// ```
pub fn create_app(preset: AppPreset) -> AppBuilder {
    let development = preset != AppPreset::Production;
    AppBuilder {
        preset,
        title: "API".to_owned(),
        version: "0.1.0".to_owned(),
        description: None,
        contact: None,
        license: None,
        servers: Vec::new(),
        resources: Vec::new(),
        subscriptions: Vec::new(),
        #[cfg(feature = "webhooks")]
        webhooks: None,
        batch: None,
        merged: Vec::new(),
        prefix: String::new(),
        authenticators: Vec::new(),
        roles: RoleHierarchy::new(),
        tenancy: None,
        elevation: None,
        migrations: Vec::new(),
        hooks: Vec::new(),
        bus: None,
        query_cache: QueryCache::new(),
        grants: Vec::new(),
        streams: Streams::new(),
        explain: None,
        document_by_caller: false,
        secret: None,
        body_limit: 1 << 20,
        deadline: Duration::from_secs(30),
        concurrency: 1_024,
        connections: ConnectionLimits::new(),
        compression: preset != AppPreset::Testing,
        cors: development.then(|| {
            CorsLayer::new()
                .allow_origin(Any)
                .allow_methods(Any)
                .allow_headers(AllowHeaders::mirror_request())
                .expose_headers(Any)
        }),
        docs: development,
        problem_base: crate::http::DEFAULT_BASE.to_owned(),
        drain_delay: if development { Duration::ZERO } else { Duration::from_secs(5) },
        shutdown_grace: Duration::from_secs(if development { 5 } else { 25 }),
    }
}

/// An application under construction. [`build`](Self::build) verifies it; [`serve`](Self::serve) verifies and runs it.
#[must_use]
pub struct AppBuilder {
    pub(super) preset: AppPreset,
    pub(super) title: String,
    pub(super) version: String,
    pub(super) description: Option<String>,
    pub(super) contact: Option<(String, String)>,
    pub(super) license: Option<(String, String)>,
    pub(super) servers: Vec<String>,
    pub(super) resources: Vec<Resource>,
    pub(super) subscriptions: Vec<RegisteredSubscriber>,
    #[cfg(feature = "webhooks")]
    pub(super) webhooks: Option<Webhooks>,
    pub(super) batch: Option<usize>,
    pub(super) merged: Vec<Router>,
    pub(super) prefix: String,
    pub(super) authenticators: Vec<Arc<dyn Authenticator>>,
    pub(super) roles: RoleHierarchy,
    pub(super) tenancy: Option<Tenancy>,
    pub(super) elevation: Option<Elevation>,
    pub(super) migrations: Vec<(Arc<dyn Storage>, Vec<Migration>)>,
    pub(super) hooks: Vec<PlacedHook>,
    pub(super) bus: Option<Arc<dyn Bus>>,
    pub(super) query_cache: QueryCache,
    pub(super) grants: Vec<Grants>,
    pub(super) streams: Streams,
    pub(super) explain: Option<Permission>,
    pub(super) document_by_caller: bool,
    pub(super) secret: Option<Vec<u8>>,
    pub(super) body_limit: usize,
    pub(super) deadline: Duration,
    pub(super) concurrency: usize,
    pub(super) connections: ConnectionLimits,
    pub(super) compression: bool,
    pub(super) cors: Option<CorsLayer>,
    pub(super) docs: bool,
    pub(super) problem_base: String,
    pub(super) drain_delay: Duration,
    pub(super) shutdown_grace: Duration,
}

impl AppBuilder {
    /// Adds a resource.
    pub fn resource(mut self, resource: Resource) -> Self {
        self.resources.push(resource);
        self
    }

    /// Adds axum routes of the application's own beside the resources, or below one of them (`/products/export`). The
    /// same limits apply to them, and they format their own error responses. A path that a resource or the application
    /// itself has already is a fault when the application is built.
    pub fn merge(mut self, router: Router) -> Self {
        self.merged.push(router);
        self
    }

    /// Puts every resource under a path prefix, such as `/v1`. The OpenAPI document, the docs page and the health checks
    /// stay at the root.
    pub fn prefix(mut self, path: impl Into<String>) -> Self {
        self.prefix = path.into();
        self
    }

    /// Names a URL under which clients reach the API, for the OpenAPI document (`servers`). Several may be named. Needed
    /// where the router is nested under a path or a proxy adds one, such as `https://shop.example/api`; without any,
    /// clients use the root of the host that served the document. `Location` and `Link` begin with the path of the first
    /// one, and pages of these origins are the application's own: they may use a browser's session, and open sockets.
    pub fn server(mut self, url: impl Into<String>) -> Self {
        self.servers.push(url.into());
        self
    }

    /// Adds an authenticator. Several are tried in order.
    pub fn authenticator(mut self, authenticator: impl Authenticator) -> Self {
        self.authenticators.push(Arc::new(authenticator));
        self
    }

    /// Sets which roles include which others, for every actor and on every path.
    pub fn roles(mut self, hierarchy: RoleHierarchy) -> Self {
        self.roles = hierarchy;
        self
    }

    /// Lets requests name their tenant. Without it, only a credential can.
    pub fn tenancy(mut self, tenancy: Tenancy) -> Self {
        self.tenancy = Some(tenancy);
        self
    }

    /// Lets some actors elevate their rights for a request. Without it, only a credential can grant elevated rights.
    pub fn elevation(mut self, elevation: Elevation) -> Self {
        self.elevation = Some(elevation);
        self
    }

    /// Runs a hook around every change of every resource, before the resource's own.
    pub fn hook(mut self, hook: impl Hook) -> Self {
        self.hooks.push(PlacedHook::for_all(hook));
        self
    }

    /// Adds `POST /batch`, by which callers change several resources of one database in one commit, at most this many
    /// items at once: each change has the same requirements as by itself, and may refer to those before it.
    ///
    /// ```
    /// use resourceful::prelude::*;
    ///
    /// // {"operations": [
    /// //   {"operation": "create", "resource": "orders", "body": {"note": "…"}},
    /// //   {"operation": "create", "resource": "order_lines", "body": {"order_id": {"$ref": "0/id"}, "quantity": 1}}]}
    /// # let _ =
    /// create_app(AppPreset::Testing).batch(100)
    /// # ;
    /// ```
    pub fn batch(mut self, operations: usize) -> Self {
        self.batch = Some(operations.max(1));
        self
    }

    /// Subscribes a function to change events: to every event whose type matches this pattern, such as `orders.created`,
    /// `orders.*` or `*`. It runs outside of requests, after the commit, at least once for each event; where it fails,
    /// the event is delivered again later. See [`Subscriber`].
    ///
    /// ```
    /// use resourceful::prelude::*;
    ///
    /// # let _ =
    /// create_app(AppPreset::Testing).on("orders.*", async |event, _| {
    ///     println!("{} {}", event.event_type, event.subject);
    ///     Ok(())
    /// })
    /// # ;
    /// ```
    pub fn on<F, T>(self, pattern: impl Into<String>, handler: F) -> Self
    where
        F: Fn(Event, Delivery) -> T + Send + Sync + 'static,
        T: Future<Output = Result<(), CheckError>> + Send + 'static,
    {
        let pattern = pattern.into();
        let same = self.subscriptions.iter().filter(|one| one.pattern == pattern).count();
        let name = if same == 0 { pattern.clone() } else { format!("{pattern} {}", same + 1) };
        self.subscribe(name, pattern, FnSubscriber(handler))
    }

    /// Adds a subscriber to change events, under a name that stays the same from one version of the application to the
    /// next.
    pub fn subscribe(
        mut self,
        name: impl Into<String>,
        pattern: impl Into<String>,
        subscriber: impl Subscriber,
    ) -> Self {
        let (name, pattern) = (name.into().into(), pattern.into());
        self.subscriptions.push(RegisteredSubscriber {
            pattern,
            name,
            subscriber: Arc::new(subscriber),
            is_relay_local: false,
        });
        self
    }

    /// Lets users of the API register endpoints that events are sent to. See [`Webhooks`].
    #[cfg(feature = "webhooks")]
    pub fn webhooks(mut self, webhooks: Webhooks) -> Self {
        self.webhooks = Some(webhooks);
        self
    }

    /// Adds the migrations that bring a database to the schema that the application needs. They run in the order of their
    /// numbers, once each, under a lock of the database, so that several nodes may start at once: in development and
    /// tests when the application is built; in production nothing is applied automatically, and an application whose
    /// database lacks a migration does not build. Start it once with `RESOURCEFUL_MIGRATE=1`, or call
    /// [`migrate`](Self::migrate).
    ///
    /// ```
    /// use resourceful::prelude::*;
    /// use resourceful::adapter::Migration;
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # #[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
    /// # struct Note { id: i64, text: String }
    /// let database = Sql::connect("sqlite::memory:").await?;
    /// let notes = define_resource::<Note>("notes")
    ///     .adapter(database.table("notes"))
    ///     .permissions(Permissions::all(anyone()))
    ///     .build()?;
    /// let sql = "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL)"; // include_str!("…/0001_notes.sql")
    /// let app = create_app(AppPreset::Development)
    ///     .migrations(&database.storage(), [Migration::new("notes", 1, "notes", sql)])
    ///     .resource(notes)
    ///     .build()
    ///     .await?;
    /// # let _ = app; Ok(()) }
    /// ```
    pub fn migrations(
        mut self,
        storage: &Arc<dyn Storage>,
        migrations: impl IntoIterator<Item = Migration>,
    ) -> Self {
        self.migrations.push((storage.clone(), migrations.into_iter().collect()));
        self
    }

    /// The bus by which the nodes of this application notify each other of changes, and share the work of subscribers.
    /// Without it, a node knows of its own changes alone, and subscribers run where the outbox is relayed.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use resourceful::prelude::*;
    /// use resourceful::adapter::MemoryBus;
    ///
    /// # let _ =
    /// create_app(AppPreset::Testing).bus(Arc::new(MemoryBus::new())) // Redis::connect(url).await?.bus()
    /// # ;
    /// ```
    pub fn bus(mut self, bus: Arc<dyn Bus>) -> Self {
        self.bus = Some(bus);
        self
    }

    /// How the responses of resources that declare a [`Cache`](crate::cache::Cache) are cached; in memory by default, and
    /// [`QueryCache::off`] caches none.
    pub fn query_cache(mut self, settings: QueryCache) -> Self {
        self.query_cache = settings;
        self
    }

    /// Connects these grants to the bus, so that an invalidation on one node reaches the others.
    pub fn grants(mut self, grants: &Grants) -> Self {
        self.grants.push(grants.clone());
        self
    }

    /// How many streams may be open at once, and how they are kept open. See [`Streams`].
    pub fn streams(mut self, streams: Streams) -> Self {
        self.streams = streams;
        self
    }

    /// Lets these callers ask `POST /_explain` which rule grants or denies, for any actor and any row. Without it, no
    /// caller can. The response names rules, filters and rows that callers must not learn of: it is for operators.
    ///
    /// ```
    /// use resourceful::prelude::*;
    ///
    /// // curl … -d '{"resource": "orders", "operation": "read", "id": "…", "actor": {"id": "ada", "tenant": "acme"}}'
    /// # let _ =
    /// create_app(AppPreset::Testing).explain(role("operator"))
    /// # ;
    /// ```
    pub fn explain(mut self, permission: Permission) -> Self {
        self.explain = Some(permission);
        self
    }

    /// Whether `/openapi.json` describes what the caller may see and do: without fields that are hidden from the caller,
    /// and without operations that the caller may never use. Off by default: every caller gets the same document, which
    /// names everything that is declared.
    pub fn document_by_caller(mut self, by_caller: bool) -> Self {
        self.document_by_caller = by_caller;
        self
    }

    /// The secret for the encryption of cursors and for the keyed digests in ETags: at least 32 bytes, the same on every
    /// node, or values from one node are refused by the others. Required in production; generated at start in
    /// development.
    pub fn secret(mut self, secret: impl AsRef<[u8]>) -> Self {
        self.secret = Some(secret.as_ref().to_vec());
        self
    }

    /// The API's name and version, for the OpenAPI document.
    pub fn info(mut self, title: impl Into<String>, version: impl Into<String>) -> Self {
        self.title = title.into();
        self.version = version.into();
        self
    }

    /// The API's description in Markdown (CommonMark), for the OpenAPI document.
    pub fn description(mut self, markdown: impl Into<String>) -> Self {
        self.description = Some(markdown.into());
        self
    }

    /// The name and the URL of the API's contact, for the OpenAPI document.
    pub fn contact(mut self, name: impl Into<String>, url: impl Into<String>) -> Self {
        self.contact = Some((name.into(), url.into()));
        self
    }

    /// The name and the URL of the license that the API is offered under, for the OpenAPI document.
    pub fn license(mut self, name: impl Into<String>, url: impl Into<String>) -> Self {
        self.license = Some((name.into(), url.into()));
        self
    }

    /// The maximum size of a request body, in bytes; 1 MiB by default. A larger body gets 413.
    pub fn body_limit(mut self, bytes: usize) -> Self {
        self.body_limit = bytes;
        self
    }

    /// The deadline of a request; 30 s by default. A request that exceeds it gets 504.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// The maximum number of concurrent requests; 1,024 by default, at least 1. Requests beyond it get 503. Health checks
    /// are not counted.
    pub fn concurrency(mut self, requests: usize) -> Self {
        self.concurrency = requests.max(1);
        self
    }

    /// Limits of connections: how many there may be, how long they may be inactive, and how much memory they may hold.
    /// See [`ConnectionLimits`].
    pub fn connection_limits(mut self, limits: ConnectionLimits) -> Self {
        self.connections = limits;
        self
    }

    /// Whether responses are compressed for clients that accept it (gzip, Brotli).
    pub fn compression(mut self, compression: bool) -> Self {
        self.compression = compression;
        self
    }

    /// Lets pages of these origins read responses (CORS, the Fetch standard), such as `https://shop.example`.
    ///
    /// An origin that is not a valid header value is left out, so it is not allowed.
    pub fn cors_origins<O: AsRef<str>>(mut self, origins: impl IntoIterator<Item = O>) -> Self {
        let origins = origins.into_iter().filter_map(|origin| origin.as_ref().parse().ok());
        self.cors = Some(
            CorsLayer::new()
                .allow_origin(AllowOrigin::list(origins.collect::<Vec<_>>()))
                .allow_methods(Any)
                .allow_headers(AllowHeaders::mirror_request())
                .expose_headers(Any),
        );
        self
    }

    /// Replaces the CORS rules by a custom layer; `None` turns CORS off.
    pub fn cors(mut self, layer: Option<CorsLayer>) -> Self {
        self.cors = layer;
        self
    }

    /// Whether a docs page is served at `/docs` (feature `docs`).
    pub fn docs(mut self, docs: bool) -> Self {
        self.docs = docs;
        self
    }

    /// The base of the `type` of every problem, for applications with pages of their own that describe them; an absolute
    /// URL with a slash at its end.
    pub fn problem_base(mut self, url: impl Into<String>) -> Self {
        self.problem_base = url.into();
        self
    }

    /// How long a shutdown drains, not ready and still serving, for load balancers to notice; 5 s in production, none in
    /// development.
    pub fn drain_delay(mut self, delay: Duration) -> Self {
        self.drain_delay = delay;
        self
    }

    /// How long a shutdown then waits for requests under way; 25 s in production, 5 s in development.
    pub fn shutdown_grace(mut self, grace: Duration) -> Self {
        self.shutdown_grace = grace;
        self
    }

    /// Verifies the application: links its resources, creates tables where requested, and compares each declaration with
    /// its table.
    ///
    /// # Errors
    /// Every fault at once, each with the line that fixes it; [`BuildError::is_retryable`] where a database or a bus is away.
    pub async fn build(self) -> Result<App, BuildError> {
        self.build_boxed().await
    }

    /// Boxed here, so that the crate of the application does not compile the future again.
    #[inline(never)]
    fn build_boxed(self) -> BoxFuture<'static, Result<App, BuildError>> {
        Box::pin(async move { Ok(build::build(self.add_feature_resources()?).await?) })
    }

    /// Applies every missing migration, whatever the preset, and returns those that it applied: for a deployment step.
    ///
    /// # Errors
    /// Migrations that a database refuses, and migrations that were changed after they were applied.
    pub async fn migrate(self) -> Result<Vec<String>, BuildError> {
        self.migrate_boxed().await
    }

    #[inline(never)]
    fn migrate_boxed(self) -> BoxFuture<'static, Result<Vec<String>, BuildError>> {
        Box::pin(async move { Ok(migrate::migrate(&self.add_feature_resources()?, true).await?) })
    }

    /// Adds the resources of the features that it uses.
    #[cfg_attr(
        not(feature = "webhooks"),
        expect(clippy::unnecessary_wraps, unused_mut, reason = "nothing comes without webhooks")
    )]
    fn add_feature_resources(mut self) -> Result<Self, DefinitionErrors> {
        #[cfg(feature = "webhooks")]
        if let Some(webhooks) = &self.webhooks {
            webhooks.set_known_events(&self.resources);
            self.resources.extend(webhooks.resources()?);
        }
        Ok(self)
    }

    /// Builds the application and serves it until SIGTERM or Ctrl-C.
    ///
    /// # Errors
    /// Where the declaration has faults, the address cannot be listened on, or accepting fails.
    pub async fn serve(self, address: impl AsRef<str>) -> Result<(), Error> {
        self.build().await?.serve(address).await
    }
}

impl fmt::Debug for AppBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppBuilder")
            .field("preset", &self.preset)
            .field("resources", &self.resources)
            .finish_non_exhaustive()
    }
}
