//! Who asks.

use std::sync::Arc;

/// Who asks: nobody known, or someone whom an authenticator vouches for.
///
/// There is no actor that may do everything: rights follow from permissions alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Actor {
    id: Option<Arc<str>>,
    roles: Vec<Arc<str>>,
}

impl Actor {
    /// Someone who showed no credential.
    #[must_use]
    pub const fn anonymous() -> Self {
        Self { id: None, roles: Vec::new() }
    }

    /// Someone known by this id, without roles.
    ///
    /// ```
    /// use resourceful::Actor;
    ///
    /// let editor = Actor::user("ada").with_role("editor");
    /// assert!(editor.has_role("editor") && !editor.has_role("admin"));
    /// ```
    #[must_use]
    pub fn user(id: impl Into<Arc<str>>) -> Self {
        Self { id: Some(id.into()), roles: Vec::new() }
    }

    /// The same actor, with one more role.
    #[must_use]
    pub fn with_role(mut self, role: impl Into<Arc<str>>) -> Self {
        self.roles.push(role.into());
        self
    }

    /// The actor's id; `None` for an anonymous one.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Whether nobody vouches for this actor.
    #[must_use]
    pub const fn is_anonymous(&self) -> bool {
        self.id.is_none()
    }

    /// Whether the actor has this role; an anonymous one has none.
    #[must_use]
    pub fn has_role(&self, role: &str) -> bool {
        !self.is_anonymous() && self.roles.iter().any(|held| &**held == role)
    }
}
