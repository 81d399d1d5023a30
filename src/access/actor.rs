//! Actors: the callers of requests, authenticated or anonymous.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The caller of a request: anonymous, or authenticated by an authenticator.
///
/// There is no superuser: rights follow from permissions alone. Cloning is cheap.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Actor(Option<Arc<Attributes>>);

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Attributes {
    id: Arc<str>,
    is_service: bool,
    elevated: bool,
    tenant: Option<Arc<str>>,
    roles: Vec<Arc<str>>,
    tenant_roles: Vec<Arc<str>>,
    scopes: Vec<Arc<str>>,
    /// Scopes that restrict a client acting on behalf of a user; `None` means no restriction.
    limits: Option<Vec<Arc<str>>>,
}

impl Actor {
    /// The actor as JSON, for a store that only the application writes to.
    pub(super) fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self.0.as_deref()).unwrap_or_default()
    }

    /// The actor that [`stored`](Self::stored) wrote.
    pub(super) fn from_json(json: serde_json::Value) -> serde_json::Result<Self> {
        Ok(Self(serde_json::from_value::<Option<Attributes>>(json)?.map(Arc::new)))
    }
}

/// What kind of actor this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ActorKind {
    /// A caller that sent no credential.
    Anonymous,
    /// A user outside of any tenant.
    User,
    /// A user as a member of one tenant.
    Member,
    /// A service (a machine client), with scopes.
    Service,
    /// A user with temporarily elevated rights, in one tenant or across all tenants.
    Elevated,
}

impl Actor {
    /// An anonymous caller: one that sent no credential.
    #[must_use]
    pub const fn anonymous() -> Self {
        Self(None)
    }

    /// A user with this id, without roles.
    ///
    /// ```
    /// use resourceful::Actor;
    ///
    /// let editor = Actor::user("ada").with_role("editor");
    /// assert!(editor.has_role("editor") && !editor.has_role("admin"));
    /// ```
    #[must_use]
    pub fn user(id: impl Into<Arc<str>>) -> Self {
        Self(Some(Arc::new(Attributes {
            id: id.into(),
            is_service: false,
            elevated: false,
            tenant: None,
            roles: Vec::new(),
            tenant_roles: Vec::new(),
            scopes: Vec::new(),
            limits: None,
        })))
    }

    /// A service with this client id, without scopes.
    ///
    /// ```
    /// use resourceful::Actor;
    ///
    /// let exporter = Actor::service("exporter").with_scope("orders:read");
    /// assert!(exporter.has_scope("orders:read"));
    /// ```
    #[must_use]
    pub fn service(client: impl Into<Arc<str>>) -> Self {
        Self::user(client).with(|attributes| attributes.is_service = true)
    }

    /// The same actor, with one more role.
    #[must_use]
    pub fn with_role(self, role: impl Into<Arc<str>>) -> Self {
        let role = role.into();
        self.with(|attributes| attributes.roles.push(role))
    }

    /// The same actor, with one more scope.
    #[must_use]
    pub fn with_scope(self, scope: impl Into<Arc<str>>) -> Self {
        let scope = scope.into();
        self.with(|attributes| attributes.scopes.push(scope))
    }

    /// The same actor as a member of a tenant, with these roles inside it. An actor is in one tenant at a time.
    ///
    /// ```
    /// use resourceful::Actor;
    /// use resourceful::access::ActorKind;
    ///
    /// let member = Actor::user("ada").in_tenant("acme", ["admin"]);
    /// assert_eq!((member.kind(), member.tenant()), (ActorKind::Member, Some("acme")));
    /// assert!(member.has_tenant_role("admin") && !member.has_role("admin"));
    /// ```
    #[must_use]
    pub fn in_tenant<R: Into<Arc<str>>>(
        self,
        tenant: impl Into<Arc<str>>,
        roles: impl IntoIterator<Item = R>,
    ) -> Self {
        let (tenant, roles) = (tenant.into(), roles.into_iter().map(Into::into).collect());
        self.with(|attributes| {
            attributes.tenant = Some(tenant);
            attributes.tenant_roles = roles;
        })
    }

    /// The same actor with elevated rights: tenant isolation restricts it to its tenant where it has one, and not at all
    /// otherwise. Permissions still apply; [`elevated`](crate::access::elevated) requires elevation.
    #[must_use]
    pub fn elevated(self) -> Self {
        self.with(|attributes| attributes.elevated = true)
    }

    /// The same actor as a client acting on its behalf: only those of the actor's rights remain that one of these scopes
    /// covers. On a resource `orders`, `orders:read` covers reads and lists, history and streams; `orders:write` every
    /// change and action; `orders:create`, `orders:ship` and the like one operation or action. The response to a change
    /// contains the item, so a change requires `orders:read` as well.
    ///
    /// ```
    /// use resourceful::Actor;
    ///
    /// let app = Actor::user("ada").with_role("admin").limited_to(["orders:read"]);
    /// assert!(app.has_role("admin") && app.is_limited());
    /// ```
    #[must_use]
    pub fn limited_to<S: Into<Arc<str>>>(self, scopes: impl IntoIterator<Item = S>) -> Self {
        let scopes = scopes.into_iter().map(Into::into).collect();
        self.with(|attributes| attributes.limits = Some(scopes))
    }

    /// Whether this is a client acting on behalf of an actor, restricted by scopes.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.0.as_ref().is_some_and(|attributes| attributes.limits.is_some())
    }

    /// The scopes of a client acting on behalf of an actor.
    #[cfg(feature = "testing")]
    pub(crate) fn limits(&self) -> Option<Vec<&str>> {
        let limits = self.0.as_ref()?.limits.as_ref()?;
        Some(limits.iter().map(|scope| &**scope).collect())
    }

    /// Whether one of the actor's scopes covers an operation or action of a resource; always true where the actor is not
    /// restricted by scopes. `group` is `read` or `write`.
    pub(crate) fn covers(&self, resource: &str, group: &str, name: &str) -> bool {
        let Some(limits) = self.0.as_ref().and_then(|attributes| attributes.limits.as_ref()) else {
            return true;
        };
        let is_covering = |scope: &Arc<str>| {
            scope.rsplit_once(':').is_some_and(|(of, what)| of == resource && (what == group || what == name))
        };
        limits.iter().any(is_covering)
    }

    fn with(mut self, change: impl FnOnce(&mut Attributes)) -> Self {
        // An anonymous actor has no attributes.
        if let Some(attributes) = &mut self.0 {
            change(Arc::make_mut(attributes));
        }
        self
    }

    /// What kind of actor this is.
    #[must_use]
    pub fn kind(&self) -> ActorKind {
        match &self.0 {
            None => ActorKind::Anonymous,
            Some(attributes) if attributes.elevated => ActorKind::Elevated,
            Some(attributes) if attributes.is_service => ActorKind::Service,
            Some(attributes) if attributes.tenant.is_some() => ActorKind::Member,
            Some(_) => ActorKind::User,
        }
    }

    /// The actor's id; `None` for an anonymous one.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.0.as_ref().map(|attributes| &*attributes.id)
    }

    /// The tenant that the actor is in.
    #[must_use]
    pub fn tenant(&self) -> Option<&str> {
        self.0.as_ref().and_then(|attributes| attributes.tenant.as_deref())
    }

    /// Whether the actor is anonymous: no authenticator has authenticated it.
    #[must_use]
    pub const fn is_anonymous(&self) -> bool {
        self.0.is_none()
    }

    /// Whether the actor is a service.
    #[must_use]
    pub fn is_service(&self) -> bool {
        self.0.as_ref().is_some_and(|attributes| attributes.is_service)
    }

    /// Whether the actor has elevated rights.
    #[must_use]
    pub fn is_elevated(&self) -> bool {
        self.0.as_ref().is_some_and(|attributes| attributes.elevated)
    }

    /// Whether the actor has this role, regardless of tenant; anonymous actors have none.
    #[must_use]
    pub fn has_role(&self, role: &str) -> bool {
        self.0.as_ref().is_some_and(|attributes| contains(&attributes.roles, role))
    }

    /// Whether the actor has this role inside its tenant.
    #[must_use]
    pub fn has_tenant_role(&self, role: &str) -> bool {
        self.0
            .as_ref()
            .is_some_and(|attributes| attributes.tenant.is_some() && contains(&attributes.tenant_roles, role))
    }

    /// Whether the actor is a service that has this scope.
    #[must_use]
    pub fn has_scope(&self, scope: &str) -> bool {
        self.is_service() && self.0.as_ref().is_some_and(|attributes| contains(&attributes.scopes, scope))
    }

    /// The actor as JSON, to be restored later. Elevation is temporary, so it is left out.
    #[cfg(feature = "webhooks")]
    pub(crate) fn to_unelevated_json(&self) -> serde_json::Value {
        let Some(attributes) = &self.0 else { return serde_json::Value::Null };
        let names = |names: &[Arc<str>]| -> serde_json::Value {
            names.iter().map(|name| serde_json::Value::from(&**name)).collect()
        };
        serde_json::json!({
            "id": &*attributes.id, "service": attributes.is_service, "tenant": attributes.tenant.as_deref(),
            "roles": names(&attributes.roles), "tenant_roles": names(&attributes.tenant_roles), "scopes": names(&attributes.scopes),
            "limits": attributes.limits.as_deref().map(names),
        })
    }

    /// Restores an actor from JSON; anonymous where it cannot be read.
    #[cfg(feature = "webhooks")]
    pub(crate) fn read(json: &serde_json::Value) -> Self {
        let text = |name: &str| json.get(name).and_then(serde_json::Value::as_str).map(Arc::<str>::from);
        let Some(id) = text("id") else { return Self::anonymous() };
        let names = |name: &str| {
            let names = json.get(name).and_then(serde_json::Value::as_array).into_iter().flatten();
            names.filter_map(serde_json::Value::as_str).map(Arc::from).collect::<Vec<_>>()
        };
        Self(Some(Arc::new(Attributes {
            id,
            is_service: json.get("service").and_then(serde_json::Value::as_bool).unwrap_or(false),
            elevated: false,
            tenant: text("tenant"),
            roles: names("roles"),
            tenant_roles: names("tenant_roles"),
            scopes: names("scopes"),
            limits: json.get("limits").filter(|limits| limits.is_array()).map(|_| names("limits")),
        })))
    }

    /// The same actor with every role that its roles include, directly or through others.
    pub(crate) fn with_included(self, hierarchy: &RoleHierarchy) -> Self {
        if hierarchy.includes.is_empty() {
            return self;
        }
        self.with(|attributes| {
            hierarchy.expand(&mut attributes.roles);
            hierarchy.expand(&mut attributes.tenant_roles);
        })
    }
}

fn contains(names: &[Arc<str>], name: &str) -> bool {
    names.iter().any(|other| &**other == name)
}

/// A role hierarchy: which roles include which others.
///
/// ```
/// use resourceful::access::RoleHierarchy;
///
/// // An admin may what an editor may, and an editor what a reader may.
/// let roles = RoleHierarchy::new().includes("admin", ["editor"]).includes("editor", ["reader"]);
/// # let _ = roles;
/// ```
#[derive(Clone, Debug, Default)]
pub struct RoleHierarchy {
    includes: Vec<(Arc<str>, Vec<Arc<str>>)>,
}

impl RoleHierarchy {
    /// No role includes another.
    #[must_use]
    pub const fn new() -> Self {
        Self { includes: Vec::new() }
    }

    /// Lets a role include others. Cycles are harmless: the roles in a cycle are equivalent.
    #[must_use]
    pub fn includes<R: Into<Arc<str>>>(
        mut self,
        role: impl Into<Arc<str>>,
        others: impl IntoIterator<Item = R>,
    ) -> Self {
        self.includes.push((role.into(), others.into_iter().map(Into::into).collect()));
        self
    }

    fn expand(&self, roles: &mut Vec<Arc<str>>) {
        let mut next = 0;
        while next < roles.len() {
            let role = roles[next].clone();
            let included =
                self.includes.iter().filter(|(name, _)| *name == role).flat_map(|(_, others)| others);
            for other in included {
                if !roles.contains(other) {
                    roles.push(other.clone());
                }
            }
            next += 1;
        }
    }
}
