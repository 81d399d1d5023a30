//! Rules that say who may do something, and to which rows.

use std::fmt;
use std::sync::Arc;

use serde_json::Value as Json;

use super::check::{Check, CheckError, CheckRequest};
use super::{Actor, Decision};

/// A rule that says who may do an operation, and to which rows.
///
/// Its answer is one of three: yes, yes for the rows that match a filter, or no. [`any_of`] joins the filters with
/// OR and [`all_of`] with AND; nothing else can widen or narrow them.
#[derive(Clone, Debug, PartialEq)]
pub struct Permission(pub(super) Rule);

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Rule {
    Anyone,
    SignedIn,
    Role(Arc<str>),
    TenantMember,
    TenantRole(Arc<str>),
    Scope(Arc<str>),
    Elevated,
    Nobody,
    Owner(Arc<str>),
    SameTenant(Arc<str>),
    Rows(Json),
    Check(Check),
    When(Predicate, Box<Permission>),
    AllOf(Vec<Permission>),
    AnyOf(Vec<Permission>),
    Not(Box<Permission>),
}

/// A question about the actor alone.
#[derive(Clone)]
pub(crate) struct Predicate(pub(super) Arc<dyn Fn(&Actor) -> bool + Send + Sync>);

#[cfg(feature = "testing")]
impl Predicate {
    /// Whether an actor passes; a panic is a no.
    pub(crate) fn passes(&self, actor: &Actor) -> bool {
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (self.0)(actor))).unwrap_or(false)
    }
}

#[cfg(feature = "testing")]
impl Permission {
    /// The rule as it was written.
    pub(crate) const fn declared(&self) -> &Rule {
        &self.0
    }

    /// Every check in it.
    pub(crate) fn checks(&self) -> Vec<&Check> {
        match &self.0 {
            Rule::Check(check) => vec![check],
            Rule::When(_, inner) | Rule::Not(inner) => inner.checks(),
            Rule::AllOf(parts) | Rule::AnyOf(parts) => parts.iter().flat_map(Self::checks).collect(),
            _ => Vec::new(),
        }
    }
}

impl PartialEq for Predicate {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Predicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Predicate")
    }
}

/// Everyone may, signed in or not.
#[must_use]
pub const fn anyone() -> Permission {
    Permission(Rule::Anyone)
}

/// Everyone whom an authenticator vouches for may.
#[must_use]
pub const fn signed_in() -> Permission {
    Permission(Rule::SignedIn)
}

/// Everyone with this role may, in whatever tenant.
#[must_use]
pub fn role(name: impl Into<Arc<str>>) -> Permission {
    Permission(Rule::Role(name.into()))
}

/// Everyone who is in a tenant may, but for services, whose rights are their scopes. To which tenant's rows is another
/// question: see [`same_tenant`].
#[must_use]
pub const fn tenant_member() -> Permission {
    Permission(Rule::TenantMember)
}

/// Everyone with this role inside their tenant may.
#[must_use]
pub fn tenant_role(name: impl Into<Arc<str>>) -> Permission {
    Permission(Rule::TenantRole(name.into()))
}

/// Every service with this scope may.
#[must_use]
pub fn scope(name: impl Into<Arc<str>>) -> Permission {
    Permission(Rule::Scope(name.into()))
}

/// Everyone who acts with raised rights may.
#[must_use]
pub const fn elevated() -> Permission {
    Permission(Rule::Elevated)
}

/// No one may.
#[must_use]
pub const fn nobody() -> Permission {
    Permission(Rule::Nobody)
}

/// Everyone who is signed in may, to the rows that hold their id in this field. A row without an owner belongs to
/// nobody. The field may be one of a related row, so that what belongs to an order belongs to the order's owner:
/// `owner("order.user_id")`.
#[must_use]
pub fn owner(field: impl Into<Arc<str>>) -> Permission {
    Permission(Rule::Owner(field.into()))
}

/// Everyone who is in a tenant may, to the rows that hold it in this field, or in one of a related row as for [`owner`];
/// with raised rights and no tenant of one's own, to the rows of every tenant.
#[must_use]
pub fn same_tenant(field: impl Into<Arc<str>>) -> Permission {
    Permission(Rule::SameTenant(field.into()))
}

/// Everyone may, to the rows that match this filter: the tree that a query's body has, over any field of the stored
/// row. A filter that does not fit the resource is a fault of the declaration.
///
/// ```
/// use resourceful::{any_of, role, rows};
///
/// let readers = any_of([role("editor"), rows(serde_json::json!({"status": "published"}))]);
/// # let _ = readers;
/// ```
#[must_use]
pub const fn rows(filter: Json) -> Permission {
    Permission(Rule::Rows(filter))
}

/// A check of one's own, under a name for logs and explanations. An error, a panic and a filter that does not fit the
/// resource deny.
///
/// ```
/// use resourceful::{Decision, check};
///
/// let open = check("open hours", async |asking| {
///     let hours_are_open = true; // ask a clock, a table, another service …
///     Ok(if hours_are_open { Decision::allow() } else { Decision::deny("closed") })
/// });
/// # let _ = open;
/// ```
#[must_use]
pub fn check<F, T>(name: impl Into<Arc<str>>, check: F) -> Permission
where
    F: Fn(CheckRequest) -> T + Send + Sync + 'static,
    T: Future<Output = Result<Decision, CheckError>> + Send + 'static,
{
    Permission(Rule::Check(Check::new(name.into(), check)))
}

/// What the permission says, for the actors that pass; nobody else may. A panic is a no.
#[must_use]
pub fn when(passes: impl Fn(&Actor) -> bool + Send + Sync + 'static, permission: Permission) -> Permission {
    Permission(Rule::When(Predicate(Arc::new(passes)), Box::new(permission)))
}

/// What every one of these allows: to the rows that match all of their filters. Nothing is allowed by none.
#[must_use]
pub fn all_of(permissions: impl IntoIterator<Item = Permission>) -> Permission {
    Permission(Rule::AllOf(permissions.into_iter().collect()))
}

/// What at least one of these allows: to the rows that match at least one of their filters.
#[must_use]
pub fn any_of(permissions: impl IntoIterator<Item = Permission>) -> Permission {
    Permission(Rule::AnyOf(permissions.into_iter().collect()))
}

/// The opposite: to the rows that the permission does not allow.
#[must_use]
pub fn not(permission: Permission) -> Permission {
    Permission(Rule::Not(Box::new(permission)))
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let several = |f: &mut fmt::Formatter<'_>, name: &str, parts: &[Self]| {
            let parts: Vec<_> = parts.iter().map(ToString::to_string).collect();
            write!(f, "{name}({})", parts.join(", "))
        };
        match &self.0 {
            Rule::Anyone => f.write_str("anyone()"),
            Rule::SignedIn => f.write_str("signed_in()"),
            Rule::Role(name) => write!(f, "role({name:?})"),
            Rule::TenantMember => f.write_str("tenant_member()"),
            Rule::TenantRole(name) => write!(f, "tenant_role({name:?})"),
            Rule::Scope(name) => write!(f, "scope({name:?})"),
            Rule::Elevated => f.write_str("elevated()"),
            Rule::Nobody => f.write_str("nobody()"),
            Rule::Owner(field) => write!(f, "owner({field:?})"),
            Rule::SameTenant(field) => write!(f, "same_tenant({field:?})"),
            Rule::Rows(filter) => write!(f, "rows({filter})"),
            Rule::Check(check) => write!(f, "check({:?})", check.name),
            Rule::When(_, inner) => write!(f, "when(…, {inner})"),
            Rule::AllOf(parts) => several(f, "all_of", parts),
            Rule::AnyOf(parts) => several(f, "any_of", parts),
            Rule::Not(inner) => write!(f, "not({inner})"),
        }
    }
}
