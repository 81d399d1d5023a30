//! What a user writes to make an application.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use resourceful_contract::{Bus, Migration, Storage};
use tower_http::cors::{AllowHeaders, AllowOrigin, Any, CorsLayer};

use super::{App, AppPreset, ConnectionLimits, build, migrate};
use crate::access::{Authenticator, CheckError, Elevation, Grants, Permission, RoleHierarchy, Tenancy};
use crate::cache::QueryCache;
use crate::error::Error;
#[cfg(feature = "webhooks")]
use crate::events::Webhooks;
use crate::events::{Delivery, Event, On, Subscriber, Subscription};
use crate::live::Streams;
use crate::resource::{DefinitionErrors, Hook, PlacedHook, Resource};

/// Starts an application with the settings of a preset.
///
/// ```
/// use resourceful::prelude::*;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), DefinitionErrors> {
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

/// An application under way. [`build`](Self::build) verifies it; [`serve`](Self::serve) does that and runs it.
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
    pub(super) subscriptions: Vec<Subscription>,
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

    /// Adds axum routes of one's own beside the resources, or below one of them (`/products/export`). They pass the
    /// same limits and have their own words for their failures. A path that a resource or the application itself
    /// has already is a fault when the application is built.
    pub fn merge(mut self, router: Router) -> Self {
        self.merged.push(router);
        self
    }

    /// Puts every resource under a path, such as `/v1`. The specification, the docs page and the health checks
    /// stay at the root.
    pub fn prefix(mut self, path: impl Into<String>) -> Self {
        self.prefix = path.into();
        self
    }

    /// Names a URL under which clients reach the API, for the specification (OpenAPI's `servers`). Several may be
    /// named. Needed where the router is nested under a path or a proxy adds one, such as
    /// `https://shop.example/api`; without any, clients take the root of the host that gave them the document. `Location` and
    /// `Link` begin with the path of the first one, and pages of their origins are the application's own: they may use a
    /// browser's session, and open sockets.
    pub fn server(mut self, url: impl Into<String>) -> Self {
        self.servers.push(url.into());
        self
    }

    /// Adds a way to authenticate. Several are asked in order.
    pub fn authenticator(mut self, authenticator: impl Authenticator) -> Self {
        self.authenticators.push(Arc::new(authenticator));
        self
    }

    /// Which roles include which others, for every actor and on every path.
    pub fn roles(mut self, hierarchy: RoleHierarchy) -> Self {
        self.roles = hierarchy;
        self
    }

    /// Lets requests name the tenant that they are about. Without, only a credential can.
    pub fn tenancy(mut self, tenancy: Tenancy) -> Self {
        self.tenancy = Some(tenancy);
        self
    }

    /// Lets some actors raise their rights for a request. Without, nobody can but by their credential.
    pub fn elevation(mut self, elevation: Elevation) -> Self {
        self.elevation = Some(elevation);
        self
    }

    /// Runs a hook around every change of every resource, before the resource's own.
    pub fn hook(mut self, hook: impl Hook) -> Self {
        self.hooks.push(PlacedHook::everywhere(hook));
        self
    }

    /// Adds `POST /batch`, by which callers change several resources of one database in one commit, at most this many
    /// items at once: each change needs what it would need by itself, and may refer to those before it.
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

    /// Has a function told of changes: of every event whose type this pattern speaks of, such as `orders.created`,
    /// `orders.*` or `*`. It runs outside of requests, after the commit, at least once for each event; where it fails it is
    /// told again later. See [`Subscriber`].
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
        self.subscribe(name, pattern, On(handler))
    }

    /// Has a subscriber told of changes, under a name that stays the same from one version of the application to the next.
    pub fn subscribe(
        mut self,
        name: impl Into<String>,
        pattern: impl Into<String>,
        subscriber: impl Subscriber,
    ) -> Self {
        let (name, pattern) = (name.into().into(), pattern.into());
        self.subscriptions.push(Subscription {
            pattern,
            name,
            subscriber: Arc::new(subscriber),
            stays: false,
        });
        self
    }

    /// Lets users of the API have events sent to endpoints of theirs. See [`Webhooks`].
    #[cfg(feature = "webhooks")]
    pub fn webhooks(mut self, webhooks: Webhooks) -> Self {
        self.webhooks = Some(webhooks);
        self
    }

    /// Steps by which a database comes to the shape that the application needs. They run in the order of their numbers,
    /// once each, under a lock of the database, so that several nodes may start at once: in development and tests when
    /// the application is built; in production nothing is applied unasked, and an application whose database lacks one
    /// does not build. Start it once with `RESOURCEFUL_MIGRATE=1`, or call [`migrate`](Self::migrate).
    ///
    /// ```
    /// use resourceful::prelude::*;
    /// use resourceful::Migration;
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

    /// What tells the nodes of this application of each other's changes, and shares the work of subscribers among them.
    /// Without, a node knows of its own changes alone, and subscribers run where the outbox is relayed.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use resourceful::prelude::*;
    /// use resourceful::MemoryBus;
    ///
    /// # let _ =
    /// create_app(AppPreset::Testing).bus(Arc::new(MemoryBus::new())) // Redis::connect(url).await?.bus()
    /// # ;
    /// ```
    pub fn bus(mut self, bus: Arc<dyn Bus>) -> Self {
        self.bus = Some(bus);
        self
    }

    /// How the answers of resources that declare a [`Cache`](crate::Cache) are remembered; in memory unless said otherwise,
    /// and [`QueryCache::off`] remembers none.
    pub fn query_cache(mut self, settings: QueryCache) -> Self {
        self.query_cache = settings;
        self
    }

    /// Lets a change of these rights on one node reach the others through the bus.
    pub fn grants(mut self, grants: &Grants) -> Self {
        self.grants.push(grants.clone());
        self
    }

    /// How many may follow changes at once, and how they are kept. See [`Streams`].
    pub fn streams(mut self, streams: Streams) -> Self {
        self.streams = streams;
        self
    }

    /// Lets these callers ask `POST /_explain` which rule grants or denies, for anybody and any row. Without, nobody can.
    /// The answer names rules, filters and rows that callers must not learn of: it is for operators.
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

    /// Whether `/openapi.json` tells each caller what they themselves may see and do: no field that is not there for
    /// them, and no operation that they may never call. Off by default: everyone gets the same document, which names
    /// everything that is declared.
    pub fn document_by_caller(mut self, by_caller: bool) -> Self {
        self.document_by_caller = by_caller;
        self
    }

    /// The secret that cursors are encrypted and digests in ETags are named with: at least 32 bytes, the same on every
    /// node, or what one node gave is refused by the others. Mandatory in production; minted at start in development.
    pub fn secret(mut self, secret: impl AsRef<[u8]>) -> Self {
        self.secret = Some(secret.as_ref().to_vec());
        self
    }

    /// The API's name and version, for the specification.
    pub fn info(mut self, title: impl Into<String>, version: impl Into<String>) -> Self {
        self.title = title.into();
        self.version = version.into();
        self
    }

    /// What the API is, in Markdown (CommonMark), for the specification.
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

    /// The most bytes that a request's body may have; 1 MiB by default. More is 413.
    pub fn body_limit(mut self, bytes: usize) -> Self {
        self.body_limit = bytes;
        self
    }

    /// The longest that a request may take; 30 s by default. Longer is 504.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// The most requests that are answered at once; 1,024 by default, at least 1. More is 503. Health checks
    /// are not counted.
    pub fn concurrency(mut self, requests: usize) -> Self {
        self.concurrency = requests.max(1);
        self
    }

    /// How many connections there may be, how long they may be silent, and how much of memory they may hold. See
    /// [`ConnectionLimits`].
    pub fn connection_limits(mut self, limits: ConnectionLimits) -> Self {
        self.connections = limits;
        self
    }

    /// Whether answers are compressed for clients that accept it (gzip, Brotli).
    pub fn compression(mut self, compression: bool) -> Self {
        self.compression = compression;
        self
    }

    /// Lets pages of these origins read answers (CORS, the Fetch standard), such as `https://shop.example`.
    ///
    /// An origin that no header can hold is left out, so it is not allowed.
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

    /// Replaces the CORS rules by one's own; `None` turns CORS off.
    pub fn cors(mut self, layer: Option<CorsLayer>) -> Self {
        self.cors = layer;
        self
    }

    /// Whether there is a docs page at `/docs` (feature `docs`).
    pub fn docs(mut self, docs: bool) -> Self {
        self.docs = docs;
        self
    }

    /// What the `type` of every problem begins with, where one's own pages describe them; an absolute URL
    /// with a slash at its end.
    pub fn problem_base(mut self, url: impl Into<String>) -> Self {
        self.problem_base = url.into();
        self
    }

    /// How long a shutdown waits, not ready and still serving, for balancers to notice; 5 s in production,
    /// none in development.
    pub fn drain_delay(mut self, delay: Duration) -> Self {
        self.drain_delay = delay;
        self
    }

    /// How long a shutdown then waits for requests under way; 25 s in production, 5 s in development.
    pub fn shutdown_grace(mut self, grace: Duration) -> Self {
        self.shutdown_grace = grace;
        self
    }

    /// Verifies the application: links its resources, creates tables where that was asked for, and compares
    /// each declaration with its table.
    ///
    /// # Errors
    /// Every fault at once, each with the line that mends it.
    pub async fn build(self) -> Result<App, DefinitionErrors> {
        build::build(self.complete()?).await
    }

    /// Applies every migration that is missing, whatever the preset, and answers what it applied: for a step of a
    /// deployment.
    ///
    /// # Errors
    /// What a database refuses, and what was changed after it was applied.
    pub async fn migrate(self) -> Result<Vec<String>, DefinitionErrors> {
        migrate::migrate(&self.complete()?, true).await
    }

    /// With the resources that come with what it uses.
    #[cfg_attr(
        not(feature = "webhooks"),
        expect(clippy::unnecessary_wraps, unused_mut, reason = "nothing comes without webhooks")
    )]
    fn complete(mut self) -> Result<Self, DefinitionErrors> {
        #[cfg(feature = "webhooks")]
        if let Some(webhooks) = &self.webhooks {
            webhooks.know(&self.resources);
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
